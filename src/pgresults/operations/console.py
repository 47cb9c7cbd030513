"""What the console asks: pages of lists, and sums."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from pgresults.operations.history import Entry
from pgresults.operations.requests import Execute, Operation, T
from pgresults.sql import console as statements
from pgresults.sql.times import utc

_LAST_OF_ALL = 2**62


class At(NamedTuple):
    """The place of an entry in a list of the newest first."""

    at: datetime
    key: str
    seq: int


class Page(NamedTuple):
    """Entries with their keys, the newest first; from where to go on, and whether all of the part were looked at."""

    entries: list[tuple[str, Entry]]
    last: At | None
    complete: bool


class Extent(NamedTuple):
    """The numbers of a key's last entry and of its last version."""

    entries: int
    versions: int


class Large(NamedTuple):
    """A result with the bytes of its payload; times are aware and in UTC."""

    key: str
    version: int
    size: int
    written: datetime | None
    expires_at: datetime | None


class Sum(NamedTuple):
    """Results and bytes of what has a name in common; when the last of them was written, where that is known."""

    name: str
    results: int
    bytes: int
    last: datetime | None = None


class Step(NamedTuple):
    """What an entry did, when, who did it, why, and when its version was to expire."""

    action: str
    at: datetime
    actor: str
    reason: str | None
    expires_at: datetime | None


class Computed(NamedTuple):
    """A result that a task computed, and what its key's history said before; None: nothing."""

    key: str
    at: datetime
    version: int
    size: int | None
    actor: str
    before: Step | None


class Rate(NamedTuple):
    """Results of tasks that were computed in a span of time from a moment on: for the first time, and again."""

    start: datetime
    first: int
    again: int


def looking(operation: Operation[T]) -> Operation[T]:
    """Carry an operation out in a transaction that changes nothing."""
    yield Execute(statements.READ_ONLY, {})
    return (yield from operation)


def log(parameters: Mapping[str, Any], chosen: frozenset[str], limit: int, window: int) -> Operation[Page]:
    """A page of what happened in a storage.

    Parameters:
        parameters: the storage, and the values of what is chosen.
        chosen: bounds and filters.
        limit: how many entries at most.
        window: how many of the newest are looked at, where some are to be picked.
    """
    picked = chosen & statements.FILTERS
    given = {**parameters, "window": window if picked else limit + 1, "limit": limit + 1}
    rows = yield Execute(statements.log(chosen), given)
    found = [(key, Entry._make((*said, None))) for key, *said in rows]
    if len(found) > limit:
        key, entry = found[limit - 1]
        return Page(found[:limit], At(entry.at, key, entry.seq), False)
    if not picked:
        return Page(found, None, True)
    ends = yield Execute(statements.log_end(chosen), given)
    if not ends or ends[0][3] < window:
        return Page(found, None, True)
    return Page(found, At(*ends[0][:3]), False)


def timeline(storage_id: UUID, key: str, before: int | None, limit: int) -> Operation[list[Entry]]:
    """The last entries of a key before one, the newest first."""
    given = {"storage_id": storage_id, "key": key, "before": before or _LAST_OF_ALL, "limit": limit}
    return [Entry(*row) for row in (yield Execute(statements.TIMELINE, given))]


def extent(storage_id: UUID, key: str) -> Operation[Extent | None]:
    """How long a key's history is; None where it has no row."""
    rows = yield Execute(statements.EXTENT, {"storage_id": storage_id, "key": key})
    return Extent(*rows[0]) if rows else None


def version_size(storage_id: UUID, key: str, version: int) -> Operation[int | None]:
    """The bytes of a version; None where there is none, or it does not say."""
    given = {"storage_id": storage_id, "key": key, "version": version}
    rows = yield Execute(statements.VERSION_SIZE, given)
    return rows[0][0] if rows else None


def size_as_of(storage_id: UUID, key: str, moment: datetime) -> Operation[int | None]:
    """The bytes of what a key had at a moment; None where there was nothing."""
    rows = yield Execute(statements.SIZE_AS_OF, {"storage_id": storage_id, "key": key, "moment": moment})
    return rows[0][0] if rows else None


def largest(storage_id: UUID, limit: int) -> Operation[list[Large]]:
    """The live results with the most bytes; reads every key's row."""
    rows = yield Execute(statements.LARGEST, {"storage_id": storage_id, "limit": limit})
    return [Large(key, version, size, utc(written), utc(expires)) for key, version, size, written, expires in rows]


def overdue(storage_id: UUID, limit: int) -> Operation[list[Large]]:
    """What has expired and waits to be swept, the first to expire first."""
    rows = yield Execute(statements.OVERDUE, {"storage_id": storage_id, "limit": limit})
    return [Large(key, version, size, None, utc(expires_at)) for key, version, size, expires_at in rows]


def tasks(storage_id: UUID, limit: int) -> Operation[list[Sum]]:
    """The tasks with the most live results; reads every key's row."""
    rows = yield Execute(statements.TASKS, {"storage_id": storage_id, "limit": limit})
    return [Sum(name, results, size, utc(last)) for name, results, size, last in rows]


def tags(storage_id: UUID, limit: int) -> Operation[list[Sum]]:
    """The tags that the most live results carry; reads every key's row."""
    rows = yield Execute(statements.TAGS, {"storage_id": storage_id, "limit": limit})
    return [Sum(*row) for row in rows]


def computed(storage_id: UUID, task: str, limit: int, window: int) -> Operation[list[Computed]]:
    """The last results that a task computed, among some of the newest results of all."""
    given = {"storage_id": storage_id, "task": task, "limit": limit, "window": window}
    rows = yield Execute(statements.COMPUTED, given)
    return [_computed(*row) for row in rows]


def _computed(key: str, at: datetime, version: int, size: int | None, actor: str, _task: str, *before: Any) -> Computed:
    return Computed(key, at.astimezone(UTC), version, size, actor, _step(*before))


def _step(
    action: str | None, at: datetime | None, actor: str, reason: str | None, expires: datetime | None
) -> Step | None:
    if action is None or at is None:
        return None
    return Step(action, at.astimezone(UTC), actor, reason, utc(expires))


def rates(storage_id: UUID, task: str | None, span: timedelta, step: timedelta, window: int) -> Operation[list[Rate]]:
    """How many results of tasks were computed in each step of a span, among some of the newest results of all."""
    given = {"storage_id": storage_id, "task": task, "span": span, "step": step, "window": window}
    return [Rate(start.astimezone(UTC), *counts) for start, *counts in (yield Execute(statements.RATES, given))]


class Difference(NamedTuple):
    """A field that a key's row and its last entry say otherwise, as the database writes it."""

    field: str
    row: str | None
    entry: str | None


def differences(storage_id: UUID, key: str) -> Operation[list[Difference]]:
    """In what a key's row differs from its last entry."""
    place = {"storage_id": storage_id, "key": key}
    heads = yield Execute(statements.HEAD_SAYS, place)
    entries = yield Execute(statements.ENTRY_SAYS, place)
    if not heads or not entries:
        return []
    pairs = zip(statements.COMPARED, heads[0], entries[0], strict=True)
    return [Difference(*pair) for pair in pairs if pair[1] != pair[2]]
