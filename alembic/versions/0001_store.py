"""The store: storages, results, payloads, history, and the views over them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "0001"
down_revision = None


def _key() -> sa.Column[str]:
    return sa.Column("key", sa.Text(collation="C"), nullable=False)


def _time(name: str, nullable: bool = True) -> sa.Column:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _version_columns() -> list[sa.Column]:
    return [
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("payload_id", sa.Uuid),
        _time("expires_at"),
        sa.Column("serializer", JSONB),
        sa.Column("size", sa.BigInteger),
        sa.Column("tags", ARRAY(sa.Text)),
        sa.Column("provenance", JSONB),
        sa.Column("storage_key", sa.Text),
        sa.Column("storage_block_id", sa.Uuid),
        sa.Column("pgresults_version", sa.Text),
        sa.Column("prefect_version", sa.Text),
        sa.Column("signature", sa.LargeBinary),
    ]


def _entry_columns() -> list[sa.Column]:
    return [
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        _time("at", nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("db_user", sa.Text, nullable=False),
        sa.Column("holder", sa.Text),
        sa.Column("fence", sa.BigInteger),
        sa.Column("reason", sa.Text),
        sa.Column("payload_digest", sa.LargeBinary),
        sa.Column("previous", sa.LargeBinary, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
    ]


def _create_tables() -> None:
    op.create_table(
        "storage",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        _time("created_at", nullable=False),
        sa.PrimaryKeyConstraint("id", name="storage_pkey"),
        sa.UniqueConstraint("name", name="storage_name_key"),
    )
    op.create_table(
        "result",
        sa.Column("storage_id", sa.Uuid, nullable=False),
        _key(),
        *_version_columns(),
        _time("created_at"),
        sa.Column("sha256", sa.LargeBinary),
        *_entry_columns(),
        sa.PrimaryKeyConstraint("storage_id", "key", name="result_pkey"),
    )
    op.execute("ALTER TABLE result SET (fillfactor = 80)")
    op.create_index(
        "result_expires_at_idx", "result", ["expires_at"], postgresql_where=sa.text("expires_at IS NOT NULL")
    )
    op.create_table(
        "payload",
        sa.Column("storage_id", sa.Uuid, nullable=False),
        _key(),
        sa.Column("payload_id", sa.Uuid, nullable=False),
        sa.Column("chunk", sa.Integer, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.Column("salt", sa.LargeBinary),
        sa.Column("sha256", sa.LargeBinary),
        sa.PrimaryKeyConstraint("storage_id", "key", "payload_id", "chunk", name="payload_pkey"),
    )
    # Payloads are compressed, if at all, by their serializer: the server need not try again.
    op.execute("ALTER TABLE payload ALTER COLUMN data SET STORAGE EXTERNAL")
    op.create_table(
        "history",
        sa.Column("storage_id", sa.Uuid, nullable=False),
        _key(),
        *_version_columns(),
        *_entry_columns(),
        sa.PrimaryKeyConstraint("storage_id", "key", "seq", name="history_pkey"),
    )


_VIEWS = {
    "live_results": """
        SELECT coalesce(s.name, r.storage_id::text) AS storage, r.key, r.version, r.created_at, r.expires_at, r.size,
               r.serializer ->> 'type' AS serializer, encode(r.sha256, 'hex') AS sha256, r.tags, r.provenance,
               r.actor, r.db_user, r.holder, r.fence
        FROM result r LEFT JOIN storage s ON s.id = r.storage_id
        WHERE r.payload_id IS NOT NULL AND (r.expires_at IS NULL OR r.expires_at > statement_timestamp())
    """,
    "expirations": """
        SELECT coalesce(s.name, r.storage_id::text) AS storage, r.key, r.version, r.expires_at,
               r.expires_at - statement_timestamp() AS remaining, r.expires_at <= statement_timestamp() AS expired,
               r.size, r.created_at
        FROM result r LEFT JOIN storage s ON s.id = r.storage_id
        WHERE r.expires_at IS NOT NULL
    """,
    "result_history": """
        SELECT coalesce(s.name, h.storage_id::text) AS storage, h.key, h.seq, h.version, h.action, h.at, h.actor,
               h.db_user, h.holder, h.fence, h.expires_at, h.size, h.serializer ->> 'type' AS serializer, h.reason,
               h.tags, h.provenance, encode(h.digest, 'hex') AS digest
        FROM history h LEFT JOIN storage s ON s.id = h.storage_id
    """,
    "storage_usage": """
        SELECT coalesce(s.name, u.storage_id::text) AS storage, u.keys, u.live, u.live_bytes, u.expired_bytes,
               u.last_change
        FROM (
            SELECT r.storage_id, count(*) AS keys,
                   count(*) FILTER (WHERE r.payload_id IS NOT NULL AND NOT e.expired) AS live,
                   coalesce(sum(r.size) FILTER (WHERE NOT e.expired), 0)::bigint AS live_bytes,
                   coalesce(sum(r.size) FILTER (WHERE e.expired), 0)::bigint AS expired_bytes,
                   max(r.at) AS last_change
            FROM result r
            CROSS JOIN LATERAL (SELECT coalesce(r.expires_at <= statement_timestamp(), false) AS expired) e
            GROUP BY r.storage_id
        ) u LEFT JOIN storage s ON s.id = u.storage_id
    """,
}


def upgrade() -> None:
    _create_tables()
    for name, query in _VIEWS.items():
        op.execute(f"CREATE VIEW {name} AS {query}")


def downgrade() -> None:
    for name in _VIEWS:
        op.execute(f"DROP VIEW {name}")
    for name in ("history", "payload", "result", "storage"):
        op.drop_table(name)
