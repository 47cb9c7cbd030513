"""Holds: what is on hold is not taken away, whoever asks; who held and who released it are entries of the history."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"

_PLACE = "'00000000-0000-0000-0000-000000000000'"
_ENTRY = (
    "storage_id", "key", "version", "payload_id", "expires_at", "serializer", "size", "tags", "provenance",
    "storage_key", "storage_block_id", "pgresults_version", "prefect_version", "signature", "seq", "action", "at",
    "actor", "db_user", "holder", "fence", "reason", "payload_digest", "previous", "digest",
)  # fmt: skip


def _row(of: str) -> str:
    return ", ".join(f"{of}.{name}" for name in _ENTRY)


def _at_home(schema: str) -> str:
    """What a function begins with: the path that it was given is text, which a renamed schema leaves as it was."""
    return f"""
    -- Before anything else: what the path leads to may be another schema of the same kind, or anybody's.
    IF current_setting('search_path') IS DISTINCT FROM quote_ident({schema}) || ', pg_temp' THEN
        RAISE EXCEPTION 'this function of schema % would work on another one: %', {schema},
                        current_setting('search_path')
            USING ERRCODE = 'invalid_schema_name', HINT = 'Run `pgresults db upgrade` for this schema.';
    END IF;"""


_HOME = "(SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = home)"
_HERE = _at_home(_HOME)

# What a hold covers is said by its entry's reason, which the digest covers; its key's row is the hold itself.
_HOLDS = f"""
CREATE VIEW holds AS
SELECT coalesce(s.name, h.said ->> 'storage') AS storage, h.said ->> 'key' AS key, h.said ->> 'prefix' AS prefix,
       CASE WHEN h.said ? 'tags' THEN ARRAY(SELECT jsonb_array_elements_text(h.said -> 'tags')) END AS tags,
       h.said ->> 'reason' AS reason, h.until, h.at AS since, h.actor, h.db_user,
       substr(h.key, 6)::uuid AS id, (h.said ->> 'storage')::uuid AS storage_id
FROM (
    SELECT e.*, (e.said ->> 'until')::timestamptz AS until
    FROM (
        SELECT r.key, r.at, r.actor, r.db_user, CASE WHEN r.action = 'hold' THEN r.reason::jsonb END AS said
        FROM result r
        WHERE r.storage_id = {_PLACE} AND r.key >= 'hold/' AND r.key < 'hold0' AND r.action = 'hold'
    ) e
) h LEFT JOIN storage s ON s.id = (h.said ->> 'storage')::uuid
WHERE h.until IS NULL OR h.until > statement_timestamp()
"""  # noqa: S608 (the names are ours)

# A version stays covered by its tags when another one without them takes its place.
_HELD = f"""
CREATE FUNCTION held(of_storage uuid, of_key text, home regclass DEFAULT 'result'::regclass) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    found jsonb;
BEGIN{_HERE}
    -- Who places a hold waits until all that have asked are done, and who asks later sees it.
    LOCK TABLE hold_gate IN ROW SHARE MODE;
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        -- Such a transaction sees no hold that is newer than itself: there the server ends it.
        PERFORM FROM hold_gate FOR SHARE;
    END IF;
    SELECT jsonb_build_object('key', of_key, 'reason', h.reason, 'until', h.until, 'by', h.db_user) INTO found
    FROM holds h
    WHERE h.storage_id = of_storage AND (
        h.key = of_key OR starts_with(of_key, h.prefix) OR h.tags IS NOT NULL AND EXISTS (
            SELECT FROM history e WHERE e.storage_id = of_storage AND e.key = of_key AND e.tags @> h.tags
        )
    )
    LIMIT 1;
    RETURN found;
END
$$
"""  # noqa: S608 (the names are ours)

_REFUSE_HELD = f"""
CREATE FUNCTION refuse_held(of_storage uuid, of_key text, home regclass DEFAULT 'result'::regclass) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    found jsonb;
BEGIN{_HERE}
    found := held(of_storage, of_key);
    IF found IS NOT NULL THEN
        RAISE EXCEPTION '% is on hold: %', quote_literal(of_key), found ->> 'reason'
            USING ERRCODE = 'PH001', DETAIL = found::text,
                  HINT = 'An auditor or owner may release it: pgresults release.';
    END IF;
