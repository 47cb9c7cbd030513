"""Each database has an identity of its own, nobody takes a held lock in silence, and an entry costs less to record."""

import sqlalchemy as sa
from alembic import op
from psycopg import sql

revision = "0008"
down_revision = "0007"

_TAKEN = (
    "holder", "fence", "token", "beacon", "session", "actor", "pid", "acquired_at", "expires_at", "released",
    "taken_over_from",
)  # fmt: skip
_KEPT = tuple(name for name in _TAKEN if name not in ("expires_at", "released"))
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


# Locks

_GUARD = f"""
CREATE FUNCTION guard_lock() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    is_grant boolean := NEW.token <> OLD.token;
    shown boolean;
BEGIN
    IF has_table_privilege('lock', 'DELETE') THEN
        IF is_grant THEN
            NEW.db_user := session_user;
        END IF;
        RETURN NEW;
    END IF;
    IF OLD.released OR OLD.expires_at <= clock_timestamp() OR (CASE
        -- Also where this session holds it: who has the lock does with it as they like.
        WHEN pg_try_advisory_lock_shared(OLD.beacon) THEN pg_advisory_unlock_shared(OLD.beacon)
        ELSE false
    END) THEN
        IF is_grant THEN
            NEW.db_user := session_user;
            RETURN NEW;
        ELSIF NOT is_grant AND NOT OLD.released THEN
            RETURN NEW;
        END IF;
    ELSIF ROW({_row("NEW", _KEPT)}) IS NOT DISTINCT FROM ROW({_row("OLD", _KEPT)}) THEN
        shown := OLD.token::text = ANY (string_to_array(current_setting('pgresults.token', true), ','))
                 AND (coalesce(OLD.db_user, session_user) = session_user
                      OR pg_has_role(session_user, to_regrole(quote_ident(OLD.db_user)), 'MEMBER'));
        IF shown OR EXISTS (
            SELECT FROM result r
            WHERE r.storage_id = OLD.storage_id AND r.key = OLD.key AND r.action = 'break' AND r.fence = OLD.fence
        ) THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION 'permission denied: the lock of % is held by %', quote_literal(OLD.key), quote_literal(OLD.holder)
        USING ERRCODE = 'insufficient_privilege',
              HINT = 'A held lock is released by its holder''s process, by whom shows its token and logs in as its '
                     'user, or by breaking it: pgresults locks break.';
END
$$
"""

# Most changes are a holder's, or of what is free: they are told here, which is cheaper than to call a function.
_GUARDED = """
CREATE TRIGGER guarded BEFORE UPDATE ON lock FOR EACH ROW WHEN (
    CASE WHEN OLD.released THEN NEW.token = OLD.token OR NEW.db_user IS DISTINCT FROM session_user
         WHEN pg_try_advisory_lock_shared(OLD.beacon)
         THEN NOT pg_advisory_unlock_shared(OLD.beacon) OR NEW.token <> OLD.token
         ELSE true END
) EXECUTE FUNCTION guard_lock()
"""

_LESS = f"""
DO $$
DECLARE
    held record;
BEGIN
    FOR held IN
        SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS grantee, c.relname AS target,
               bool_or(a.privilege_type = 'INSERT') AS adds, bool_or(a.privilege_type = 'UPDATE') AS changes
        FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) a
        WHERE c.oid IN ('lock'::regclass, 'storage'::regclass) AND a.grantee <> c.relowner
        GROUP BY a.grantee, c.relname HAVING NOT bool_or(a.privilege_type = 'TRUNCATE')
    LOOP
        IF held.target = 'storage' AND held.adds THEN
            EXECUTE format('REVOKE INSERT ON storage FROM %s', held.grantee);
            EXECUTE format('GRANT INSERT (id, name, created_at) ON storage TO %s', held.grantee);
        ELSIF held.target = 'lock' AND held.changes THEN
            EXECUTE format('REVOKE INSERT, UPDATE ON lock FROM %s', held.grantee);
            IF held.adds THEN
                EXECUTE format('GRANT INSERT (storage_id, key, {", ".join(_TAKEN)}) ON lock TO %s', held.grantee);
                EXECUTE format('GRANT UPDATE ({", ".join(_TAKEN)}) ON lock TO %s', held.grantee);
            ELSE
                EXECUTE format('GRANT UPDATE (taken_over_from) ON lock TO %s', held.grantee);
            END IF;
        END IF;
    END LOOP;
END
$$
"""  # noqa: S608 (the names are ours)
"""Who is no owner says neither which database this is nor whose a lock is; who takes none may only prove its row."""


