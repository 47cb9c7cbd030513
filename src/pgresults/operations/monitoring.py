"""What a monitoring asks of a schema."""

from typing import NamedTuple
from uuid import UUID

from pgresults.operations.requests import Execute, Operation
from pgresults.sql import monitoring as statements

_LATEST = 10_000


class LockCount(NamedTuple):
    """How many locks of a storage are held, and how many holders have waited for one for a quarter of a second."""

    storage: str
    held: int
    waiting: int


def lock_counts() -> Operation[list[LockCount]]:
    """The locks of each storage that has any."""
    return [LockCount(storage, held, waiting or 0) for storage, held, waiting in (yield Execute(statements.LOCKS, {}))]


def overdue() -> Operation[float]:
    """For how many seconds the result that expired first waits to be swept; 0 where none does."""
    rows = yield Execute(statements.OVERDUE, {})
    return float(rows[0][0]) if rows else 0.0


def last_changes() -> Operation[dict[UUID, float]]:
    """When something last happened, by storage, in seconds since 1970: among the latest ten thousand entries of all."""
    return {row[0]: float(row[1]) for row in (yield Execute(statements.LAST_CHANGES, {"limit": _LATEST}))}
