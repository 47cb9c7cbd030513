"""What the server's catalog says of a schema of ours: functions, tables, views, and who may do what with them."""

import re
from functools import cache

from pgresults.sql.compiled import Query, Statement
from pgresults.sql.shard_functions import MARK


class _Look(Statement):
    """A question to the catalog.

    Parameters:
        text: the question, with one parameter.
        name: what the parameter is.
    """

    changes = False

    def __init__(self, text: str, name: str = "schema") -> None:
        self.catalogs = frozenset(re.findall(r"(?:FROM|JOIN) (pg_[a-z_]+) ", text))
        if "pg_get_viewdef" in text:
            self.catalogs |= {"pg_rewrite"}  # it asks there with the rights of whoever calls it
        self.query = cache(lambda _: Query(text.encode(), (name,)))


_WRITTEN = {"IntervalStyle": "postgres", "DateStyle": "ISO", "TimeZone": "UTC", "quote_all_identifiers": "off"}
"""How definitions are written, which a session may have otherwise."""

PLACE = _Look(
    "SELECT set_config('search_path', quote_ident($1::text) || ', pg_temp', true)"
    + "".join(f", set_config('{name}', '{value}', true)" for name, value in _WRITTEN.items())
)
"""Have the catalog name what is in the schema without it, and all else with its schema; until the transaction ends."""

CLOSED = _Look(
    "SELECT name FROM unnest($1::text[]) AS name WHERE NOT has_table_privilege('pg_catalog.' || name, 'SELECT')",
    "catalogs",
)
"""The tables of the catalog that the role may not read."""

_SCHEMA = "(SELECT n.oid FROM pg_namespace n WHERE n.nspname = $1::text)"

IS_SPREAD = _Look(
    f"""
    SELECT EXISTS (SELECT FROM pg_extension e WHERE e.extname = 'citus') AND EXISTS (
        SELECT FROM pg_proc p WHERE p.pronamespace = {_SCHEMA} AND p.proname = '{MARK}'
    )
    """,
)
"""Whether tables are spread over several servers: other functions and triggers keep them there."""

# What is not of a schema by itself but of a table there: its partitions, wherever they are.
_KIN = f"""
    WITH RECURSIVE kin (oid, root, level) AS (
        SELECT c.oid, c.oid, 0 FROM pg_class c
        WHERE c.relnamespace = {_SCHEMA} AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
        UNION ALL
        SELECT i.inhrelid, kin.root, kin.level + 1 FROM pg_inherits i JOIN kin ON i.inhparent = kin.oid
    )
"""
_OF = "FROM kin JOIN pg_class c ON c.oid = kin.oid JOIN pg_class r ON r.oid = kin.root"
_NO_PART = "NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = {}.oid AND d.deptype = 'e')"

FUNCTIONS = _Look(
    f"""
    SELECT p.proname, p.proname || '(' || pg_get_function_identity_arguments(p.oid) || ')', l.lanname, p.prosecdef,
           p.provolatile::text, p.proisstrict, pg_get_function_result(p.oid), p.proconfig, p.prosrc,
           pg_get_userbyid(p.proowner),
           EXISTS (SELECT FROM pg_proc s WHERE s.pronamespace = 'pg_catalog'::regnamespace AND s.proname = p.proname)
    FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
    WHERE p.pronamespace = {_SCHEMA} AND {_NO_PART.format("p")}
    """,
)
"""Name, signature and what a function is; whether one of the server has its name. Without what an extension brought."""

OPERATORS = _Look(
    f"""
    SELECT o.oid::regoperator::text FROM pg_operator o
    WHERE o.oprnamespace = {_SCHEMA} AND {_NO_PART.format("o")}
    """,
)
"""Operators that would be used in place of the server's."""

RELATIONS = _Look(
    f"""
    {_KIN}
    SELECT r.relname, kin.level, c.oid::regclass::text, r.relkind::text, c.relkind::text, c.relpersistence::text,
           c.relrowsecurity, CASE WHEN c.relkind = 'v' THEN c.reloptions END,
           CASE WHEN c.relkind = 'v' THEN pg_get_viewdef(c.oid, true) END, pg_get_userbyid(c.relowner),
           (SELECT jsonb_build_array(s.seqincrement, s.seqmin, s.seqmax, s.seqstart, s.seqcache, s.seqcycle)::text
            FROM pg_sequence s WHERE s.seqrelid = c.oid)
    {_OF}
    """,
)
"""Tables, views and sequences, with all that inherits from them: the name, how far down, and what they are."""

COLUMNS = _Look(
    f"""
    {_KIN}
    SELECT r.relname, a.attname, a.attnotnull, pg_get_expr(d.adbin, d.adrelid, true),
           a.attgenerated::text || a.attidentity::text, l.collname
    {_OF} JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    LEFT JOIN pg_collation l ON l.oid = a.attcollation
    WHERE kin.level = 0 AND c.relkind IN ('r', 'p')
    """,
)
"""The columns of tables: whether they must be given, what else they get, by which collation they are ordered."""

