"""Placing holds, releasing them, and listing those that stand."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from pgresults.operations.requests import Execute, Operation
from pgresults.sql import holds as statements
from pgresults.sql.times import utc


class Hold(NamedTuple):
    """A hold that stands: on a key, on all that begin with a prefix, or on all that have or had all of some tags.

    ``until`` (aware, UTC) is None where it stands until it is released. ``actor`` is who placed it by their own word,
    ``db_user`` by the server's.
    """

    id: UUID
    key: str | None
    prefix: str | None
    tags: list[str] | None
    reason: str
    until: datetime | None
    since: datetime
    actor: str
    db_user: str


def place(parameters: Mapping[str, Any]) -> Operation[UUID]:
    """Place a hold; gives its id."""
    return UUID(str((yield Execute(statements.PLACE, parameters))[0][0]))


def release(parameters: Mapping[str, Any]) -> Operation[int]:
    """Release holds; gives how many."""
    return int((yield Execute(statements.RELEASE, parameters))[0][0])


def holds(storage_id: UUID) -> Operation[list[Hold]]:
    """The holds that stand, the oldest first."""
    rows = yield Execute(statements.HOLDS, {"storage_id": storage_id})
    found = [Hold(*row) for row in rows]
    return [one._replace(until=utc(one.until), since=one.since.astimezone(UTC)) for one in found]
