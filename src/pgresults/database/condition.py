"""What may have become of a schema after its tables were made, and how that is mended."""

from collections.abc import Iterator

from psycopg import sql
from sqlalchemy import Connection, func, select, text

_MISPLACED = r"""
    SELECT p.oid::regprocedure AS signature, p.proname AS name,
           substring(c.setting, '^search_path=(.*), pg_temp$') AS was
    FROM pg_proc p CROSS JOIN LATERAL unnest(p.proconfig) AS c(setting)
    WHERE p.pronamespace = quote_ident(current_schema())::regnamespace AND c.setting LIKE 'search\_path=%, pg\_temp'
      AND c.setting <> 'search_path=' || quote_ident(current_schema()) || ', pg_temp'
"""
# A trigger of each row would be every partition's by itself, but one of TRUNCATE is of the statement.
_OPEN = """
    SELECT t.relid AS part, kept.trigger, kept.event, kept.calls, kept.always
    FROM (VALUES ('history', 'append_only', 'UPDATE OR DELETE OR TRUNCATE', 'refuse_change()', true),
                 ('payload', 'keep_all_held', 'TRUNCATE', 'keep_held()', false),
                 ('result', 'keep_all_held', 'TRUNCATE', 'keep_held()', false))
        AS kept (of, trigger, event, calls, always)
    CROSS JOIN LATERAL pg_partition_tree(kept.of::regclass) t
    WHERE t.level > 0
      AND NOT EXISTS (SELECT FROM pg_trigger g WHERE g.tgrelid = t.relid AND g.tgname = kept.trigger)
"""
# So is each function after a restore without privileges.
_PUBLIC = """
    SELECT p.proname AS name FROM pg_proc p
    WHERE p.pronamespace = quote_ident(current_schema())::regnamespace AND p.prosecdef
      AND (p.proacl IS NULL OR EXISTS (SELECT FROM aclexplode(p.proacl) a WHERE a.grantee = 0))
      AND NOT EXISTS (
          SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
      )
"""
_MAY_LOOK = """
    SELECT bool_and(has_table_privilege(name, 'SELECT')) FROM unnest(ARRAY['history', 'fence', 'forgotten']) AS name
"""
# What was forgotten is what the sequence stood at, which is its first number also before that was given to anybody.
_BEHIND = """
    SELECT newest.fence, f.last_value + f.is_called::integer AS next
    FROM fence f CROSS JOIN LATERAL (
        SELECT greatest(
            (SELECT max(fence) FROM history),
            (SELECT o.last_value FROM forgotten o WHERE f.is_called OR o.last_value > f.last_value)
        ) AS fence
    ) newest
    WHERE newest.fence >= f.last_value + f.is_called::integer
"""

MENDING = tuple(
    map(
        text,
        (
            f"""
            DO $$
            DECLARE
                found record;
                here constant text := quote_ident(current_schema());
                former text;
            BEGIN
                FOR found IN {_MISPLACED} LOOP
                    former := (parse_ident(found.was))[1];
                    EXECUTE format('ALTER FUNCTION %s SET search_path = %s, pg_temp', found.signature, here);
                END LOOP;
                -- What has no path of its own says the schema's name in its text.
                FOR found IN
                    SELECT pg_get_functiondef(p.oid) AS definition FROM pg_proc p
                    WHERE p.pronamespace = here::regnamespace AND p.proconfig IS NULL AND p.prosecdef
                      AND strpos(p.prosrc, quote_literal(former)) > 0
                LOOP
                    found.definition := replace(found.definition, quote_literal(former),
                                                quote_literal(current_schema()));
                    found.definition := replace(found.definition, quote_ident(former) || '.', here || '.');
                    EXECUTE replace(found.definition, format('"%s".', replace(former, '"', '""')), here || '.');
                END LOOP;
            END
            $$
            """,  # noqa: S608 (ours)
            f"""
            DO $$
            DECLARE
                found record;
            BEGIN
                FOR found IN {_OPEN} LOOP
                    EXECUTE format('CREATE TRIGGER %s BEFORE %s ON %s FOR EACH STATEMENT EXECUTE FUNCTION %s',
                                   found.trigger, found.event, found.part, found.calls);
                    IF found.always THEN
                        EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %s', found.part, found.trigger);
                    END IF;
                END LOOP;
            END
            $$
            """,
            # Who takes a lock draws a fence and writes to this table: nobody does meanwhile, so that none goes back.
            "LOCK TABLE lock IN SHARE ROW EXCLUSIVE MODE",
            f"SELECT setval('fence', behind.fence) FROM ({_BEHIND}) behind",  # noqa: S608 (ours)
        ),
    )
)
"""The statements that mend the flaws of the schema that is first in the search path, once its functions are closed."""


def flaws(connection: Connection, schema: str) -> list[str]:
    """What is wrong with a schema that this code would work with, and an upgrade mends; what may not be seen is not."""
    connection.execute(select(func.set_config("search_path", sql.Identifier(schema).as_string(None), True)))
    found = list(_look(connection))
    connection.rollback()
    return found


def doubts(connection: Connection) -> list[str]:
    """What speaks against a database, and need not be mended."""
    encoding = connection.execute(text("SHOW server_encoding")).scalar_one()
    if encoding == "UTF8":
        return []
    return [f"the database's encoding is {encoding}, not UTF8: keys, names and texts with what it lacks are refused"]


def _look(connection: Connection) -> Iterator[str]:
    misplaced = sorted({name for _, name, _ in connection.execute(text(_MISPLACED))})
    if misplaced:
        yield f"functions would work on the schema that this one was named before: {', '.join(misplaced)}"
    unkept = sorted({str(part) for part, *_ in connection.execute(text(_OPEN))})
    if unkept:
        yield f"partitions let anybody change what their tables keep: {', '.join(unkept)}"
    public = sorted({name for (name,) in connection.execute(text(_PUBLIC))})
    if public:
        yield f"everybody may call what works with its owner's rights: {', '.join(public)}"
    if connection.execute(text(_MAY_LOOK)).scalar_one():
        for newest, following in connection.execute(text(_BEHIND)):
            yield f"the next fence would be {following}, but one of {newest} was given before"
