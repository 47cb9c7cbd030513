"""Spreading a schema over several servers by Citus: results by key, the names of storages everywhere, locks nowhere.

A change runs as a whole on the server that has the key's shard (`shard_functions`), called from the coordinator
(`coordinator_functions`) where it has to prove a lock.
"""

from collections.abc import Iterator

from psycopg import sql

from pgresults.sql import coordinator_functions, shard_functions
from pgresults.sql.schema import document, history, payload, result, storage

DISTRIBUTED = (result.name, history.name, payload.name, document.name)
"""The tables that are spread by ``key``."""

REFERENCE = storage.name
"""The table of which every server has all."""

# No shard has the triggers that keep what is on hold.
_UNHELD = """
DO $do$
BEGIN
    LOCK TABLE {schema}.hold_gate IN ROW SHARE MODE;
    IF EXISTS (SELECT FROM {schema}.holds) THEN
        RAISE EXCEPTION 'there are holds, which nothing would keep on several servers: release them first'
            USING ERRCODE = 'feature_not_supported';
    ELSIF EXISTS (SELECT FROM {schema}.retention_rules) THEN
        RAISE EXCEPTION 'there are rules of retention, which nobody carries out on several servers: end them first'
            USING ERRCODE = 'feature_not_supported';
    END IF;
END
$do$
"""

_UNGUARDED = (
    _UNHELD,
    "DROP TRIGGER IF EXISTS keep_held ON {schema}.payload",
    "DROP TRIGGER IF EXISTS keep_all_held ON {schema}.payload",
    "DROP TRIGGER IF EXISTS keep_held ON {schema}.result",
    "DROP TRIGGER IF EXISTS keep_all_held ON {schema}.result",
    "DROP TRIGGER IF EXISTS append_only ON {schema}.history",
    "DROP TRIGGER IF EXISTS kept ON {schema}.history",
    "DROP TRIGGER IF EXISTS record_entry ON {schema}.result",
    "DROP TRIGGER IF EXISTS project_document ON {schema}.result",
    "TRUNCATE {schema}.document",  # nobody would keep them up to date
)
# One of TRUNCATE beside others would keep the trigger from every shard.

_REFUSING = "ON {schema}.history FOR EACH STATEMENT EXECUTE FUNCTION {schema}.refuse_on_shard()"
_GUARDED = (
    f"CREATE TRIGGER append_only BEFORE UPDATE OR DELETE {_REFUSING}",
    "ALTER TABLE {schema}.history ENABLE ALWAYS TRIGGER append_only",
    f"CREATE TRIGGER append_only_whole BEFORE TRUNCATE {_REFUSING}",
)


def spreading(schema: str, shards: int) -> Iterator[tuple[str, sql.Composed]]:
    """The statements that spread the tables, each with the table it is about."""
    for template in _UNGUARDED:
        yield history.name, _filled(template, schema)
    names = {name: _quoted(schema, name) for name in (REFERENCE, *DISTRIBUTED)}
    yield REFERENCE, sql.SQL("SELECT create_reference_table({})").format(names[REFERENCE])
    spread = sql.SQL("SELECT create_distributed_table({}, 'key', colocate_with => {}{})")
    first, *others = DISTRIBUTED
    yield first, spread.format(names[first], sql.Literal("none"), sql.SQL(", shard_count => {}").format(shards))
    for name in others:
        yield name, spread.format(names[name], names[first], sql.SQL(""))
    for name, quoted in names.items():  # what was copied from is still there, where nobody sees it
        yield name, sql.SQL("SELECT truncate_local_data_after_distributing_table({})").format(quoted)


# What takes other parameters now is another function, and the one of old would write rows that lack what came since.
_OUTDATED = """
DO $do$
DECLARE
    found record;
BEGIN
    FOR found IN
        SELECT p.oid::regprocedure AS signature FROM pg_proc p
        WHERE p.pronamespace = {home}::regnamespace AND p.proname IN ('write_version', 'write_proven', 'write_many')
          AND NOT '_derived_from' = ANY (p.proargnames) AND NOT '_derived_from_array' = ANY (p.proargnames)
    LOOP
        EXECUTE format('DROP FUNCTION %s', found.signature);
    END LOOP;
END
$do$
"""