END
$$
"""

_KEEP_HELD = f"""
CREATE FUNCTION keep_held() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN{_at_home("TG_TABLE_SCHEMA")}
    IF coalesce(pg_partition_root(TG_RELID), TG_RELID) NOT IN ('payload'::regclass, 'result'::regclass) THEN
        RAISE EXCEPTION 'keep_held() serves the tables payload and result and is no trigger of another table'
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF TG_OP = 'TRUNCATE' THEN
        LOCK TABLE hold_gate IN ROW SHARE MODE;
        IF EXISTS (SELECT FROM holds) THEN
            RAISE EXCEPTION 'there are holds: TRUNCATE is refused'
                USING ERRCODE = 'PH001', DETAIL = (
                    SELECT jsonb_build_object('reason', h.reason, 'until', h.until, 'by', h.db_user)
                    FROM holds h LIMIT 1
                )::text;
        END IF;
        RETURN NULL;
    END IF;
    PERFORM refuse_held(OLD.storage_id, OLD.key);
    IF TG_OP = 'UPDATE' THEN
        RETURN NEW;
    END IF;
    RETURN OLD;
END
$$
"""  # noqa: S608 (the names are ours)

_TRIGGERS = (
    """CREATE TRIGGER keep_held BEFORE DELETE OR UPDATE OF storage_id, key, payload_id, chunk, data ON payload
       FOR EACH ROW EXECUTE FUNCTION keep_held()""",
    "CREATE TRIGGER keep_held BEFORE DELETE ON result FOR EACH ROW EXECUTE FUNCTION keep_held()",
    "CREATE TRIGGER keep_all_held BEFORE TRUNCATE ON payload FOR EACH STATEMENT EXECUTE FUNCTION keep_held()",
    "CREATE TRIGGER keep_all_held BEFORE TRUNCATE ON result FOR EACH STATEMENT EXECUTE FUNCTION keep_held()",
)

# Only here are these entries made, and the key's row takes over no other one.
_NOTE = f"""
CREATE FUNCTION note_hold(of_key text, does text, said jsonb, who text, home regclass DEFAULT 'result'::regclass)
RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    place constant uuid := {_PLACE};
    last result;
    now_at timestamptz := statement_timestamp();
BEGIN{_HERE}
    INSERT INTO storage (id, name, created_at) VALUES (place, 'pgresults/maintenance', now_at) ON CONFLICT DO NOTHING;
    SELECT * INTO last FROM result r WHERE r.storage_id = place AND r.key = of_key FOR UPDATE;
    IF last.key IS NOT NULL THEN
        now_at := greatest(now_at, last.at + interval '1 microsecond');
    END IF;
    INSERT INTO history (storage_id, key, version, seq, action, at, actor, db_user, reason, previous, digest)
    VALUES (place, of_key, 0, coalesce(last.seq, 0) + 1, does, now_at, who, session_user, said::text,
            coalesce(last.digest, ''),
            entry_digest(coalesce(last.digest, ''), place, of_key, coalesce(last.seq, 0) + 1, 0, now_at, NULL,
                         session_user, bare_content(does, who, NULL, said::text)));
    INSERT INTO result (storage_id, key, version, seq, action, at, created_at, actor, db_user, reason, previous, digest)
    SELECT h.storage_id, h.key, h.version, h.seq, h.action, h.at, h.at, h.actor, h.db_user, h.reason, h.previous,
           h.digest
    FROM history h WHERE h.storage_id = place AND h.key = of_key AND h.seq = coalesce(last.seq, 0) + 1
    ON CONFLICT (storage_id, key) DO UPDATE
    SET seq = excluded.seq, action = excluded.action, at = excluded.at, actor = excluded.actor,
        db_user = excluded.db_user, reason = excluded.reason, previous = excluded.previous, digest = excluded.digest;
END
$$
"""  # noqa: S608 (the names are ours)

_PLACE_HOLD = f"""
CREATE FUNCTION place_hold(of_storage uuid, covers text, why text, until timestamptz DEFAULT NULL,
                           who text DEFAULT session_user, home regclass DEFAULT 'result'::regclass) RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    id constant uuid := gen_random_uuid();
    scope constant jsonb := covers::jsonb;
