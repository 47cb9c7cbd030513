"""History: refused changes, the switch for maintenance, sweeping by the server, and what can be asked for in SQL."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0003"
down_revision = "0002"

_XID = sa.text("((pg_current_xact_id())::text)::bigint")

_INDEXES = {
    "result_tags_idx": "result USING gin (tags) WHERE tags IS NOT NULL",
    "result_task_idx": "result (storage_id, ((provenance #>> '{task,name}'::text[])), key)"
    " WHERE (provenance #>> '{task,name}'::text[]) IS NOT NULL",
    "result_flow_idx": "result (storage_id, ((provenance #>> '{flow,name}'::text[])), key)"
    " WHERE (provenance #>> '{flow,name}'::text[]) IS NOT NULL",
    # Entries come in the order of both: a few pages of index find what is recent.
    "history_at_idx": "history USING brin (at) WITH (autosummarize = 'on')",
    "history_xid_idx": "history USING brin (xid) WITH (autosummarize = 'on')",
    "document_document_idx": "document USING gin (document jsonb_path_ops)",
}

# The functions find their tables by the search path of this migration, wherever they are called from.
_DIGEST = """
CREATE FUNCTION entry_digest(previous bytea, storage_id uuid, key text, seq bigint, version bigint, at timestamptz,
                             expires_at timestamptz, db_user text, content bytea) RETURNS bytea
LANGUAGE sql IMMUTABLE AS $$
    SELECT sha256(
        int4send(octet_length(previous)) || previous || uuid_send(storage_id)
        || int4send(octet_length(convert_to(key, 'UTF8'))) || convert_to(key, 'UTF8')
        || int8send(seq) || int8send(version) || timestamptz_send(at)
        || coalesce(int4send(8) || timestamptz_send(expires_at), int4send(-1))
        || int4send(octet_length(convert_to(db_user, 'UTF8'))) || convert_to(db_user, 'UTF8') || content)
$$
"""

_CONTENT = """
CREATE FUNCTION bare_content(action text, actor text, holder text, reason text) RETURNS bytea
LANGUAGE sql IMMUTABLE AS $$
    SELECT sha256(string_agg(
        coalesce(int4send(octet_length(convert_to(field, 'UTF8'))) || convert_to(field, 'UTF8'), int4send(-1)),
        ''::bytea ORDER BY place))
    FROM unnest(ARRAY[action, actor, holder, NULL, reason] || array_fill(NULL::text, ARRAY[11]))
         WITH ORDINALITY AS fields(field, place)
