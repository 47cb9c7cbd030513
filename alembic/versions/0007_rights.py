"""What only the server knows it says itself, and every role does what its kind is for and no more."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_PROJECT = """
CREATE OR REPLACE FUNCTION project_document() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    -- Before anything is read of the row: the columns of another table may have types that run code of their owner's.
    IF TG_RELID <> 'result'::regclass THEN
        RAISE EXCEPTION 'project_document() serves the table result and is no trigger of another table'
            USING ERRCODE = 'insufficient_privilege';
    END IF;
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

_SAID = (
    "payload_id", "payload_digest", "size", "serializer", "tags", "provenance", "storage_key", "storage_block_id",
    "pgresults_version", "prefect_version", "signature", "sha256",
)  # fmt: skip
_ENTRY = (
    "storage_id", "key", "version", "payload_id", "expires_at", "serializer", "size", "tags", "provenance",
    "storage_key", "storage_block_id", "pgresults_version", "prefect_version", "signature", "seq", "action", "at",
    "actor", "db_user", "holder", "fence", "reason", "payload_digest", "previous", "digest",
)  # fmt: skip


def _row(of: str, names: tuple[str, ...]) -> str:
    return ", ".join(f"{of}.{name}" for name in names)


_FIRST = """
    NEW.seq = 1 AND NEW.previous = '' AND NEW.db_user = session_user AND NEW.at = statement_timestamp()
    AND CASE
        WHEN writes THEN NEW.version = 1 AND NEW.payload_id IS NOT NULL AND NEW.created_at = NEW.at
        WHEN NEW.action = 'break' THEN NEW.version = 0 AND NEW.payload_id IS NULL
        ELSE false
    END
"""
_NEXT = """
    NEW.storage_id = OLD.storage_id AND NEW.key = OLD.key AND NEW.seq = OLD.seq + 1 AND NEW.previous = OLD.digest
    AND NEW.db_user = session_user AND NEW.at = greatest(statement_timestamp(), OLD.at + interval '1 microsecond')
    AND CASE
        WHEN writes THEN NEW.version = OLD.version + 1 AND NEW.payload_id IS NOT NULL AND NEW.created_at = NEW.at
        ELSE NEW.version = OLD.version AND NEW.created_at IS NOT DISTINCT FROM OLD.created_at
             AND coalesce(changes, false)
    END
"""
# That of a touch by when the transaction began: the one that looked may have done so a moment ago.
_CHANGES = f"""
    CASE
        WHEN NEW.action IN ('touch', 'break', 'retain') THEN
            ROW({_row("NEW", _SAID)}) IS NOT DISTINCT FROM ROW({_row("OLD", _SAID)})
            AND CASE
                WHEN NEW.action <> 'touch' THEN NEW.expires_at IS NOT DISTINCT FROM OLD.expires_at
                ELSE OLD.payload_id IS NOT NULL AND (OLD.expires_at IS NULL OR OLD.expires_at > now())
            END
        WHEN NEW.action IN ('delete', 'expire', 'redact') THEN
            num_nonnulls(NEW.expires_at, {_row("NEW", _SAID)}) = 0
            AND (NEW.action = 'redact' OR OLD.payload_id IS NOT NULL)
            AND (NEW.action <> 'expire' OR OLD.expires_at <= statement_timestamp())
    END
    AND (NEW.action NOT IN ('expire', 'redact', 'retain') OR has_table_privilege(who, 'payload', 'DELETE'))
    AND (NEW.action IN ('expire', 'redact', 'retain') OR has_table_privilege(who, 'result', 'INSERT'))
"""
_PAYLOAD_OF_ITS_OWN = """
    SELECT FROM payload p
    WHERE p.storage_id = NEW.storage_id AND p.key = NEW.key AND p.payload_id = NEW.payload_id AND p.chunk = 0
      AND p.xid = pg_current_xact_id()::text::bigint
"""

