"""What happened in a storage under all keys, the newest first."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from pgresults.arguments import require_moment, require_number, require_tags, require_text
from pgresults.audit.checks import ACTIONS
from pgresults.audit.entries import HistoryEntry, shown_entry
from pgresults.database.following import Wanted
from pgresults.database.programs import Program
from pgresults.database.standbys import StartAt, reading
from pgresults.errors import InvalidArgument
from pgresults.operations.history import Entry
from pgresults.operations.requests import Execute, Operation
from pgresults.sql import log as statements
from pgresults.storage.finding import bound
from pgresults.storage.postgres import PostgresStorage

PAGE = 1000
"""How many entries one statement finds."""


@dataclass(frozen=True, slots=True)
class LogEntry(HistoryEntry):
    """An entry with the ``key`` in whose history it stands; never with its result."""

    key: str = ""


def log(
    storage: PostgresStorage,
    since: datetime | None = None,
    until: datetime | None = None,
    actor: str | None = None,
    action: str | None = None,
    prefix: str | None = None,
    tags: Iterable[str] | None = None,
    limit: int | None = None,
    wanted: Wanted | None = None,
) -> Program[list[LogEntry]]:
    """The entries that meet every given condition, found page by page; see `ResultStore.log`.

    ``wanted`` is how new they have to be; see `reading`.
    """
    if limit is not None:
        require_number(limit, "limit")
    given = _conditions({"since": since, "until": until}, {"actor": actor, "action": action, "prefix": prefix}, tags)
    found: list[LogEntry] = []
    last: dict[str, Any] = {}
    while limit is None or len(found) < limit:
        size = PAGE if limit is None else min(PAGE, limit - len(found))
        parameters = {**bound(given), **last, "storage_id": storage.id, "limit": size}
        start = _reading(parameters, frozenset(given) | ({"last"} if last else set()))
        page = yield from reading(storage.database, start, wanted)
        found += page
        if len(page) < size:
            break
        last = {"last_at": page[-1].at, "last_key": page[-1].key, "last_seq": page[-1].seq}
    return found


def _conditions(
    moments: Mapping[str, datetime | None], texts: Mapping[str, str | None], tags: Iterable[str] | None
) -> dict[str, Any]:
    given: dict[str, Any] = {name: require_moment(at, name) for name, at in moments.items() if at is not None}
    given |= {name: require_text(text, name) for name, text in texts.items() if text is not None}
    action = given.get("action")
    if action is not None and action not in ACTIONS:
        known = ", ".join(sorted(ACTIONS))
        raise InvalidArgument(f"no entry says {action!r}; action is one of {known}", argument="action", value=action)
    return given if tags is None else given | {"tags": require_tags(tags)}


def _reading(parameters: Mapping[str, Any], chosen: frozenset[str]) -> StartAt[list[LogEntry]]:
    return lambda *_: _entries(parameters, chosen)


def _entries(parameters: Mapping[str, Any], chosen: frozenset[str]) -> Operation[list[LogEntry]]:
    rows = yield Execute(statements.log(chosen), parameters)
    return [_logged(key, shown_entry(Entry._make((*said, None)))) for key, *said in rows]


def _logged(key: str, entry: HistoryEntry) -> LogEntry:
    return LogEntry(key=key, **{field.name: getattr(entry, field.name) for field in fields(HistoryEntry)})
