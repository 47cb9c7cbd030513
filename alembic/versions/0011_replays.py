"""What was signed once is written once, what has expired is touched no more, and only the switch opens the history."""

from alembic import op

revision = "0011"
down_revision = "0010"

# The path of each is the schema itself, or its text names it: only what they compare changes.
_CORRECTIONS = r"""
DO $do$
DECLARE
    correction record;
    found record;
    corrected text;
BEGIN
    FOR correction IN VALUES
        -- Any entry at the switch's place opened the history, and windows are counted by what the switch says.
        ('refuse_change', $$h.key = 'maintenance'$$, $$h.key = 'maintenance' AND h.action = 'maintenance'$$),
        -- A lower number may be that of a transaction that is still open, which would find the history open as well.
        ('keep_entry', $$NEW.xid <= OLD.xid$$, $$NEW.xid IN (0, OLD.xid)$$),
        ('record_entry', $$(NEW.action OPERATOR(pg_catalog.=) 'write'$$,
         $$NEW.storage_id OPERATOR(pg_catalog.<>) '00000000-0000-0000-0000-000000000000'::pg_catalog.uuid
              AND (NEW.action OPERATOR(pg_catalog.=) 'write'$$),
        ('record_other', $$honest boolean := new.db_user$$,
         $$honest boolean := new.storage_id <> '00000000-0000-0000-0000-000000000000' AND new.db_user$$),
        -- Whoever began before a result expired could touch it afterwards.
        ('record_other', $$old.expires_at > now()$$, $$old.expires_at > statement_timestamp()$$)
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
"""

# A payload that was taken away could be stored again, and its version with it: the signature says of which key it
# is, but not which of its versions it was. Entries stay, so the one that wrote it tells.
_ONCE = """
CREATE UNIQUE INDEX history_signed_once_idx ON history (payload_id, storage_id, key)
WHERE signature IS NOT NULL AND action IN ('write', 'import')
"""

# A writer's rows may say any size: their sum must not end the query for all.
_USAGE = """
CREATE OR REPLACE VIEW storage_usage AS
SELECT coalesce(s.name, u.storage_id::text) AS storage, u.keys, u.live, u.live_bytes, u.expired_bytes,
       u.last_change, u.storage_id
FROM (
    SELECT r.storage_id, count(*) AS keys,
           count(*) FILTER (WHERE r.payload_id IS NOT NULL AND NOT e.expired) AS live,
           least(coalesce(sum(r.size) FILTER (WHERE NOT e.expired), 0), 9223372036854775807)::bigint AS live_bytes,
           least(coalesce(sum(r.size) FILTER (WHERE e.expired), 0), 9223372036854775807)::bigint AS expired_bytes,
           max(r.at) AS last_change
    FROM result r
    CROSS JOIN LATERAL (SELECT coalesce(r.expires_at <= statement_timestamp(), false) AS expired) e
    GROUP BY r.storage_id
) u LEFT JOIN storage s ON s.id = u.storage_id
"""


def upgrade() -> None:
    op.execute("SELECT set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true)")
    for statement in (_CORRECTIONS, _ONCE, _USAGE):
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("what was closed would be open: restore a backup from before the upgrade instead")