# Entries


def _schema() -> str:
    return sql.Identifier(op.get_context().version_table_schema).as_string(None)


def _record(schema: str) -> str:
    """The trigger's function for writes.

    It runs as the tables' owner without a search path of its own, which would cost each write as much as the entry.
    So whatever could be found by the caller's path is named with its schema, operators and types included.
    """
    eq, plus = "OPERATOR(pg_catalog.=)", "OPERATOR(pg_catalog.+)"
    table, xid = sql.Literal(f"{schema}.result").as_string(None), "pg_catalog.pg_current_xact_id()::pg_catalog.text"
    said = f"""(NEW.action {eq} 'write' OR NEW.action {eq} 'import') AND NEW.payload_id IS NOT NULL
              AND NEW.db_user {eq} session_user AND NEW.created_at {eq} NEW.at"""
    first = f"""NEW.seq {eq} 1 AND NEW.version {eq} 1 AND NEW.previous {eq} ''
              AND NEW.at {eq} pg_catalog.statement_timestamp()"""
    following = f"""NEW.storage_id {eq} OLD.storage_id AND NEW.key {eq} OLD.key AND NEW.seq {eq} (OLD.seq {plus} 1)
              AND NEW.version {eq} (OLD.version {plus} 1) AND NEW.previous {eq} OLD.digest
              AND NEW.at {eq} greatest(pg_catalog.statement_timestamp(), OLD.at {plus} interval '1 microsecond')"""
    # Not the current user, who is the tables' owner here.
    writer = f"""(OLD.payload_id IS NULL OR NEW.payload_id OPERATOR(pg_catalog.<>) OLD.payload_id)
              AND pg_catalog.has_table_privilege(
                  CASE WHEN pg_catalog.current_setting('role') {eq} 'none' THEN session_user
                       ELSE pg_catalog.current_setting('role')::pg_catalog.name END,
                  {table}::pg_catalog.regclass, 'INSERT')"""
    stored = f"""EXISTS (
                  SELECT FROM {schema}.payload p
                  WHERE p.storage_id {eq} NEW.storage_id AND p.key {eq} NEW.key AND p.payload_id {eq} NEW.payload_id
                    AND p.chunk {eq} 0 AND p.xid {eq} {xid}::bigint)"""
    insert = f"""INSERT INTO {schema}.history ({", ".join(_ENTRY)})
            SELECT {_row("NEW", _ENTRY)}
            WHERE {said}"""
    return f"""
CREATE OR REPLACE FUNCTION record_entry() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER AS $entry$
BEGIN
    -- Before anything is read of the row: the columns of another table may have types that run code of their owner's.
    IF TG_RELID OPERATOR(pg_catalog.<>) {table}::pg_catalog.regclass THEN
        RAISE EXCEPTION 'record_entry() serves the table result and is no trigger of another table'
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    -- What is signed counts where it is read: it must not be an earlier payload. What is not could be written anew.
    IF TG_OP {eq} 'UPDATE' THEN
        IF NEW.signature IS NULL THEN
            {insert}
              AND {following}
              AND {writer};
        ELSE
            {insert}
              AND {following}
              AND {stored};
        END IF;
    ELSIF NEW.signature IS NULL THEN
        {insert}
              AND {first};
    ELSE
        {insert}
              AND {first}
              AND {stored};
    END IF;
    IF FOUND THEN
        RETURN NULL;
    END IF;
    IF TG_OP {eq} 'UPDATE' THEN
        PERFORM {schema}.record_other(OLD, NEW);
    ELSE
        PERFORM {schema}.record_other(NULL, NEW);
    END IF;
    RETURN NULL;
END
$entry$
"""