BEGIN{_HERE}
    IF of_storage IS NULL OR coalesce(why, '') = '' OR (CASE
        WHEN jsonb_typeof(scope) <> 'object' OR (SELECT count(*) FROM jsonb_object_keys(scope)) <> 1 THEN true
        WHEN scope ? 'tags' THEN NOT coalesce(
            jsonb_typeof(scope -> 'tags') = 'array' AND scope -> 'tags' <> '[]'
            AND NOT jsonb_path_exists(scope, 'strict $.tags[*] ? (@.type() != "string")'), false)
        ELSE coalesce(jsonb_typeof(coalesce(scope -> 'key', scope -> 'prefix')), '') <> 'string'
    END) THEN
        RAISE EXCEPTION 'a hold has a storage, a reason and one of key, prefix and tags, not %', covers
            USING ERRCODE = 'invalid_text_representation';
    ELSIF until <= clock_timestamp() OR NOT isfinite(until) THEN
        RAISE EXCEPTION 'a hold until % would hold nothing', until USING ERRCODE = 'datetime_field_overflow';
    END IF;
    LOCK TABLE hold_gate IN EXCLUSIVE MODE;
    IF NOT EXISTS (
        SELECT FROM pg_trigger t WHERE t.tgrelid = 'payload'::regclass AND t.tgname = 'keep_held' AND t.tgenabled <> 'D'
    ) THEN
        RAISE EXCEPTION 'nothing keeps here what is on hold: the tables are spread over several servers, or altered'
            USING ERRCODE = 'feature_not_supported';
    END IF;
    UPDATE hold_gate SET changes = changes + 1;
    PERFORM note_hold('hold/' || id, 'hold', scope || jsonb_build_object('storage', of_storage, 'reason', why)
                      || CASE WHEN until IS NULL THEN '{{}}' ELSE jsonb_build_object('until', until) END, who);
    RETURN id;
END
$$
"""  # noqa: S608 (the names are ours)

_RELEASE_HOLD = f"""
CREATE FUNCTION release_hold(of_storage uuid, covers text, why text, who text DEFAULT session_user,
                             home regclass DEFAULT 'result'::regclass) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    scope constant jsonb := covers::jsonb;
    standing record;
    released bigint := 0;
BEGIN{_HERE}
    IF coalesce(why, '') = '' OR (SELECT count(*) FROM jsonb_object_keys(scope)) <> 1 THEN
        RAISE EXCEPTION 'say which holds are released, and why' USING ERRCODE = 'invalid_text_representation';
    END IF;
    FOR standing IN
        SELECT r.key, r.reason::jsonb AS said FROM result r
        WHERE r.storage_id = {_PLACE} AND r.key >= 'hold/' AND r.key < 'hold0' AND r.action = 'hold'
        ORDER BY r.key FOR UPDATE
    LOOP
        IF standing.said ->> 'storage' = of_storage::text AND (CASE
            WHEN scope ? 'id' THEN standing.key = 'hold/' || (scope ->> 'id')
            WHEN scope ? 'tags' THEN
                standing.said -> 'tags' @> (scope -> 'tags') AND standing.said -> 'tags' <@ (scope -> 'tags')
            ELSE scope ?| ARRAY['key', 'prefix'] AND standing.said @> scope
        END) THEN
            PERFORM note_hold(standing.key, 'release', standing.said || jsonb_build_object('released', why), who);
            released := released + 1;
        END IF;
    END LOOP;
    RETURN released;
END
$$
"""  # noqa: S608 (the names are ours)

# The path of each is the schema itself: only what they compare changes.
_CORRECTIONS = rf"""
DO $do$
DECLARE
    correction record;
    found record;
    corrected text;