$$
"""

_SWEEP = """
CREATE FUNCTION sweep(batch_size integer DEFAULT 1000, only_storage uuid DEFAULT NULL,
                      who text DEFAULT session_user, as_holder text DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    ids uuid[];
    keys text[];
    content bytea := bare_content('expire', who, as_holder, NULL);
BEGIN
    -- In a statement of its own: the next ones see every payload of the rows that are locked by now.
    SELECT array_agg(due.storage_id), array_agg(due.key) INTO ids, keys FROM (
        SELECT r.storage_id, r.key FROM result r
        WHERE r.expires_at <= statement_timestamp() AND r.payload_id IS NOT NULL
          AND (only_storage IS NULL OR r.storage_id = only_storage)
        ORDER BY r.expires_at LIMIT batch_size FOR UPDATE SKIP LOCKED
    ) due;
    IF ids IS NULL THEN
        RETURN 0;
    END IF;
    DELETE FROM payload p USING unnest(ids, keys) AS due(storage_id, key), result r
    WHERE r.storage_id = due.storage_id AND r.key = due.key
      AND p.storage_id = r.storage_id AND p.key = r.key AND p.payload_id = r.payload_id;
    WITH head AS (
        UPDATE result r
        SET payload_id = NULL, expires_at = NULL, serializer = NULL, size = NULL, sha256 = NULL, tags = NULL,
            provenance = NULL, storage_key = NULL, storage_block_id = NULL, pgresults_version = NULL,
            prefect_version = NULL, signature = NULL, payload_digest = NULL, action = 'expire', actor = who,
            holder = as_holder, fence = NULL, reason = NULL, seq = r.seq + 1, at = moment.at,
            db_user = session_user, previous = r.digest,
            digest = entry_digest(r.digest, r.storage_id, r.key, r.seq + 1, r.version, moment.at, NULL,
                                  session_user, content)
        FROM unnest(ids, keys) AS due(storage_id, key)
        JOIN result old USING (storage_id, key)
        CROSS JOIN LATERAL (
            SELECT greatest(statement_timestamp(), old.at + interval '1 microsecond') AS at
        ) moment
        WHERE r.storage_id = due.storage_id AND r.key = due.key
        RETURNING r.*
    )
    INSERT INTO history (storage_id, key, version, seq, action, at, actor, db_user, holder, previous, digest)
    SELECT storage_id, key, version, seq, action, at, actor, db_user, holder, previous, digest FROM head;
    RETURN cardinality(keys);
END
$$
"""

_MAINTENANCE = """
CREATE FUNCTION maintenance(reason text) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    place constant uuid := '00000000-0000-0000-0000-000000000000';
    last result;
    now_at timestamptz := statement_timestamp();
    chained bytea;
BEGIN
    IF coalesce(reason, '') = '' THEN
        RAISE EXCEPTION 'say why the history has to be changed: SELECT maintenance(''...'')';
    END IF;
    INSERT INTO storage (id, name, created_at) VALUES (place, 'pgresults/maintenance', now_at) ON CONFLICT DO NOTHING;
    PERFORM pg_advisory_xact_lock(hashtextextended('pgresults.maintenance', 0));
    SELECT * INTO last FROM result r WHERE r.storage_id = place AND r.key = 'maintenance' FOR UPDATE;
    IF last.key IS NOT NULL THEN
        now_at := greatest(now_at, last.at + interval '1 microsecond');
    END IF;
    chained := entry_digest(coalesce(last.digest, ''), place, 'maintenance', coalesce(last.seq, 0) + 1, 0, now_at, NULL,
                            session_user, bare_content('maintenance', session_user, NULL, maintenance.reason));
    DELETE FROM result r WHERE r.storage_id = place AND r.key = 'maintenance';
    INSERT INTO result (storage_id, key, version, seq, action, at, created_at, actor, db_user, reason, previous, digest)
    VALUES (place, 'maintenance', 0, coalesce(last.seq, 0) + 1, 'maintenance', now_at, now_at, session_user,
            session_user, maintenance.reason, coalesce(last.digest, ''), chained);
    INSERT INTO history (storage_id, key, version, seq, action, at, actor, db_user, reason, previous, digest)
    SELECT r.storage_id, r.key, r.version, r.seq, r.action, r.at, r.actor, r.db_user, r.reason, r.previous, r.digest
    FROM result r WHERE r.storage_id = place AND r.key = 'maintenance';
END
$$
"""

_REFUSE = """
CREATE FUNCTION refuse_change() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM history h
        WHERE h.storage_id = '00000000-0000-0000-0000-000000000000' AND h.key = 'maintenance'
          AND h.xid = pg_current_xact_id()::text::bigint
    ) THEN
        RAISE EXCEPTION 'the history is append-only: % is refused', TG_OP
            USING ERRCODE = 'insufficient_privilege',
                  HINT = format('In the same transaction, SELECT %I.maintenance(''why''): it leaves an entry.',
                                TG_TABLE_SCHEMA);
    END IF;
    RETURN NULL;
END
$$
"""

_TRIGGERS = (
    """CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON history
       FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()""",
    # In replicas and restores, too, where ordinary triggers stay silent.
    "ALTER TABLE history ENABLE ALWAYS TRIGGER append_only",
)

_PROJECT = """
CREATE FUNCTION project_document() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    DELETE FROM document d WHERE d.storage_id = NEW.storage_id AND d.key = NEW.key;
    IF NEW.payload_id IS NOT NULL AND NEW.serializer ->> 'type' = 'json' AND NEW.size <= 1048576 THEN
        BEGIN
            INSERT INTO document (storage_id, key, document)
            SELECT p.storage_id, p.key, convert_from(p.data, 'UTF8')::jsonb FROM payload p
            WHERE p.storage_id = NEW.storage_id AND p.key = NEW.key AND p.payload_id = NEW.payload_id AND p.chunk = 0;
        EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
            NULL; -- what jsonb cannot hold is stored all the same
        END;
    END IF;
    RETURN NULL;
