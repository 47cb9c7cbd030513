"""Reading what was: the history of a key, its earlier versions, and what it had at a moment."""

from dataclasses import replace
from datetime import datetime
from typing import Any

from pgresults.arguments import require_moment
from pgresults.audit.entries import HistoryEntry, shown_entry
from pgresults.database.observing import HIT, observed, of_record
from pgresults.database.programs import Program, call, compute
from pgresults.errors import InvalidArgument, MissingResult
from pgresults.operations import history as operations
from pgresults.operations.history import Entry, Past
from pgresults.operations.results import Found
from pgresults.records.keys import require_key
from pgresults.records.records import ResultRecord
from pgresults.serializers import Serializer
from pgresults.storage.current import read_current
from pgresults.storage.encoding import decode
from pgresults.storage.keyspace import Keyspace
from pgresults.storage.misses import never_written, no_such_version, payload_gone, require_live
from pgresults.storage.pointers import pointed_to, same_payload
from pgresults.storage.postgres import PostgresStorage


def history_of(keyspace: Keyspace, key: str, with_results: bool) -> Program[list[HistoryEntry]]:
    """The history of a key, oldest first; its results come from where the payloads lie."""
    entries = yield from entries_of(keyspace.entries, keyspace.serializer, key, with_results)
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


def read_past(keyspace: Keyspace, key: str, version: int | None, as_of: datetime | None) -> Program[ResultRecord[Any]]:
    """Read a version of a key, or what was live at a moment; see `ResultStore.read`."""
    storage, serializer = keyspace.entries, keyspace.serializer
    if version is not None and as_of is not None:
        raise InvalidArgument("give version or as_of, not both", argument="as_of", value=as_of)
    if version is not None:
        record = yield from read_version(storage, serializer, key, version)
    else:
        record = yield from read_as_of(storage, serializer, key, require_moment(as_of, "as_of"))
    if keyspace.apart is None:
        return record
    payload = yield from read_current(keyspace.payloads, serializer, pointed_to(record))
    return same_payload(payload, record, key)


def entries_of(
    storage: PostgresStorage, serializer: Serializer, key: str, with_results: bool
) -> Program[list[HistoryEntry]]:
    """The history of a key, oldest first, with the results that are still there if asked for."""
    found = yield from call(storage.database, lambda _: operations.entries(storage.id, require_key(key)))
    if not with_results:
        return [shown_entry(entry) for entry in found]
    results: dict[int, Any] = {}
    shown = []
    for entry in found:
        if _has_payload(entry) and entry.version not in results:
            record = yield from read_version(storage, serializer, key, entry.version)
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
    storage: PostgresStorage, serializer: Serializer, key: str, version: int
) -> Program[ResultRecord[Any]]:
    """Read a version of a key, current or not, expired or not, as long as its payload is kept."""
    found = yield from find_version(storage, key, version)
    return (yield from _decoded(storage, serializer, key, found))


@observed("read", lambda storage, _, key, *__: storage._about(key), of_record)
def read_as_of(
    storage: PostgresStorage, serializer: Serializer, key: str, moment: datetime
) -> Program[ResultRecord[Any]]:
    """Read what was live under a key at a moment."""
    found = yield from find_as_of(storage, key, moment)
    return (yield from _decoded(storage, serializer, key, found))


def find_version(storage: PostgresStorage, key: str, version: int) -> Program[Found]:
    """Find a version of a key with its payload."""
    if not isinstance(version, int) or not 0 < version < 2**63:
        raise InvalidArgument("version is a number from 1 on", argument="version", value=version)
    yield from storage._trusted()
    past = yield from call(storage.database, lambda _: operations.read_version(storage.id, require_key(key), version))
    if past is None:
        raise no_such_version(key, version)
    return _present(past, key)


def find_as_of(storage: PostgresStorage, key: str, moment: datetime) -> Program[Found]:
    """Find what was live under a key at a moment, with its payload."""
    yield from storage._trusted()
    past = yield from call(storage.database, lambda _: operations.read_as_of(storage.id, require_key(key), moment))
    if past is None:
        raise never_written(key, moment)
    if past.removal is None:
        require_live(past.found, key)
    return _present(past, key)


def _decoded(storage: PostgresStorage, serializer: Serializer, key: str, found: Found) -> Program[ResultRecord[Any]]:
    small = storage._is_small(found.payload or b"")
    return compute(lambda: decode(found, key, serializer, storage._trust), small=small)


def _present(past: Past, key: str) -> Found:
    if past.removal is None:
        return past.found
    raise payload_gone(key, past.found.head.version, past.removal)


@observed("exists", lambda storage, key, _: storage._about(key), lambda found: {HIT: found})
def exists_as_of(storage: PostgresStorage, key: str, moment: datetime) -> Program[bool]:
    """Whether something was live under a key at a moment."""
    return call(storage.database, lambda _: operations.exists_as_of(storage.id, require_key(key), moment))
