"""Functions are run by those who were let, and by no table but their own."""

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
    op.execute(_PROJECT)
    op.execute(_LET)


def downgrade() -> None:
    raise NotImplementedError("what was closed would be open: restore a backup from before the upgrade instead")
