"""The tables and views of pgresults, as SQLAlchemy describes them.

Every table is partitionable by ``key``: each primary key includes it and nothing else is unique. The schema's name is
a placeholder here; `statements` puts the configured one in its place.

A row of ``result`` is the head of its key's history: the current version and the last entry. It stays when the result
is deleted or expires, with ``payload_id`` NULL, so that versions go on counting and a miss can say why.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Sequence,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from pgresults.arguments import flaw_of
from pgresults.errors import ConfigurationError

SCHEMA = "pgresults"
"""The schema's default name, and the placeholder for a configured one."""

REVISION = "0016"
"""The revision of the schema that this code is written for."""

VERSION_TABLE = "schema_version"
"""Where Alembic keeps the revision the schema is at."""

_MAX_NAME_BYTES = 63

CHUNK_SIZE = 1024 * 1024 + 4096
"""Bytes of payload in one row of ``payload``: a mebibyte, and what a serializer puts around one."""


def require_schema(name: object) -> str:
    """Give the name back if a schema can have it.

    Raises: ConfigurationError.
    """
    flaw = flaw_of(name, _MAX_NAME_BYTES)
    if flaw is None and str(name).startswith("pg_"):
        flaw = "Postgres keeps the names that begin with pg_ for itself"
    if flaw:
        raise ConfigurationError(f"{name!r} cannot name a schema: {flaw}", setting="database_schema")
    return name  # type: ignore[return-value] # a text without flaw


metadata = MetaData(
    schema=SCHEMA,
    naming_convention={"pk": "%(table_name)s_pkey", "ix": "%(table_name)s_%(column_0_N_name)s_idx"},
)


def _key() -> Column[str]:
    return Column("key", Text(collation="C"), primary_key=True)


def _storage_id() -> Column[Any]:
    return Column("storage_id", Uuid, primary_key=True)


def _time(name: str, nullable: bool = True) -> Column[Any]:
    return Column(name, DateTime(timezone=True), nullable=nullable)


def _version_columns() -> list[Column[Any]]:
    """What describes one written version; kept for the current one and for every one in the history."""
    return [
        Column("version", BigInteger, nullable=False),
        Column("payload_id", Uuid),
        _time("expires_at"),
        Column("serializer", JSONB(none_as_null=True)),
        Column("size", BigInteger),
        Column("tags", ARRAY(Text)),
        Column("provenance", JSONB(none_as_null=True)),
        Column("storage_key", Text),
        Column("storage_block_id", Uuid),
        Column("pgresults_version", Text),
        Column("prefect_version", Text),
        Column("signature", LargeBinary),
        # Each parent as `records.lineage` writes it; what has none leaves it NULL.
        Column("derived_from", ARRAY(Text(collation="C"))),
    ]


def _entry_columns(*, seq_is_key: bool) -> list[Column[Any]]:
    """What every step of a key's history says, whatever the step was."""
    return [
        Column("seq", BigInteger, primary_key=seq_is_key, nullable=False),
        Column("action", Text, nullable=False),
        _time("at", nullable=False),
        Column("actor", Text, nullable=False),
        Column("db_user", Text, nullable=False),
        Column("holder", Text),
        Column("fence", BigInteger),
        Column("reason", Text),
        Column("payload_digest", LargeBinary),
        Column("previous", LargeBinary, nullable=False),
        Column("digest", LargeBinary, nullable=False),
    ]


_XID = text("((pg_current_xact_id())::text)::bigint")


def _run_index(kind: str) -> Index:
    """What finds the results of a task or flow by its name."""
    name = text(f"(provenance #>> '{{{kind},name}}'::text[])")
    return Index(f"result_{kind}_idx", "storage_id", name, "key", postgresql_where=text(f"{name.text} IS NOT NULL"))


storage = Table(
    "storage",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    _time("created_at", nullable=False),
    # No writer says it: what is signed for one database counts in no other of the same key and name.
    Column("identity", Uuid, nullable=False, server_default=text("gen_random_uuid()")),
)

