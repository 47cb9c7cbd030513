"""Who waits for which lock, and sweeping away what is left of released ones."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_FORGET = """
CREATE FUNCTION forget_released(batch_size integer DEFAULT 1000, only_storage uuid DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    newest bigint;
    gone bigint;
BEGIN
    IF NOT (has_table_privilege('lock', 'DELETE') AND has_sequence_privilege('forgotten', 'UPDATE'))
       OR NOT pg_try_advisory_xact_lock(hashtext(current_schema()), 7039) THEN
        RETURN 0; -- rights from before, or somebody else is at it
    END IF;
    -- Who has drawn a fence already, and finds no row of its key when it comes to take the lock, sees by this that
    -- there may have been one with a later fence.
    SELECT last_value INTO newest FROM fence;
    PERFORM setval('forgotten', newest);
    -- What a transaction has a part in stays; who comes for one of these meanwhile skips it and looks again.
    DELETE FROM lock WHERE released AND fence <= newest AND (storage_id, key) IN (
        SELECT l.storage_id, l.key FROM lock l
        WHERE l.released AND l.fence <= newest AND (only_storage IS NULL OR l.storage_id = only_storage)
        LIMIT least(batch_size, 1000) FOR UPDATE SKIP LOCKED
    );
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END
$$
"""

_AS_BEFORE = """
DO $$
DECLARE
    held record;
BEGIN
    FOR held IN
        SELECT target, privilege_type AS privilege,
               CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS grantee
        FROM pg_class c
        JOIN (VALUES ('lock', 'TABLE waiting'), ('fence', 'SEQUENCE forgotten')) AS pairs(source, target)
             ON c.oid = source::regclass
        CROSS JOIN LATERAL aclexplode(c.relacl) a
        WHERE a.grantee <> c.relowner
    LOOP
        EXECUTE format('GRANT %s ON %s TO %s', held.privilege, held.target, held.grantee);
        IF held.target LIKE 'SEQUENCE%' THEN
            EXECUTE format('GRANT SELECT, UPDATE ON SEQUENCE forgotten TO %s', held.grantee);
        END IF;
    END LOOP;
END
$$
"""
"""Who may take locks may say that it waits."""

_SWEEP = """
CREATE OR REPLACE FUNCTION sweep(batch_size integer DEFAULT 1000, only_storage uuid DEFAULT NULL,
                      who text DEFAULT session_user, as_holder text DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    ids uuid[];
    keys text[];
    content bytea := bare_content('expire', who, as_holder, NULL);
BEGIN
    PERFORM forget_released(batch_size, only_storage);
    -- In a statement of its own: the next ones see every payload of the rows that are locked by now.
    SELECT array_agg(due.storage_id), array_agg(due.key) INTO ids, keys FROM (
        SELECT r.storage_id, r.key FROM result r
        WHERE r.expires_at <= statement_timestamp() AND r.payload_id IS NOT NULL
          AND (only_storage IS NULL OR r.storage_id = only_storage)
          AND NOT EXISTS (
              SELECT FROM lock l
              WHERE l.storage_id = r.storage_id AND l.key = r.key AND NOT l.released
                AND (l.expires_at IS NULL OR l.expires_at > clock_timestamp())
                AND l.holder IS DISTINCT FROM as_holder
                AND CASE WHEN l.beacon IS NULL THEN true -- a lease
                         WHEN pg_try_advisory_lock_shared(l.beacon) THEN NOT pg_advisory_unlock_shared(l.beacon)
                         ELSE true END
          )
        ORDER BY r.expires_at LIMIT batch_size FOR UPDATE SKIP LOCKED
    ) due;
    IF ids IS NULL THEN
        RETURN 0;
    END IF;
    DELETE FROM payload p USING unnest(ids, keys) AS due(storage_id, key), result r
    WHERE r.storage_id = due.storage_id AND r.key = due.key
      AND p.storage_id = r.storage_id AND p.key = r.key AND p.payload_id = r.payload_id;
    WITH head AS (
        UPDATE result r
        SET payload_id = NULL, expires_at = NULL, serializer = NULL, size = NULL, sha256 = NULL, tags = NULL,
            provenance = NULL, storage_key = NULL, storage_block_id = NULL, pgresults_version = NULL,
            prefect_version = NULL, signature = NULL, payload_digest = NULL, action = 'expire', actor = who,
            holder = as_holder, fence = NULL, reason = NULL, seq = r.seq + 1, at = moment.at,
            db_user = session_user, previous = r.digest,
            digest = entry_digest(r.digest, r.storage_id, r.key, r.seq + 1, r.version, moment.at, NULL,
                                  session_user, content)
        FROM unnest(ids, keys) AS due(storage_id, key)
        JOIN result old USING (storage_id, key)
        CROSS JOIN LATERAL (
            SELECT greatest(statement_timestamp(), old.at + interval '1 microsecond') AS at
        ) moment
        WHERE r.storage_id = due.storage_id AND r.key = due.key
        RETURNING r.*
    )
    INSERT INTO history (storage_id, key, version, seq, action, at, actor, db_user, holder, previous, digest)
    SELECT storage_id, key, version, seq, action, at, actor, db_user, holder, previous, digest FROM head;
    RETURN cardinality(keys);
END
$$
"""

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
     AND b.mode = 'ExclusiveLock'
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


def upgrade() -> None:
    op.create_table(
        "waiting",
        sa.Column("storage_id", sa.Uuid, nullable=False),
        sa.Column("key", sa.Text(collation="C"), nullable=False),
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("through", sa.Boolean, nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("storage_id", "key", "id", "holder", name="waiting_pkey"),
        # Nobody waits any more when the server comes back from a crash.
        prefixes=["UNLOGGED"],
    )
    op.execute("ALTER TABLE waiting SET (fillfactor = 50)")
    op.execute("CREATE SEQUENCE forgotten AS bigint MINVALUE 0 START 0")
    op.execute(_AS_BEFORE)
    op.execute(_HELD_LOCKS)
    # Unless it is named last, the schema of temporary tables comes before all others.
    op.execute("SELECT set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true)")
    op.execute(_FORGET)
    op.execute(_SWEEP)


def downgrade() -> None:
    raise NotImplementedError("the history would lose what keeps it: restore a backup from before the upgrade instead")