_RECORD = f"""
CREATE FUNCTION record_entry() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    writes boolean;
    changes boolean;
    honest boolean;
    who name;
BEGIN
    -- Before anything is read of the row: the columns of another table may have types that run code of their owner's.
    IF TG_RELID <> 'result'::regclass THEN
        RAISE EXCEPTION 'record_entry() serves the table result and is no trigger of another table'
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    writes := NEW.action IN ('write', 'import');
    IF TG_OP = 'INSERT' THEN
        honest := {_FIRST};
    ELSIF writes THEN
        honest := {_NEXT};
    ELSE
        -- Not the current user, who is the tables' owner here.
        who := coalesce(nullif(current_setting('role'), 'none'), session_user);
        changes := {_CHANGES};
        honest := {_NEXT};
    END IF;
    IF honest THEN
        INSERT INTO history ({", ".join(_ENTRY)})
        SELECT {_row("NEW", _ENTRY)} WHERE NOT writes OR EXISTS ({_PAYLOAD_OF_ITS_OWN});
        IF FOUND THEN
            RETURN NULL;
        END IF;
    END IF;
    who := coalesce(nullif(current_setting('role'), 'none'), session_user);
    IF NOT has_table_privilege(who, 'history', 'INSERT') THEN
        RAISE EXCEPTION 'permission denied: this is no entry that % may make under the key %', session_user,
                        quote_literal(NEW.key)
            USING ERRCODE = 'insufficient_privilege',
                  HINT = 'Entries follow each other in number, version, time and digest, name the user of their '
                         'session, and do what they say; a version is stored together with its payload; each kind of '
                         'role makes its own kinds of entries.';
    ELSIF TG_OP = 'INSERT' OR NEW.seq > OLD.seq THEN
        INSERT INTO history ({", ".join(_ENTRY)}) VALUES ({_row("NEW", _ENTRY)});
    END IF;
    RETURN NULL;
END
$$
"""  # noqa: S608 (the names are ours)

_TRIGGER = """
CREATE TRIGGER record_entry AFTER INSERT OR UPDATE ON result FOR EACH ROW EXECUTE FUNCTION record_entry()
"""

_SWEEP = """
CREATE OR REPLACE FUNCTION sweep(batch_size integer DEFAULT 1000, only_storage uuid DEFAULT NULL,
                      who text DEFAULT session_user, as_holder text DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    ids uuid[];
    keys text[];
    content bytea := bare_content('expire', who, as_holder, NULL);
BEGIN
    IF has_function_privilege('forget_released(integer, uuid)', 'EXECUTE') THEN
        PERFORM forget_released(batch_size, only_storage);
    END IF;
    -- In a statement of its own: the next ones see every payload of the rows that are locked by now.
    SELECT array_agg(due.storage_id), array_agg(due.key) INTO ids, keys FROM (
        SELECT r.storage_id, r.key FROM result r
        WHERE r.expires_at <= statement_timestamp() AND r.payload_id IS NOT NULL
          AND (only_storage IS NULL OR r.storage_id = only_storage)
          AND NOT EXISTS (
              SELECT FROM lock l
              WHERE l.storage_id = r.storage_id AND l.key = r.key AND NOT l.released
                AND (l.expires_at IS NULL OR l.expires_at > clock_timestamp())
                AND l.holder IS DISTINCT FROM as_holder
                AND CASE WHEN l.beacon IS NULL THEN true -- a lease
                         WHEN pg_try_advisory_lock_shared(l.beacon) THEN NOT pg_advisory_unlock_shared(l.beacon)
                         ELSE true END
          )
        ORDER BY r.expires_at LIMIT batch_size FOR UPDATE SKIP LOCKED
    ) due;
    IF ids IS NULL THEN
        RETURN 0;
    END IF;
    DELETE FROM payload p USING unnest(ids, keys) AS due(storage_id, key), result r
    WHERE r.storage_id = due.storage_id AND r.key = due.key
      AND p.storage_id = r.storage_id AND p.key = r.key AND p.payload_id = r.payload_id;
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
    WHERE r.storage_id = due.storage_id AND r.key = due.key;
    RETURN cardinality(keys);
END
$$
"""