def functions(schema: str) -> Iterator[sql.Composed]:
    """The statements that create or renew the functions, in their order."""
    yield _filled(_OUTDATED, schema)
    for template in (*shard_functions.FUNCTIONS, *coordinator_functions.FUNCTIONS):
        yield _filled(template, schema)
    delegated = "SELECT create_distributed_function({}, '_key', colocate_with => {}, force_delegation => true)"
    for name, types in shard_functions.BY_KEY.items():
        signature = sql.Identifier(schema, name).as_string(None) + f"({', '.join(types.values())})"
        yield sql.SQL(delegated).format(sql.Literal(signature), _quoted(schema, result.name))


# A default of the server's is sent along with what was said; and each server asks for rights on what a view stands for.
_LET = """
DO $do$
DECLARE
    found record;
    home constant regnamespace := {home}::regnamespace;
BEGIN
    FOR found IN
        SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS grantee,
               CASE a.grantee WHEN 0 THEN 'public' ELSE pg_get_userbyid(a.grantee) END AS role,
               bool_or(a.privilege_type = 'TRUNCATE') AS owns
        FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) a
        WHERE c.relnamespace = home AND c.relname = 'result' AND a.grantee <> c.relowner
              AND to_regproc({mark}) IS NOT NULL
        GROUP BY a.grantee HAVING bool_or(a.privilege_type = 'SELECT')
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION {functions} TO %s', found.grantee);
        IF has_any_column_privilege(found.role, {stored}, 'INSERT') THEN
            EXECUTE format('GRANT INSERT ON {payload} TO %s', found.grantee);
        END IF;
        IF has_table_privilege(found.role, {current}, 'SELECT') THEN
            EXECUTE format('GRANT SELECT ON {payload} TO %s', found.grantee);
        END IF;
        IF NOT found.owns THEN
            EXECUTE format('REVOKE INSERT, UPDATE ON {result} FROM %s', found.grantee);
        END IF;
    END LOOP;
END
$do$
"""


def letting(schema: str) -> sql.Composed:
    """The statement by which who may see results runs the functions, which look what else one may.

    Whoever is no owner changes heads by them alone: there is no trigger that would look at another way. Where nothing
    is spread it changes nothing.
    """
    names = (*shard_functions.BY_KEY, *shard_functions.WITHIN, *coordinator_functions.NAMES)

    def quoted(*names: str) -> sql.SQL:
        """Names within a text that is a format."""
        listed = ", ".join(sql.Identifier(schema, name).as_string(None) for name in names)
        return sql.SQL(listed.replace("'", "''").replace("%", "%%"))

    return sql.SQL(_LET).format(
        home=sql.Literal(sql.Identifier(schema).as_string(None)),
        functions=quoted(*names),
        result=quoted(result.name),
        payload=quoted(payload.name),
        mark=_quoted(schema, shard_functions.MARK),
        stored=_quoted(schema, payload.name),
        current=_quoted(schema, "current_payloads"),
    )


def guarding(schema: str) -> Iterator[sql.Composed]:
    """The statements that keep the history as it is on every shard."""
    for template in _GUARDED:
        yield _filled(template, schema)


def _filled(template: str, schema: str) -> sql.Composed:
    names = {name: _quoted(schema, name) for name in (REFERENCE, *DISTRIBUTED, "refuse_on_shard")}
    home = sql.Identifier(schema).as_string(None)
    shards = {f"{name}_shards": sql.Literal(f"{home}.{name}_") for name in DISTRIBUTED}
    return sql.SQL(template).format(schema=sql.Identifier(schema), home=sql.Literal(home), **shards, **names)


def _quoted(schema: str, name: str) -> sql.Literal:
    return sql.Literal(sql.Identifier(schema, name).as_string(None))