result = Table(
    "result",
    metadata,
    _storage_id(),
    _key(),
    *_version_columns(),
    _time("created_at"),
    Column("sha256", LargeBinary),
    *_entry_columns(seq_is_key=False),
    Index(None, "expires_at", postgresql_where=text("expires_at IS NOT NULL")),
    Index("result_tags_idx", "tags", postgresql_using="gin", postgresql_where=text("tags IS NOT NULL")),
    *(_run_index(kind) for kind in ("task", "flow")),
)

payload = Table(
    "payload",
    metadata,
    _storage_id(),
    _key(),
    Column("payload_id", Uuid, primary_key=True),
    Column("chunk", Integer, primary_key=True),
    Column("data", LargeBinary, nullable=False),
    Column("salt", LargeBinary),
    Column("sha256", LargeBinary),
    # By it the server sees that a version comes with a payload of its own, not with an earlier one.
    Column("xid", BigInteger, server_default=_XID),
)

history = Table(
    "history",
    metadata,
    _storage_id(),
    _key(),
    *_version_columns(),
    *_entry_columns(seq_is_key=True),
    # By it a seal tells what is certainly committed; no digest covers it, for only the server knows it.
    Column("xid", BigInteger, nullable=False, server_default=_XID),
    *(Index(f"history_{name}_idx", name) for name in ("at", "xid", "actor")),
    Index(
        "history_signed_once_idx",
        "payload_id",
        "storage_id",
        "key",
        unique=True,
        postgresql_where=text("signature IS NOT NULL AND action IN ('write', 'import')"),
    ),
    # Not pending in a list first: whoever asks would go through that.
    Index(
        "history_derived_from_idx",
        "derived_from",
        postgresql_using="gin",
        postgresql_with={"fastupdate": "off"},
        postgresql_where=text("derived_from IS NOT NULL AND action IN ('write', 'import')"),
    ),
)

document = Table(
    "document",
    metadata,
    _storage_id(),
    _key(),
    Column("document", JSONB, nullable=False),
    Index(
        "document_document_idx",
        "document",
        postgresql_using="gin",
        postgresql_ops={"document": "jsonb_path_ops"},
    ),
)
"""The JSON results as `jsonb`, where a database owner has turned that on."""

fence = Sequence("fence", metadata=metadata, data_type=BigInteger)

forgotten = Sequence("forgotten", metadata=metadata, data_type=BigInteger, minvalue=0, start=0)
"""The newest fence of which a row may have been deleted; no row is, whose fence is newer."""

lock = Table(
    "lock",
    metadata,
    _storage_id(),
    _key(),
    Column("holder", Text, nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("token", Uuid, nullable=False),
    Column("beacon", BigInteger),
    Column("session", Uuid, nullable=False),
    Column("actor", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    _time("acquired_at", nullable=False),
    _time("expires_at"),
    Column("released", Boolean, nullable=False),
    Column("taken_over_from", Text),
    # The server's word: the trigger `guarded` keeps it.
    Column("db_user", Text, server_default=text("SESSION_USER")),
    # The server's process that keeps the beacon: another's advisory lock of the same number is no sign of life.
    Column("backend", Integer),
    prefixes=["UNLOGGED"],
)

hold_gate = Table(
    "hold_gate",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("changes", BigInteger, nullable=False),
)
"""What takes away and what places a hold meet here: one row, which has the number of holds that were placed."""

waiting = Table(
    "waiting",
    metadata,
    _storage_id(),
    _key(),
    Column("id", Uuid, primary_key=True),
    Column("holder", Text, primary_key=True),
    # The holder does not ask for the key itself, but cannot go on before the one who asks.
    Column("through", Boolean, nullable=False),
    _time("since", nullable=False),
    _time("seen", nullable=False),
    prefixes=["UNLOGGED"],
)
"""Who has waited for a lock for a while. A row that was not seen again for some seconds is a dead process's."""
