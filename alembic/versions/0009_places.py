"""Functions refuse to work on a schema that they do not live in; locks say which server process keeps them."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

# A default is bound to the table itself, not to its name, and so tells where a function lives: the path that it was
# given is text, which stays what it was when a schema is renamed, or when a dump is restored into another one.
_HOMES = r"""
DO $do$
DECLARE
    found record;
    granted record;
    body text;
    moved text;
    here constant regnamespace := quote_ident(current_schema())::regnamespace;
    guarded constant text := $guarded$
BEGIN
    -- Before anything else: what the path leads to may be another schema of the same kind, or anybody's.
    IF %1$s THEN
        RAISE EXCEPTION 'this function of schema %% would work on another one: %%', %2$s, %3$s
            USING ERRCODE = 'invalid_schema_name', HINT = 'Run `pgresults db upgrade` for this schema.';
    END IF;
    %4$s;
END
$guarded$;
    path constant text := 'current_setting(''search_path'')';
    by_path constant text := path || ' IS DISTINCT FROM quote_ident(%s) || '', pg_temp''';
    of_table constant text := '(SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace'
                              ' WHERE c.oid = home)';
BEGIN
    FOR found IN
        SELECT p.oid, p.proname, p.prosrc, p.proacl, p.proconfig, p.proowner,
               p.prorettype = 'trigger'::regtype AS fires,
               pg_get_functiondef(p.oid) AS definition, EXISTS (
                   SELECT FROM unnest(p.proconfig) c WHERE c LIKE 'search\_path=%, pg\_temp'
               ) AS has_path
        FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
        WHERE p.pronamespace = here AND l.lanname = 'plpgsql' AND (p.proconfig IS NOT NULL OR p.prosecdef)
    LOOP
        IF NOT found.has_path AND NOT (found.fires AND found.proconfig IS NULL) THEN
            CONTINUE; -- none of ours
        END IF;
        -- Rows of a partition belong to the table that it is a part of.
        body := replace(btrim(found.prosrc, E' \n'), 'IF TG_RELID ',
                        'IF coalesce(pg_catalog.pg_partition_root(TG_RELID), TG_RELID) ');
        body := replace(body, '''forget_released(integer, uuid)''', '''forget_released(integer, uuid, regclass)''');
        -- Another session's lock of the same number is no sign of life.
        body := replace(body, 'ELSE true END', $lives$WHEN l.backend IS NULL THEN true
                         ELSE EXISTS (
                             SELECT FROM pg_locks b
                             WHERE b.locktype = 'advisory' AND b.objsubid = 1 AND b.granted AND b.pid = l.backend
                               AND (b.classid::bigint << 32 | b.objid::bigint) = l.beacon
                         ) END$lives$);
        IF found.proname = 'guard_lock' THEN
            body := replace(body, 'ELSE false', $dead$WHEN OLD.beacon IS NULL OR OLD.backend IS NULL THEN false
        ELSE NOT EXISTS (
            SELECT FROM pg_locks b
            WHERE b.locktype = 'advisory' AND b.objsubid = 1 AND b.granted AND b.pid = OLD.backend
              AND (b.classid::bigint << 32 | b.objid::bigint) = OLD.beacon
        )$dead$);
        END IF;
        IF NOT found.has_path THEN
            -- It says the schema's name in its text, and finds nothing by the path of whoever is there.
            moved := quote_literal(current_schema());
            body := format(guarded, 'TG_TABLE_SCHEMA OPERATOR(pg_catalog.<>) ' || moved, 'TG_TABLE_SCHEMA', moved,
                           body);
            EXECUTE replace(found.definition, found.prosrc, body);
        ELSIF found.fires THEN
            body := format(guarded, format(by_path, 'TG_TABLE_SCHEMA'), 'TG_TABLE_SCHEMA', path, body);
            EXECUTE replace(found.definition, found.prosrc, body);
        ELSE
            body := format(guarded, format(by_path, of_table), of_table, path, body);
            moved := replace(found.definition, found.prosrc, body);
            EXECUTE format('DROP FUNCTION %s', found.oid::regprocedure);
            EXECUTE overlay(moved PLACING ', home regclass DEFAULT ''result''::regclass)'
                            FROM strpos(moved, E')\n RETURNS ') FOR 1);
            FOR granted IN
                SELECT format('GRANT EXECUTE ON FUNCTION %s TO %s', p.oid::regprocedure, a.grantee::regrole)
                       || CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END AS statement
                FROM pg_proc p CROSS JOIN LATERAL aclexplode(found.proacl) a
                WHERE p.proname = found.proname AND p.pronamespace = here
                  AND a.grantee NOT IN (0, found.proowner) AND a.privilege_type = 'EXECUTE'
            LOOP
                EXECUTE granted.statement;
            END LOOP;
        END IF;
    END LOOP;