TRIGGERS = _Look(
    f"""
    {_KIN}
    SELECT r.relname, c.oid::regclass::text, t.tgname, t.tgenabled::text,
           replace(pg_get_triggerdef(t.oid, true), ' ON ' || c.oid::regclass::text || ' ',
                   ' ON ' || r.oid::regclass::text || ' ')
    {_OF} JOIN pg_trigger t ON t.tgrelid = c.oid
    WHERE NOT t.tgisinternal
    """,
)
"""The triggers of tables, views and partitions."""

RULES = _Look(
    f"""
    {_KIN}
    SELECT r.relname, c.oid::regclass::text, w.rulename, pg_get_ruledef(w.oid, true)
    {_OF} JOIN pg_rewrite w ON w.ev_class = c.oid
    WHERE w.rulename <> '_RETURN'
    """,
)
"""The rules but for those that make a view one."""

POLICIES = _Look(
    f"""
    {_KIN}
    SELECT r.relname, p.polname, p.polpermissive, p.polroles = '{{0}}', p.polcmd::text,
           pg_get_expr(p.polqual, p.polrelid)
    {_OF} JOIN pg_policy p ON p.polrelid = c.oid
    """,
)
"""The policies of row security: whether they give or take, and whether that is for everybody."""

KEYS = _Look(
    f"""
    {_KIN}
    SELECT r.relname, pg_get_constraintdef(k.oid, true)
    {_OF} JOIN pg_constraint k ON k.conrelid = c.oid
    WHERE kin.level = 0 AND k.contype IN ('p', 'u', 'c', 'f', 'x')
    """,
)
"""Primary keys and other constraints, by what they say: their names are an operator's affair."""

INDEXES = _Look(
    f"""
    {_KIN}
    SELECT r.relname, CASE WHEN i.indisunique THEN 'UNIQUE ' ELSE '' END
           || substring(pg_get_indexdef(i.indexrelid, 0, true) FROM ' USING (.*)')
    {_OF} JOIN pg_index i ON i.indrelid = c.oid
    WHERE kin.level = 0 AND i.indisvalid AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid)
    """,
)
"""The indexes that are no keys."""

GRANTS = _Look(
    f"""
    {_KIN}
    SELECT 'table', c.relname::text, NULL, g.privilege_type, g.grantee, pg_get_userbyid(g.grantee)
    {_OF} CROSS JOIN LATERAL aclexplode(c.relacl) g
    WHERE kin.level = 0 AND g.grantee <> c.relowner
    UNION ALL
    SELECT 'table', c.relname::text, a.attname::text, g.privilege_type, g.grantee, pg_get_userbyid(g.grantee)
    {_OF} JOIN pg_attribute a ON a.attrelid = c.oid CROSS JOIN LATERAL aclexplode(a.attacl) g
    WHERE kin.level = 0 AND g.grantee <> c.relowner
    UNION ALL
    SELECT 'function', p.proname::text, NULL, g.privilege_type, g.grantee, pg_get_userbyid(g.grantee)
    FROM pg_proc p CROSS JOIN LATERAL aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) g
    WHERE p.pronamespace = {_SCHEMA} AND g.grantee <> p.proowner
    UNION ALL
    SELECT 'schema', n.nspname::text, NULL, g.privilege_type, g.grantee, pg_get_userbyid(g.grantee)
    FROM pg_namespace n CROSS JOIN LATERAL aclexplode(n.nspacl) g
    WHERE n.nspname = $1::text AND g.grantee <> n.nspowner
    """,
)
"""What others than the owners may do: with what, which column, and who; nobody's number is everybody's."""

SETTINGS = _Look(
    """
    SELECT coalesce(d.datname, 'every database'), pg_get_userbyid(s.setrole), s.setrole = 0, c.setting
    FROM pg_db_role_setting s LEFT JOIN pg_database d ON d.oid = s.setdatabase
    CROSS JOIN LATERAL unnest(s.setconfig) AS c (setting)
    WHERE s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
      AND c.setting LIKE 'session_replication_role=%' AND $1::text IS NOT NULL
    """,
)
"""Settings with which sessions begin whose triggers do not fire."""

LOOKS = {
    "functions": FUNCTIONS,
    "operators": OPERATORS,
    "relations": RELATIONS,
    "columns": COLUMNS,
    "triggers": TRIGGERS,
    "rules": RULES,
    "policies": POLICIES,
    "keys": KEYS,
    "indexes": INDEXES,
    "grants": GRANTS,
    "settings": SETTINGS,
}
"""The questions, each with the name of its answer."""
