"""What happened in a storage under all keys, the newest first."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from pgresults.arguments import require_moment, require_tags, require_text
from pgresults.audit.entries import HistoryEntry, shown_entry
from pgresults.database.following import Wanted
from pgresults.database.programs import Program
from pgresults.database.standbys import reading
from pgresults.operations.history import Entry
from pgresults.operations.requests import Execute, Operation
from pgresults.sql import log as statements
from pgresults.storage.finding import bound
from pgresults.storage.postgres import PostgresStorage


class LogEntry(NamedTuple):
    """An entry with the key in whose history it stands."""

    key: str
    entry: HistoryEntry


def log(
    storage: PostgresStorage,
    since: datetime | None = None,
    until: datetime | None = None,
    actor: str | None = None,
    action: str | None = None,
    prefix: str | None = None,
    tags: list[str] | None = None,
    limit: int | None = None,
    wanted: Wanted | None = None,
) -> Program[list[LogEntry]]:
    """The entries that meet every given condition.

    Parameters:
        storage: where they are.
        since: the first moment.
        until: the moment before which they were made.
        actor: who made them.
        action: what they say was done.
        prefix: what their keys begin with.
        tags: words that the version carries.
        limit: how many of the newest; None: all.
        wanted: how new they have to be; see `reading`.

    Raises: InvalidArgument; StorageUnavailable.
    """
    moments = {"since": since, "until": until}
    texts = {"actor": actor, "action": action, "prefix": prefix}
    given: dict[str, Any] = {name: require_moment(at, name) for name, at in moments.items() if at is not None}
    given |= {name: require_text(text, name) for name, text in texts.items() if text is not None}
    given |= {} if tags is None else {"tags": require_tags(tags)}
    parameters = {**bound(given), "storage_id": storage.id, "limit": limit}
    return (yield from reading(storage.database, lambda *_: _entries(parameters, frozenset(given)), wanted))


def _entries(parameters: Mapping[str, Any], chosen: frozenset[str]) -> Operation[list[LogEntry]]:
    rows = yield Execute(statements.log(chosen), parameters)
    return [LogEntry(key, shown_entry(Entry._make((*said, None)))) for key, *said in rows]
