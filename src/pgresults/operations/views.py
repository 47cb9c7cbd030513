"""Asking the views."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from pgresults.operations.requests import Execute, Operation
from pgresults.records.provenance import shown
from pgresults.sql import views as statements
from pgresults.sql.compiled import Statement


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


class Usage(NamedTuple):
    """What a storage holds: keys that are or were, live results, and bytes."""

    keys: int
    live: int
    live_bytes: int
    expired_bytes: int
    last_change: datetime | None


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
    found: list[Any] = [FoundResult(*row) for row in (yield Execute(statements.find(chosen), parameters))]
    return [
        one._replace(
            created_at=one.created_at and one.created_at.astimezone(UTC),
            expires_at=one.expires_at and one.expires_at.replace(tzinfo=UTC),
            provenance=shown(one.provenance),
        )
        for one in found
    ]


def usage(storage_id: UUID) -> Operation[Usage]:
    """What a storage holds."""
    rows = yield Execute(statements.USAGE, {"storage_id": storage_id})
    return Usage(*rows[0]) if rows else Usage(0, 0, 0, 0, None)


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
