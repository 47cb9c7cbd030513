"""Storages by name and id, and what a connection finds of the schema."""

from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID

from pgresults.errors import ConfigurationError
from pgresults.operations.requests import Execute, Operation
from pgresults.sql import registry as statements


def register(storage_id: UUID, name: str) -> Operation[None]:
    """Enter a storage's name in the registry.

    Raises: ConfigurationError when the name stands there for another storage, or the id for another name.
    """
    yield Execute(statements.REGISTER, {"id": storage_id, "name": name})
    rows = yield Execute(statements.ENTERED, {"id": storage_id, "name": name})
    if rows != [(storage_id, name)]:
        found = ", ".join(f"{other!r} as {other_id}" for other_id, other in rows) or "nothing"
        raise ConfigurationError(
            f"the storage {name!r} ({storage_id}) cannot be registered: the table storage has {found}. Somebody has "
            "taken its name or its id: find out who, and have the tables' owner delete that row",
            setting="result_storage",
        )


def identity(storage_id: UUID) -> Operation[UUID | None]:
    """What tells a storage from those of the same name in other databases; None where it is not registered."""
    rows = yield Execute(statements.IDENTITY, {"id": storage_id})
    return rows[0][0] if rows else None


def registered() -> Operation[dict[UUID, str]]:
    """The registered storages' names by their ids."""
    rows = yield Execute(statements.STORAGES, {})
    return {row[0]: row[1] for row in rows}


def is_long_known(storage_id: UUID) -> Operation[bool]:
    """Whether a storage was registered more than a minute ago."""
    return bool((yield Execute(statements.LONG_KNOWN, {"id": storage_id})))


def schemas() -> Operation[list[str]]:
    """The names of the schemas with tables of ours, in order."""
    return [row[0] for row in (yield Execute(statements.SCHEMAS, {}))]


class Condition(NamedTuple):
    """A schema's revision, whether the session's role may see all payloads, and whether several servers have it."""

    revision: str
    sees_payloads: bool
    is_spread: bool = False


def condition() -> Operation[Condition | None]:
    """What a connection finds of the schema; None: no tables of ours."""
    rows = yield Execute(statements.CONDITION, {})
    return Condition(*rows[0]) if rows else None


def server_time() -> Operation[datetime]:
    """What time it is by the server's clock, in UTC."""
    rows = yield Execute(statements.SERVER_TIME, {})
    moment: datetime = rows[0][0]
    return moment.astimezone(UTC)


def ping() -> Operation[None]:
    """Prove that a connection still answers."""
    yield Execute(statements.PING, {})