_MAINTENANCE = """
CREATE OR REPLACE FUNCTION maintenance(reason text) RETURNS void
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
END
$$
"""

_REFUSE = """
CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    -- Truncated, the history would lose the switch's own entries.
    IF TG_OP = 'TRUNCATE' OR NOT EXISTS (
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

_KEEP = """
CREATE FUNCTION keep_entry() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    -- After a restore into another cluster numbers of transactions begin anew. A later one would open the history then.
    IF TG_OP = 'UPDATE' THEN
        IF NEW.xid <= OLD.xid AND to_jsonb(NEW) - 'xid' = to_jsonb(OLD) - 'xid' THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION 'what says that the history was open is append-only: % is refused', TG_OP
        USING ERRCODE = 'insufficient_privilege';
END
$$
"""

_KEPT = (
    """CREATE TRIGGER kept BEFORE UPDATE OR DELETE ON history
       FOR EACH ROW WHEN (OLD.storage_id = '00000000-0000-0000-0000-000000000000') EXECUTE FUNCTION keep_entry()""",
    # In replicas and restores, too, where ordinary triggers stay silent.
    "ALTER TABLE history ENABLE ALWAYS TRIGGER kept",
)

_XID = sa.text("((pg_current_xact_id())::text)::bigint")

# A barrier: else a cheap function of the reader's own would see the other rows before they are left out.
_CURRENT = """
CREATE VIEW current_payloads WITH (security_barrier) AS
SELECT p.storage_id, p.key, p.payload_id, p.chunk, p.data
FROM payload p JOIN result r ON r.storage_id = p.storage_id AND r.key = p.key AND r.payload_id = p.payload_id
WHERE r.expires_at IS NULL OR r.expires_at > statement_timestamp()
"""

_READERS = """
DO $$
DECLARE
    held record;
BEGIN
    FOR held IN
        SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS grantee,
               bool_and(a.privilege_type = 'SELECT') AND NOT EXISTS (
                   SELECT FROM pg_class h CROSS JOIN LATERAL aclexplode(h.relacl) b
                   WHERE h.oid = 'history'::regclass AND b.grantee = a.grantee AND b.privilege_type = 'SELECT'
               ) AS reads_only
        FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) a
        WHERE c.oid = 'payload'::regclass AND a.grantee <> c.relowner
        GROUP BY a.grantee HAVING bool_or(a.privilege_type = 'SELECT')
    LOOP
        EXECUTE format('GRANT SELECT ON current_payloads TO %s', held.grantee);
        IF held.reads_only THEN
            EXECUTE format('REVOKE SELECT ON payload, document FROM %s', held.grantee);
        END IF;
    END LOOP;
END
$$
"""
"""Who reads goes on reading; who sees no history sees no payload of it either."""

_FORGET = """
CREATE OR REPLACE FUNCTION forget_released(batch_size integer DEFAULT 1000, only_storage uuid DEFAULT NULL)
RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    newest bigint;
    gone bigint;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext(current_schema()), 7039) THEN
        RETURN 0; -- somebody else is at it
    END IF;
    -- Who has drawn a fence already, and finds no row of its key when it comes to take the lock, sees by this that
    -- there may have been one with a later fence.
    SELECT last_value INTO newest FROM fence;
    PERFORM setval('forgotten', newest);
    -- What a transaction has a part in stays; who comes for one of these meanwhile skips it and looks again.
    DELETE FROM lock WHERE released AND fence <= newest AND (storage_id, key) IN (
        SELECT l.storage_id, l.key FROM lock l
        WHERE l.released AND l.fence <= newest AND (only_storage IS NULL OR l.storage_id = only_storage)
        LIMIT least(batch_size, 1000) FOR UPDATE SKIP LOCKED
    );
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END
$$
"""

_LOCKS = """
DO $$
DECLARE
    held record;
    kept text := 'storage_id, key, holder, fence, beacon, session, actor, pid, acquired_at, expires_at, released, '
                 'taken_over_from';