# That of a touch by when the transaction began: the one that looked may have done so a moment ago.
_CHANGES = f"""
    CASE
        WHEN new.action IN ('touch', 'break', 'retain') THEN
            ROW({_row("new", _SAID)}) IS NOT DISTINCT FROM ROW({_row("old", _SAID)})
            AND CASE
                WHEN new.action <> 'touch' THEN new.expires_at IS NOT DISTINCT FROM old.expires_at
                ELSE old.payload_id IS NOT NULL AND (old.expires_at IS NULL OR old.expires_at > now())
            END
        WHEN new.action IN ('delete', 'expire', 'redact') THEN
            num_nonnulls(new.expires_at, {_row("new", _SAID)}) = 0
            AND (new.action = 'redact' OR old.payload_id IS NOT NULL)
            AND (new.action <> 'expire' OR old.expires_at <= statement_timestamp())
    END
    AND (new.action NOT IN ('expire', 'redact', 'retain') OR has_table_privilege(who, 'payload', 'DELETE'))
    AND (new.action IN ('expire', 'redact', 'retain') OR has_table_privilege(who, 'result', 'INSERT'))
"""

_OTHER = f"""
CREATE FUNCTION record_other(old result, new result) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    -- Not the current user, who is the tables' owner here.
    who name := coalesce(nullif(current_setting('role'), 'none'), session_user);
    honest boolean := new.db_user = session_user AND CASE
        WHEN new.action IN ('write', 'import') THEN false -- it was no honest one where it came from
        WHEN old.seq IS NULL THEN
            new.action = 'break' AND new.version = 0 AND new.payload_id IS NULL AND new.seq = 1 AND new.previous = ''
            AND new.at = statement_timestamp()
        ELSE
            new.storage_id = old.storage_id AND new.key = old.key AND new.seq = old.seq + 1
            AND new.version = old.version AND new.previous = old.digest
            AND new.at = greatest(statement_timestamp(), old.at + interval '1 microsecond')
            AND new.created_at IS NOT DISTINCT FROM old.created_at AND coalesce({_CHANGES}, false)
    END;
BEGIN
    IF NOT honest AND NOT has_table_privilege(who, 'history', 'INSERT') THEN
        RAISE EXCEPTION 'permission denied: this is no entry that % may make under the key %', session_user,
                        quote_literal(new.key)
            USING ERRCODE = 'insufficient_privilege',
                  HINT = 'Entries follow each other in number, version, time and digest, name the user of their '
                         'session, and do what they say; a signed version is stored together with its payload; each '
                         'kind of role makes its own kinds of entries.';
    ELSIF honest OR old.seq IS NULL OR new.seq > old.seq THEN
        INSERT INTO history ({", ".join(_ENTRY)}) VALUES ({_row("new", _ENTRY)});
    END IF;
END
$$
"""  # noqa: S608 (the names are ours)

_HISTORY = """
CREATE OR REPLACE VIEW result_history AS
SELECT coalesce(s.name, h.storage_id::text) AS storage, h.key, h.seq, h.version, h.action, h.at, h.actor,
       h.db_user, h.holder, h.fence, h.expires_at, h.size, h.serializer ->> 'type' AS serializer, h.reason,
       h.tags, h.provenance, encode(h.digest, 'hex') AS digest, h.storage_id,
       encode(h.previous, 'hex') AS previous, h.payload_id, encode(h.payload_digest, 'hex') AS payload_digest,
       h.serializer AS serializer_settings, h.storage_key, h.storage_block_id, h.pgresults_version,
       h.prefect_version, encode(h.signature, 'hex') AS signature, h.xid
FROM history h LEFT JOIN storage s ON s.id = h.storage_id
"""


def upgrade() -> None:
    op.execute("SELECT set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true)")
    # What is there keeps the identity that its signatures cover.
    op.add_column("storage", sa.Column("identity", sa.Uuid))
    op.execute("UPDATE storage SET identity = id")
    op.alter_column("storage", "identity", nullable=False, server_default=sa.text("gen_random_uuid()"))
    op.add_column("lock", sa.Column("db_user", sa.Text))
    op.alter_column("lock", "db_user", server_default=sa.text("SESSION_USER"))
    schema = _schema()
    for statement in (_GUARD, _GUARDED, _LESS, _OTHER, _record(schema).replace(":", r"\:"), _HISTORY):
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("what was closed would be open: restore a backup from before the upgrade instead")