END
$do$
"""

_AS_HOLDER = """
DO $$
DECLARE
    held record;
BEGIN
    FOR held IN
        SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS grantee, a.privilege_type
        FROM pg_attribute t CROSS JOIN LATERAL aclexplode(t.attacl) a
        WHERE t.attrelid = 'lock'::regclass AND t.attname = 'holder'
    LOOP
        EXECUTE format('GRANT %s (backend) ON lock TO %s', held.privilege_type, held.grantee);
    END LOOP;
END
$$
"""
"""Who may see or say whose a lock is may do so of the process that keeps it."""

_HELD_LOCKS = """
CREATE OR REPLACE VIEW held_locks AS
SELECT coalesce(s.name, l.storage_id::text) AS storage, l.key, l.holder, l.fence, l.acquired_at AS since,
       statement_timestamp() - l.acquired_at AS held_for, l.expires_at, l.actor, l.pid, l.taken_over_from,
       b.pid AS backend_pid, coalesce(w.waiters, 0) AS waiters,
       ARRAY(
           SELECT n.holder FROM waiting n
           WHERE n.storage_id = l.storage_id AND n.key = l.key AND NOT n.through
             AND n.seen > statement_timestamp() - interval '10 seconds'
           ORDER BY n.since, n.id
       ) AS waiting_holders
FROM lock l
LEFT JOIN storage s ON s.id = l.storage_id
LEFT JOIN pg_locks b ON b.locktype = 'advisory' AND b.granted AND b.objsubid = 1
     AND b.mode = 'ExclusiveLock' AND b.pid = coalesce(l.backend, b.pid)
     AND b.database = (SELECT oid FROM pg_database WHERE datname = current_database())
     AND b.classid = ((l.beacon >> 32) & 4294967295)::oid AND b.objid = (l.beacon & 4294967295)::oid
LEFT JOIN LATERAL (
    SELECT count(*) AS waiters FROM pg_locks p
    WHERE p.locktype = 'advisory' AND NOT p.granted AND p.database = b.database
      AND p.classid = b.classid AND p.objid = b.objid AND p.objsubid = 1
) w ON true
WHERE NOT l.released AND (l.expires_at IS NULL OR l.expires_at > clock_timestamp())
  AND (l.beacon IS NULL OR b.pid IS NOT NULL)
"""


# An infinite time can be subtracted from none before Postgres 17: one that an operator set would end the listing.
_EXPIRATIONS = """
CREATE OR REPLACE VIEW expirations AS
SELECT coalesce(s.name, r.storage_id::text) AS storage, r.key, r.version, r.expires_at,
       CASE WHEN isfinite(r.expires_at) THEN r.expires_at - statement_timestamp() END AS remaining,
       r.expires_at <= statement_timestamp() AS expired, r.size, r.created_at, r.storage_id
FROM result r LEFT JOIN storage s ON s.id = r.storage_id
WHERE r.expires_at IS NOT NULL
"""


def upgrade() -> None:
    # Unless it is named last, the schema of temporary tables comes before all others.
    op.execute("SELECT set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true)")
    op.add_column("lock", sa.Column("backend", sa.Integer))
    op.execute(_AS_HOLDER)
    op.execute(_HELD_LOCKS)
    op.execute(_EXPIRATIONS)
    op.execute(_HOMES)


def downgrade() -> None:
    raise NotImplementedError("the history would lose what keeps it: restore a backup from before the upgrade instead")
