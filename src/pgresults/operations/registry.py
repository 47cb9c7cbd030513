"""Storages by name and id, and what a connection finds of the schema."""

from uuid import UUID

from pgresults.operations.requests import Execute, Operation
from pgresults.sql import registry as statements


def register(storage_id: UUID, name: str) -> Operation[None]:
    """Enter a storage's name in the registry."""
    yield Execute(statements.REGISTER, {"id": storage_id, "name": name})


def registered() -> Operation[dict[UUID, str]]:
    """The registered storages' names by their ids."""
    rows = yield Execute(statements.STORAGES, {})
    return {row[0]: row[1] for row in rows}


def schema_revision() -> Operation[str | None]:
    """The revision of the schema that the database is at."""
    rows = yield Execute(statements.SCHEMA_REVISION, {})
    return rows[0][0] if rows else None


def ping() -> Operation[None]:
    """Prove that a connection still answers."""
    yield Execute(statements.PING, {})
