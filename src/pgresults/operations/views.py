"""Asking the views."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from pgresults.operations.requests import Execute, Operation
from pgresults.records.provenance import shown
from pgresults.sql import views as statements
from pgresults.sql.compiled import Statement
from pgresults.sql.frequency import ARE_FREQUENT
from pgresults.sql.usage import COUNTED, LAST_CHANGE, PAGES, SAMPLED


class FoundResult(NamedTuple):
    """A live result as a query shows it; times are aware and in UTC, ``size`` is in bytes."""

    key: str
    version: int
    created_at: datetime
    expires_at: datetime | None
    size: int
    serializer: str | None
    tags: list[str] | None
    provenance: dict[str, Any] | None
    task: str | None
    flow: str | None


_COUNTED = 10_000
_SAMPLED_PAGES = 500


class Usage(NamedTuple):
    """What a storage holds: keys that are or were, live results, and bytes; estimated where it is not ``exact``."""

    keys: int
    live: int
    live_bytes: int
    expired_bytes: int
    last_change: datetime | None
    exact: bool = True


class Totals(NamedTuple):
    """What a storage holds: keys that are or were, results that are live and that wait to be swept, and the bytes.

    Estimated where it is not ``exact``.
    """

    keys: int
    live: int
    expired: int
    live_bytes: int
    expired_bytes: int
    exact: bool = True


class StorageRow(NamedTuple):
    """A registered storage: since when, how many keys, live results and their bytes, and when it last changed."""

    storage: str
    since: datetime
    keys: int
    live: int
    live_bytes: int
    last_change: datetime | None


class Daily(NamedTuple):
    """Results and bytes of a day in UTC."""

    day: date
    results: int
    bytes: int


def find(parameters: Mapping[str, Any], chosen: frozenset[str]) -> Operation[list[FoundResult]]:
    """A page of live results that meet the chosen filters."""
    few = False
    if "tags" in chosen:
        [(often,)] = yield Execute(ARE_FREQUENT, {name: parameters[name] for name in ("tags", "limit")})
        few = not often
    rows = yield Execute(statements.find(chosen, few=few), parameters)
    found: list[Any] = [FoundResult(*row) for row in rows]
    return [
        one._replace(
            created_at=one.created_at and one.created_at.astimezone(UTC),
            expires_at=one.expires_at and one.expires_at.replace(tzinfo=UTC),
            provenance=shown(one.provenance),
        )
        for one in found
    ]


def usage(storage_id: UUID, *, exact: bool = False) -> Operation[Usage]:
    """What a storage holds, and when it last changed; see `totals`."""
    last = yield Execute(LAST_CHANGE, {"storage_id": storage_id})
    found = yield from totals(storage_id, exact=exact)
    changed = last[0][0] if last else None
    return Usage(found.keys, found.live, found.live_bytes, found.expired_bytes, changed, found.exact)


def totals(storage_id: UUID, *, exact: bool = False) -> Operation[Totals]:
    """What a storage holds; more than ten thousand keys are estimated, unless all are to be counted."""
    where = {"storage_id": storage_id}
    [counts] = yield Execute(COUNTED, where | {"limit": None if exact else _COUNTED})
    certain = exact or counts[0] < _COUNTED
    if not certain:
        [(pages,)] = yield Execute(PAGES, {})
        [(sampled, *found)] = yield Execute(SAMPLED, where | {"percent": min(100.0, 100 * _SAMPLED_PAGES / pages)})
        counts = tuple(round(count * pages / max(1, sampled)) for count in found)
    return Totals(*counts)._replace(exact=certain)


def storages() -> Operation[list[StorageRow]]:
    """Every registered storage, by name."""
    found = [StorageRow(*row) for row in (yield Execute(statements.STORAGES, {}))]
    return [
        one._replace(since=one.since.astimezone(UTC), last_change=one.last_change and one.last_change.astimezone(UTC))
        for one in found
    ]


def expiring_daily(storage_id: UUID, span: timedelta) -> Operation[list[Daily]]:
    """What expires on each day to come."""
    return (yield from _daily(statements.EXPIRING_DAILY, storage_id, span))


def written_daily(storage_id: UUID, span: timedelta) -> Operation[list[Daily]]:
    """What was written on each day past."""
    return (yield from _daily(statements.WRITTEN_DAILY, storage_id, span))


def _daily(statement: Statement, storage_id: UUID, span: timedelta) -> Operation[list[Daily]]:
    rows = yield Execute(statement, {"storage_id": storage_id, "span": span})
    return [Daily(day.date(), results, size) for day, results, size in rows]
