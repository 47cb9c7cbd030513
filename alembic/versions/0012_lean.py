"""An entry costs less to record: a write's trigger asks what it has to in three expressions instead of seven."""

from alembic import op
from psycopg import sql

revision = "0012"
down_revision = "0011"

_ENTRY = (
    "storage_id", "key", "version", "payload_id", "expires_at", "serializer", "size", "tags", "provenance",
    "storage_key", "storage_block_id", "pgresults_version", "prefect_version", "signature", "seq", "action", "at",
    "actor", "db_user", "holder", "fence", "reason", "payload_digest", "previous", "digest",
)  # fmt: skip


def _row(of: str) -> str:
    return ", ".join(f"{of}.{name}" for name in _ENTRY)


def _record(schema: str) -> str:
    """The trigger's function for writes.

    It runs as the tables' owner without a search path of its own, which would cost each write as much as the entry.
    So whatever could be found by the caller's path is named with its schema, operators and types included. Each
    statement and each condition of an ``IF`` is made ready anew in every transaction, so there are few of them: of a
    row that is inserted the old one is NULL, as are all its columns, and what is no plain write is left to
    `record_other` where the conditions end.
    """
    eq, ne, plus = "OPERATOR(pg_catalog.=)", "OPERATOR(pg_catalog.<>)", "OPERATOR(pg_catalog.+)"
    qualified, xid = sql.Identifier(schema).as_string(None), "pg_catalog.pg_current_xact_id()::pg_catalog.text"
    name, table = (sql.Literal(one).as_string(None) for one in (schema, f"{qualified}.result"))
    honest = f"""NEW.storage_id {ne} '00000000-0000-0000-0000-000000000000'::pg_catalog.uuid
            AND (NEW.action {eq} 'write' OR NEW.action {eq} 'import') AND NEW.payload_id IS NOT NULL
            AND NEW.db_user {eq} session_user AND NEW.created_at {eq} NEW.at
            AND NEW.at {eq} greatest(pg_catalog.statement_timestamp(), OLD.at {plus} interval '1 microsecond')
            AND CASE WHEN OLD.seq IS NULL
                THEN NEW.seq {eq} 1 AND NEW.version {eq} 1 AND NEW.previous {eq} ''
                ELSE NEW.storage_id {eq} OLD.storage_id AND NEW.key {eq} OLD.key AND NEW.seq {eq} (OLD.seq {plus} 1)
                    AND NEW.version {eq} (OLD.version {plus} 1) AND NEW.previous {eq} OLD.digest
            END"""
    # Not the current user, who is the tables' owner here.
    writer = f"""(OLD.seq IS NULL OR (OLD.payload_id IS NULL OR NEW.payload_id {ne} OLD.payload_id)
                AND pg_catalog.has_table_privilege(
                    CASE WHEN pg_catalog.current_setting('role') {eq} 'none' THEN session_user
                         ELSE pg_catalog.current_setting('role')::pg_catalog.name END,
                    {table}::pg_catalog.regclass, 'INSERT'))"""
    stored = f"""EXISTS (
                SELECT FROM {qualified}.payload p
                WHERE p.storage_id {eq} NEW.storage_id AND p.key {eq} NEW.key AND p.payload_id {eq} NEW.payload_id
                  AND p.chunk {eq} 0 AND p.xid {eq} {xid}::bigint)"""
    insert = f"""INSERT INTO {qualified}.history ({", ".join(_ENTRY)})
        SELECT {_row("NEW")}
        WHERE ({honest}"""
    other = f"OR {qualified}.record_other(OLD, NEW)"
    return f"""
CREATE OR REPLACE FUNCTION record_entry() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER AS $entry$
BEGIN
    -- Before anything is read of the row: the columns of another table may have types that run code of their owner's.
    IF TG_TABLE_SCHEMA {ne} {name} OR TG_TABLE_NAME {ne} 'result' THEN
        IF TG_TABLE_SCHEMA {ne} {name} THEN
            RAISE EXCEPTION 'this function of schema % would work on another one: %', TG_TABLE_SCHEMA, {name}
                USING ERRCODE = 'invalid_schema_name', HINT = 'Run `pgresults db upgrade` for this schema.';
        ELSIF coalesce(pg_catalog.pg_partition_root(TG_RELID), TG_RELID) {ne} {table}::pg_catalog.regclass THEN
            RAISE EXCEPTION 'record_entry() serves the table result and is no trigger of another table'
                USING ERRCODE = 'insufficient_privilege';
        END IF;
    END IF;
    -- What is signed counts where it is read: it must not be an earlier payload. What is not could be written anew.
    IF NEW.signature IS NULL THEN
        {insert}
            AND {writer}) {other};
    ELSE
        {insert}
            AND {stored}) {other};
    END IF;
    RETURN NULL;
END
$entry$
"""


# It says now that nothing is left to do: false, where it has made the entry itself.
_OTHER = r"""
DO $do$
DECLARE
    definition text;
BEGIN
    SELECT pg_get_functiondef(p.oid) INTO STRICT definition FROM pg_proc p
    WHERE p.pronamespace = quote_ident(current_schema())::regnamespace AND p.proname = 'record_other';
    DROP FUNCTION record_other(result, result, regclass);
    EXECUTE regexp_replace(
        replace(definition, E'\n RETURNS void\n', E'\n RETURNS boolean\n'),
        E'    END IF;\nEND;\nEND\n(\\$\\w*\\$\\s*)$', E'    END IF;\n    RETURN false;\nEND;\nEND\n\\1'
    );
END
$do$
"""


def upgrade() -> None:
    op.execute("SELECT set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true)")
    schema = op.get_context().version_table_schema
    for statement in (_OTHER, _record(schema)):
        op.execute(statement.replace(":", r"\:"))


def downgrade() -> None:
    raise NotImplementedError("what was closed would be open: restore a backup from before the upgrade instead")