BEGIN
    FOR correction IN VALUES
        ('record_other', $$IF NOT honest AND NOT has_table_privilege(who, 'history', 'INSERT') THEN$$,
         $$IF new.storage_id = {_PLACE} AND EXISTS (
        -- What place_hold() and release_hold() have just put there themselves.
        SELECT FROM history h
        WHERE h.storage_id = new.storage_id AND h.key = new.key AND h.xid = pg_current_xact_id()::text::bigint
          AND h.action IN ('hold', 'release') AND ROW({_row("h")}) IS NOT DISTINCT FROM ROW({_row("new")})
          AND NOT EXISTS (
              SELECT FROM history later
              WHERE later.storage_id = h.storage_id AND later.key = h.key AND later.seq > h.seq
          )
    ) THEN
        RETURN false;
    ELSIF old.seq IS NOT NULL AND (
        new.action IN ('delete', 'expire', 'redact', 'retain') AND new.seq <> old.seq
        OR new.payload_id IS NULL AND old.payload_id IS NOT NULL
        OR ROW(new.storage_id, new.key) IS DISTINCT FROM ROW(old.storage_id, old.key)
    ) THEN
        PERFORM refuse_held(old.storage_id, old.key);
    END IF;
    IF NOT honest AND NOT has_table_privilege(who, 'history', 'INSERT') THEN$$),
        ('sweep', $$ORDER BY r.expires_at LIMIT$$,
         $$AND held(r.storage_id, r.key) IS NULL
        ORDER BY r.expires_at LIMIT$$)
    LOOP
        SELECT pg_get_functiondef(p.oid) AS definition INTO STRICT found
        FROM pg_proc p
        WHERE p.pronamespace = quote_ident(current_schema())::regnamespace AND p.proname = correction.column1;
        corrected := replace(found.definition, correction.column2, correction.column3);
        IF corrected = found.definition THEN
            RAISE EXCEPTION 'the function %() is not the one that an upgrade made', correction.column1;
        END IF;
        EXECUTE corrected;
    END LOOP;
END
$do$
"""  # noqa: S608 (the names are ours)

_LET = """
DO $$
DECLARE
    held record;
BEGIN
    FOR held IN
        SELECT DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS grantee, f.granted
        FROM pg_class c
        CROSS JOIN LATERAL aclexplode(c.relacl) a
        JOIN (VALUES
            ('history', 'SELECT', 'SELECT ON holds'),
            ('payload', 'DELETE', 'EXECUTE ON FUNCTION held(uuid, text, regclass)'),
            ('history', 'TRUNCATE', 'ALL ON hold_gate, holds'),
            ('history', 'TRUNCATE', 'EXECUTE ON FUNCTION place_hold(uuid, text, text, timestamptz, text, regclass)'),
            ('history', 'TRUNCATE', 'EXECUTE ON FUNCTION release_hold(uuid, text, text, text, regclass)')
        ) AS f(source, privilege, granted) ON c.oid = f.source::regclass AND a.privilege_type = f.privilege
        WHERE a.grantee <> c.relowner
    LOOP
        EXECUTE format('GRANT %s TO %s', held.granted, held.grantee);
    END LOOP;
END
$$
"""
"""Who sweeps goes on sweeping, who owns may do this, too; auditors and writers are granted their part anew."""

_TAKE = """
DO $$
DECLARE
    held record;
BEGIN
    FOR held IN
        SELECT DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS grantee
        FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) a
        WHERE c.oid = 'forgotten'::regclass AND a.privilege_type = 'UPDATE' AND a.grantee <> c.relowner
          AND NOT EXISTS (
              SELECT FROM pg_class h CROSS JOIN LATERAL aclexplode(h.relacl) b
              WHERE h.oid = 'history'::regclass AND b.privilege_type = 'TRUNCATE' AND b.grantee = a.grantee
          )
    LOOP
        EXECUTE format('REVOKE UPDATE ON SEQUENCE forgotten FROM %s', held.grantee);
    END LOOP;
END
$$
"""
"""What an earlier upgrade gave together with fences is an owner's alone: default privileges had kept it."""


def upgrade() -> None:
    # Unless it is named last, the schema of temporary tables comes before all others.
    op.execute("SELECT set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true)")
    op.create_table(
        "hold_gate",
        sa.Column("id", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("changes", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="hold_gate_pkey"),
    )
    op.execute("INSERT INTO hold_gate (id, changes) VALUES (1, 0)")
    for statement in (
        _HOLDS,
        _HELD,
        _REFUSE_HELD,
        _KEEP_HELD,
        *_TRIGGERS,
        _NOTE,
        _PLACE_HOLD,
        _RELEASE_HOLD,
        _CORRECTIONS,
        _LET,
        _TAKE,
    ):
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("what is on hold could be taken away: restore a backup from before the upgrade instead")
