"""Reading what was: the history of a key, its earlier versions, and what it had at a moment."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from pgresults.arguments import require_moment
from pgresults.audit.entries import HistoryEntry, shown_entry
from pgresults.database.following import Wanted
from pgresults.database.observing import HIT, observed, of_record
from pgresults.database.programs import Program, compute
from pgresults.database.standbys import looking_back, reading
from pgresults.errors import InvalidArgument, MissingResult
from pgresults.operations import history as operations
from pgresults.operations.history import Entry, Past
from pgresults.operations.results import Found
from pgresults.records.keys import require_key
from pgresults.records.records import ResultRecord
from pgresults.serializers import Serializer
from pgresults.storage.current import known_as, read_current
from pgresults.storage.encoding import decode
from pgresults.storage.keyspace import Keyspace
from pgresults.storage.misses import is_live, never_written, no_such_version, payload_gone, require_live
from pgresults.storage.pointers import known_by, pointed_to, same_payload
from pgresults.storage.postgres import PostgresStorage


def history_of(
    keyspace: Keyspace, key: str, with_results: bool, stale_ok: timedelta | None = None
) -> Program[list[HistoryEntry]]:
    """The history of a key, oldest first; its results come from where the payloads lie."""
    wanted = looking_back(keyspace.entries.database, stale_ok)
    entries = yield from entries_of(keyspace.entries, keyspace.serializer, key, with_results, wanted)
    if not with_results or keyspace.apart is None:
        return entries
    shown = []
    for entry in entries:
        shown.append((yield from _with_own_result(keyspace, key, entry)))  # noqa: PERF401 (it yields)
    return shown


def _with_own_result(keyspace: Keyspace, key: str, entry: HistoryEntry) -> Program[HistoryEntry]:
    """An entry with the result that its metadata points to."""
    try:
        found = (yield from read_past(keyspace, key, entry.version, None)) if entry.has_result else None
    except MissingResult:
        found = None
    return replace(entry, result=found and found.result, has_result=found is not None)


def read_past(
    keyspace: Keyspace, key: str, version: int | None, as_of: datetime | None, stale_ok: timedelta | None = None
) -> Program[ResultRecord[Any]]:
    """Read a version of a key, or what was live at a moment; see `ResultStore.read`.

    A payload whose metadata is kept apart comes from the primary: an older one would not be the version's.
    """
    storage, serializer = keyspace.entries, keyspace.serializer
    if version is not None and as_of is not None:
        raise InvalidArgument("give version or as_of, not both", argument="as_of", value=as_of)
    if version is not None:
        record = yield from read_version(storage, serializer, key, version, looking_back(storage.database, stale_ok))
    else:
        moment = require_moment(as_of, "as_of")
        wanted = looking_back(storage.database, stale_ok, moment)
        record = yield from read_as_of(storage, serializer, key, moment, wanted)
    if keyspace.apart is None:
        return record
    payload = yield from read_current(keyspace.payloads, serializer, pointed_to(record))
    return known_by(record, same_payload(payload, record, key))


def entries_of(
    storage: PostgresStorage, serializer: Serializer, key: str, with_results: bool, wanted: Wanted | None = None
) -> Program[list[HistoryEntry]]:
    """The history of a key, oldest first, with the results that are still there if asked for."""
    checked = require_key(key)
    found = yield from reading(
        storage.database, lambda *_: operations.entries(storage.id, checked), wanted, believed=bool
    )
    if not with_results:
        return [shown_entry(entry) for entry in found]
    results: dict[int, Any] = {}
    shown = []
    for entry in found:
        if _has_payload(entry) and entry.version not in results:
            record = yield from read_version(storage, serializer, key, entry.version, wanted)
            results[entry.version] = record.result
        present = _has_payload(entry)
        shown.append(
            replace(shown_entry(entry), result=results.get(entry.version) if present else None, has_result=present)
        )
    return shown


def _has_payload(entry: Entry) -> bool:
    return entry.payload_id is not None and entry.sha256 is not None


@observed("read", lambda storage, _, key, *__: storage._about(key), of_record)
def read_version(
    storage: PostgresStorage, serializer: Serializer, key: str, version: int, wanted: Wanted | None = None
) -> Program[ResultRecord[Any]]:
    """Read a version of a key, current or not, expired or not, as long as its payload is kept."""
    found = yield from find_version(storage, key, version, wanted)
    return (yield from _decoded(storage, serializer, key, found))


@observed("read", lambda storage, _, key, *__: storage._about(key), of_record)
def read_as_of(
    storage: PostgresStorage, serializer: Serializer, key: str, moment: datetime, wanted: Wanted | None = None
) -> Program[ResultRecord[Any]]:
    """Read what was live under a key at a moment."""
    found = yield from find_as_of(storage, key, moment, wanted)
    return (yield from _decoded(storage, serializer, key, found))


def find_version(storage: PostgresStorage, key: str, version: int, wanted: Wanted | None = None) -> Program[Found]:
    """Find a version of a key with its payload; see `reading` for how new it has to be."""
    if not isinstance(version, int) or not 0 < version < 2**63:
        raise InvalidArgument("version is a number from 1 on", argument="version", value=version)
    yield from storage._trusted()
    checked = require_key(key)
    past = yield from reading(
        storage.database, lambda *_: operations.read_version(storage.id, checked, version), wanted, believed=_is_there
    )
    if past is None:
        raise no_such_version(key, version)
    return _present(past, key)


def find_as_of(storage: PostgresStorage, key: str, moment: datetime, wanted: Wanted | None = None) -> Program[Found]:
    """Find what was live under a key at a moment, with its payload; see `reading` for how new it has to be."""
    yield from storage._trusted()
    checked = require_key(key)
    past = yield from reading(
        storage.database, lambda *_: operations.read_as_of(storage.id, checked, moment), wanted, believed=_was_live
    )
    if past is None:
        raise never_written(key, moment)
    if past.removal is None:
        require_live(past.found, key)
    return _present(past, key)


def _decoded(storage: PostgresStorage, serializer: Serializer, key: str, found: Found) -> Program[ResultRecord[Any]]:
    small = storage._is_small(found.payload or b"")
    record = yield from compute(lambda: decode(found, key, serializer, storage._trust), small=small)
    return known_as(storage, key, record)


def _is_there(past: Past | None) -> bool:
    return past is not None and past.removal is None


def _was_live(past: Past | None) -> bool:
    return past is not None and past.removal is None and is_live(past.found)


def _present(past: Past, key: str) -> Found:
    if past.removal is None:
        return past.found
    raise payload_gone(key, past.found.head.version, past.removal)


@observed("exists", lambda storage, key, *_: storage._about(key), lambda found: {HIT: found})
def exists_as_of(storage: PostgresStorage, key: str, moment: datetime, wanted: Wanted | None = None) -> Program[bool]:
    """Whether something was live under a key at a moment."""
    checked = require_key(key)
    return reading(
        storage.database, lambda *_: operations.exists_as_of(storage.id, checked, moment), wanted, believed=bool
    )