END
$$
"""

_SWITCH = """
CREATE FUNCTION project_documents(wanted boolean DEFAULT true) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    DROP TRIGGER IF EXISTS project_document ON result;
    DELETE FROM document;
    IF wanted THEN
        CREATE TRIGGER project_document AFTER INSERT OR UPDATE OF payload_id ON result
            FOR EACH ROW EXECUTE FUNCTION project_document();
        UPDATE result SET payload_id = payload_id WHERE serializer ->> 'type' = 'json';
    END IF;
END
$$
"""

_VIEWS = {
    "live_results": """
        SELECT coalesce(s.name, r.storage_id::text) AS storage, r.key, r.version, r.created_at, r.expires_at, r.size,
               r.serializer ->> 'type' AS serializer, encode(r.sha256, 'hex') AS sha256, r.tags, r.provenance,
               r.actor, r.db_user, r.holder, r.fence, r.storage_id, r.provenance #>> '{task,name}' AS task,
               r.provenance #>> '{flow,name}' AS flow
        FROM result r LEFT JOIN storage s ON s.id = r.storage_id
        WHERE r.payload_id IS NOT NULL AND (r.expires_at IS NULL OR r.expires_at > statement_timestamp())
    """,
    "expirations": """
        SELECT coalesce(s.name, r.storage_id::text) AS storage, r.key, r.version, r.expires_at,
               r.expires_at - statement_timestamp() AS remaining, r.expires_at <= statement_timestamp() AS expired,
               r.size, r.created_at, r.storage_id
        FROM result r LEFT JOIN storage s ON s.id = r.storage_id
        WHERE r.expires_at IS NOT NULL
    """,
    "result_history": """
        SELECT coalesce(s.name, h.storage_id::text) AS storage, h.key, h.seq, h.version, h.action, h.at, h.actor,
               h.db_user, h.holder, h.fence, h.expires_at, h.size, h.serializer ->> 'type' AS serializer, h.reason,
               h.tags, h.provenance, encode(h.digest, 'hex') AS digest, h.storage_id
        FROM history h LEFT JOIN storage s ON s.id = h.storage_id
    """,
    "storage_usage": """
        SELECT coalesce(s.name, u.storage_id::text) AS storage, u.keys, u.live, u.live_bytes, u.expired_bytes,
               u.last_change, u.storage_id
        FROM (
            SELECT r.storage_id, count(*) AS keys,
                   count(*) FILTER (WHERE r.payload_id IS NOT NULL AND NOT e.expired) AS live,
                   coalesce(sum(r.size) FILTER (WHERE NOT e.expired), 0)::bigint AS live_bytes,
                   coalesce(sum(r.size) FILTER (WHERE e.expired), 0)::bigint AS expired_bytes,
                   max(r.at) AS last_change
            FROM result r
            CROSS JOIN LATERAL (SELECT coalesce(r.expires_at <= statement_timestamp(), false) AS expired) e
            GROUP BY r.storage_id
        ) u LEFT JOIN storage s ON s.id = u.storage_id
    """,
    "json_results": """
        SELECT coalesce(s.name, r.storage_id::text) AS storage, r.key, r.version, r.created_at, r.expires_at,
               d.document, r.storage_id
        FROM document d JOIN result r ON r.storage_id = d.storage_id AND r.key = d.key
        LEFT JOIN storage s ON s.id = r.storage_id
        WHERE r.payload_id IS NOT NULL AND (r.expires_at IS NULL OR r.expires_at > statement_timestamp())
    """,
}


def upgrade() -> None:
    op.add_column("history", sa.Column("xid", sa.BigInteger, nullable=False, server_default=_XID))
    op.create_table(
        "document",
        sa.Column("storage_id", sa.Uuid, nullable=False),
        sa.Column("key", sa.Text(collation="C"), nullable=False),
        sa.Column("document", JSONB, nullable=False),
        sa.PrimaryKeyConstraint("storage_id", "key", name="document_pkey"),
    )
    for name, target in _INDEXES.items():
        op.execute(f"CREATE INDEX {name} ON {target}")
    for statement in (_DIGEST, _CONTENT, _SWEEP, _MAINTENANCE, _REFUSE, *_TRIGGERS, _PROJECT, _SWITCH):
        op.execute(statement)
    for name, query in _VIEWS.items():
        op.execute(f"CREATE OR REPLACE VIEW {name} AS {query}")


def downgrade() -> None:
    raise NotImplementedError("the history would lose what keeps it: restore a backup from before the upgrade instead")