BEGIN
    FOR held IN
        SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS grantee,
               bool_or(a.privilege_type IN ('INSERT', 'UPDATE')) AS takes
        FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) a
        WHERE c.oid = 'lock'::regclass AND a.grantee <> c.relowner
        GROUP BY a.grantee HAVING NOT bool_or(a.privilege_type = 'TRUNCATE')
    LOOP
        IF held.takes THEN
            EXECUTE format('REVOKE DELETE ON lock FROM %s', held.grantee);
            EXECUTE format('REVOKE UPDATE ON SEQUENCE forgotten FROM %s', held.grantee);
        ELSE
            EXECUTE format('REVOKE SELECT ON lock FROM %s', held.grantee);
            EXECUTE format('GRANT SELECT (%s) ON lock TO %s', kept, held.grantee);
        END IF;
    END LOOP;
END
$$
"""
"""Who takes locks deletes none but released ones, by the function for that; who only looks sees no token."""

_LESS = """
DO $$
DECLARE
    held record;
BEGIN
    FOR held IN
        SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS grantee, c.relname AS target
        FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) a
        WHERE c.oid IN ('history'::regclass, 'payload'::regclass) AND a.privilege_type = 'INSERT'
          AND a.grantee <> c.relowner AND NOT EXISTS (
              SELECT FROM aclexplode(c.relacl) b WHERE b.grantee = a.grantee AND b.privilege_type = 'TRUNCATE'
          )
    LOOP
        EXECUTE format('REVOKE INSERT ON %I FROM %s', held.target, held.grantee);
        IF held.target = 'payload' THEN
            EXECUTE format('GRANT INSERT (storage_id, key, payload_id, chunk, data, salt, sha256) ON payload TO %s',
                           held.grantee);
        END IF;
    END LOOP;
END
$$
"""
"""Who is no owner makes no entries beside those of its changes, and says of no payload in which transaction it came."""

_LET = """
DO $$
DECLARE
    held record;
BEGIN
    FOR held IN
        SELECT DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS grantee, f.function
        FROM pg_class c
        CROSS JOIN LATERAL aclexplode(c.relacl) a
        JOIN (VALUES
            ('lock', 'DELETE', 'forget_released(integer, uuid)'),
            ('payload', 'DELETE', 'sweep(integer, uuid, text, text)'),
            ('payload', 'DELETE', 'bare_content(text, text, text, text)'),
            ('payload', 'DELETE',
             'entry_digest(bytea, uuid, text, bigint, bigint, timestamptz, timestamptz, text, bytea)'),
            ('history', 'TRUNCATE', 'maintenance(text)')
        ) AS f(source, privilege, function) ON c.oid = f.source::regclass AND a.privilege_type = f.privilege
        WHERE a.grantee <> c.relowner
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s', held.function, held.grantee);
    END LOOP;
END
$$
"""
"""Who could do by rights on tables what a function does may go on running it."""


def upgrade() -> None:
    # Unless it is named last, the schema of temporary tables comes before all others.
    op.execute("SELECT set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true)")
    op.add_column("payload", sa.Column("xid", sa.BigInteger))
    # In a step of its own, so that no row there is has to be written anew.
    op.alter_column("payload", "xid", server_default=_XID)
    for statement in (
        _PROJECT,
        _RECORD,
        _TRIGGER,
        _SWEEP,
        _MAINTENANCE,
        _REFUSE,
        _KEEP,
        *_KEPT,
        _FORGET,
        _CURRENT,
        _READERS,
        _LESS,
        _LET,
        _LOCKS,
    ):
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("what was closed would be open: restore a backup from before the upgrade instead")
