"""Sweeping leaves keys alone whose lock somebody else has."""

from alembic import op

revision = "0004"
down_revision = "0003"

_SWEEP = """
CREATE OR REPLACE FUNCTION sweep(batch_size integer DEFAULT 1000, only_storage uuid DEFAULT NULL,
                      who text DEFAULT session_user, as_holder text DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    ids uuid[];
    keys text[];
    content bytea := bare_content('expire', who, as_holder, NULL);
BEGIN
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


def upgrade() -> None:
    op.execute(_SWEEP)


def downgrade() -> None:
    raise NotImplementedError("the history would lose what keeps it: restore a backup from before the upgrade instead")
