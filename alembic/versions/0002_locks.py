"""Locks: who holds which key, with fences that never go back."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute("CREATE SEQUENCE fence AS bigint")
    op.create_table(
        "lock",
        sa.Column("storage_id", sa.Uuid, nullable=False),
        sa.Column("key", sa.Text(collation="C"), nullable=False),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("fence", sa.BigInteger, nullable=False),
        sa.Column("token", sa.Uuid, nullable=False),
        sa.Column("beacon", sa.BigInteger),
        sa.Column("session", sa.Uuid, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("acquired_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True)),
        sa.Column("released", sa.Boolean, nullable=False),
        sa.Column("taken_over_from", sa.Text),
        sa.PrimaryKeyConstraint("storage_id", "key", name="lock_pkey"),
        # A lock dies with the server anyway; what must outlive a crash is the sequence of the fences.
        prefixes=["UNLOGGED"],
    )
    op.execute("ALTER TABLE lock SET (fillfactor = 50)")
    op.execute("""
        CREATE VIEW held_locks AS
        SELECT coalesce(s.name, l.storage_id::text) AS storage, l.key, l.holder, l.fence, l.acquired_at AS since,
               statement_timestamp() - l.acquired_at AS held_for, l.expires_at, l.actor, l.pid, l.taken_over_from,
               b.pid AS backend_pid, coalesce(w.waiters, 0) AS waiters
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
    """)


def downgrade() -> None:
    op.execute("DROP VIEW held_locks")
    op.drop_table("lock")
    op.execute("DROP SEQUENCE fence")
