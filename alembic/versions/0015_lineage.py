"""Lineage: a version says which versions it was computed from, and both ways along it are found by an index."""

import sqlalchemy as sa
from alembic import op
from psycopg import sql
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0015"
down_revision = "0014"

_PARENTS = ARRAY(sa.Text(collation="C"))

# Without a list of what is pending: who asks would go through it, and a write pays for three parents what it saves.
_INDEX = """
CREATE INDEX history_derived_from_idx ON history USING gin (derived_from) WITH (fastupdate = off)
WHERE derived_from IS NOT NULL AND action IN ('write', 'import')
"""


def _require_parents(schema: str) -> str:
    """What the trigger's function does beside: it has no search path, so everything is named with its schema.

    Versions of a key are numbered without gaps, so its row tells of each whether it ever was.
    """
    eq, ne, lt, gt, ge, plus = (f"OPERATOR(pg_catalog.{sign})" for sign in ("=", "<>", "<", ">", ">=", "+"))
    number = "pg_catalog.split_part(said.place, '@', 1)::bigint"
    storage = f"""CASE WHEN pg_catalog.strpos(said.place, '@') {gt} 0
                              THEN pg_catalog.split_part(said.place, '@', 2)::pg_catalog.uuid
                              ELSE NEW.storage_id END"""
    key = f"pg_catalog.substr(given.parent, pg_catalog.length(said.place) {plus} 2)"
    return f"""
    IF NEW.derived_from IS NOT NULL THEN
        DECLARE
            missing pg_catalog.text;
        BEGIN
            SELECT coalesce(given.parent, '') INTO missing
            FROM pg_catalog.unnest(NEW.derived_from) AS given(parent)
            CROSS JOIN LATERAL (SELECT pg_catalog.split_part(given.parent, ':', 1) AS place) said
            WHERE NOT coalesce((
                SELECT {number} {ge} 1 AND r.version {ge} {number}
                       AND (r.key {ne} NEW.key OR r.storage_id {ne} NEW.storage_id OR {number} {lt} NEW.version)
                FROM {schema}.result r
                WHERE r.key {eq} {key}
                  AND r.storage_id {eq} {storage}
            ), false)
            LIMIT 1;
            IF FOUND THEN
                RAISE EXCEPTION 'what % is derived from is no version that there is: %',
                                pg_catalog.quote_literal(NEW.key), pg_catalog.quote_literal(missing)
                    USING ERRCODE = 'PL001', DETAIL = missing;
            END IF;
        END;
    END IF;"""  # noqa: S608 (the names are ours)


# What is copied, compared and cleared is said beside the signature in every function, so it is found by that.
_CORRECTIONS = r"""
DO $do$
DECLARE
    correction record;
    found record;
    corrected text;
BEGIN
    FOR correction IN VALUES
        (1, 'record_entry', '((?:\w+\.)?)signature, ((?:\w+\.)?)seq', '\1signature, \1derived_from, \2seq'),
        (2, 'record_entry', '(\n    )(-- What is signed counts where it is read)', {parents}),
        (3, 'record_other', '((?:\w+\.)?)signature, ((?:\w+\.)?)(seq|sha256)', '\1signature, \1derived_from, \2\3'),
        (4, 'sweep', 'signature = NULL,', 'signature = NULL, derived_from = NULL,')
        ORDER BY 1
    LOOP
        SELECT pg_get_functiondef(p.oid) AS definition INTO STRICT found
        FROM pg_proc p
        WHERE p.pronamespace = quote_ident(current_schema())::regnamespace AND p.proname = correction.column2;
        IF correction.column2 = 'sweep' AND strpos(found.definition, 'change_head') > 0 THEN
            CONTINUE; -- where results are spread over several servers
        END IF;
        corrected := regexp_replace(found.definition, correction.column3, correction.column4, 'g');
        IF corrected = found.definition THEN
            RAISE EXCEPTION 'the function %() is not the one that an upgrade made', correction.column2;
        END IF;
        EXECUTE corrected;
    END LOOP;
END
$do$
"""


def _corrections(schema: str) -> str:
    parents = _require_parents(sql.Identifier(schema).as_string(None)).replace("\\", "\\\\")
    return _CORRECTIONS.replace("{parents}", sql.Literal(f"{parents}\\1\\2").as_string(None))


_HISTORY = """
CREATE OR REPLACE VIEW result_history AS
SELECT coalesce(s.name, h.storage_id::text) AS storage, h.key, h.seq, h.version, h.action, h.at, h.actor,
       h.db_user, h.holder, h.fence, h.expires_at, h.size, h.serializer ->> 'type' AS serializer, h.reason,
       h.tags, h.provenance, encode(h.digest, 'hex') AS digest, h.storage_id,
       encode(h.previous, 'hex') AS previous, h.payload_id, encode(h.payload_digest, 'hex') AS payload_digest,
       h.serializer AS serializer_settings, h.storage_key, h.storage_block_id, h.pgresults_version,
       h.prefect_version, encode(h.signature, 'hex') AS signature, h.xid, h.derived_from
FROM history h LEFT JOIN storage s ON s.id = h.storage_id
"""

_LINEAGE = """
CREATE VIEW lineage AS
SELECT coalesce(s.name, h.storage_id::text) AS storage, h.key, h.version, h.at, h.actor,
       h.provenance #>> '{task,name}' AS task, coalesce(o.name, p.storage_id::text) AS parent_storage,
       p.key AS parent_key, p.version AS parent_version, h.derived_from, h.storage_id,
       p.storage_id AS parent_storage_id
FROM history h
CROSS JOIN LATERAL unnest(h.derived_from) AS given(parent)
CROSS JOIN LATERAL (SELECT split_part(given.parent, ':', 1) AS place) said
CROSS JOIN LATERAL (
    SELECT coalesce(nullif(split_part(said.place, '@', 2), '')::uuid, h.storage_id) AS storage_id,
           substr(given.parent, length(said.place) + 2) AS key, split_part(said.place, '@', 1)::bigint AS version
) p
LEFT JOIN storage s ON s.id = h.storage_id
LEFT JOIN storage o ON o.id = p.storage_id
WHERE h.derived_from IS NOT NULL AND h.action IN ('write', 'import')
"""

_LET = """
DO $$
DECLARE
    held record;
BEGIN
    FOR held IN
        SELECT DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS grantee, f.granted
        FROM pg_class c
        CROSS JOIN LATERAL aclexplode(c.relacl) a
        JOIN (VALUES ('SELECT', 'SELECT'), ('TRUNCATE', 'ALL')) AS f(privilege, granted)
             ON a.privilege_type = f.privilege
        WHERE c.oid = 'history'::regclass AND a.grantee <> c.relowner
    LOOP
        EXECUTE format('GRANT %s ON lineage TO %s', held.granted, held.grantee);
    END LOOP;
END
$$
"""
"""Who sees the history sees the lineage, which is a part of it."""


def upgrade() -> None:
    # Unless it is named last, the schema of temporary tables comes before all others.
    op.execute("SELECT set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true)")
    for table in ("result", "history"):
        op.add_column(table, sa.Column("derived_from", _PARENTS))
    for statement in (_INDEX, _HISTORY.replace(":", r"\:"), _LINEAGE.replace(":", r"\:"), _LET.replace(":", r"\:")):
        op.execute(statement)
    op.execute(sa.text(_corrections(op.get_context().version_table_schema).replace(":", r"\:")))


def downgrade() -> None:
    raise NotImplementedError("the history would lose what keeps it: restore a backup from before the upgrade instead")
