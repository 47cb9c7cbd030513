"""Reading what is current under a key, or under several."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from pgresults.database.following import Wanted
from pgresults.database.observing import observed, of_record
from pgresults.database.programs import Program, compute
from pgresults.database.standbys import reading
from pgresults.errors import SerializationError
from pgresults.operations.results import Found, Head, read_all
from pgresults.records.keys import require_key
from pgresults.records.lineage import Origin
from pgresults.records.records import ResultRecord
from pgresults.serializers import Serializer
from pgresults.storage.cache import Kept, ResultCache
from pgresults.storage.checking import require_signed
from pgresults.storage.encoding import decode, loaded, metadata_of
from pgresults.storage.misses import is_live, require_live
from pgresults.storage.postgres import PostgresStorage


@observed("read", lambda storage, _serializer, key, *_: storage._about(key), of_record)
def read_current(
    storage: PostgresStorage,
    serializer: Serializer,
    key: str,
    cache: ResultCache | None = None,
    wanted: Wanted | None = None,
) -> Program[ResultRecord[Any]]:
    """Read the current result of a key in a storage.

    Parameters:
        storage: where it lies.
        serializer: for a payload that names none.
        key: where it is.
        cache: payloads that need not be fetched again while they are the key's.
        wanted: how new it has to be; see `reading`.

    Raises: MissingResult with the reason; IntegrityError; SerializationError; StorageUnavailable.
    """
    place = (storage.id, require_key(key))
    kept = cache.kept(place) if cache is not None else None
    known = None if kept is None else kept.payload_id
    found = require_live((yield from storage._fetch(key, known, wanted)), key)
    if kept is not None and found.head.payload_id == kept.payload_id:
        require_signed(found.head, key, storage._trust)
        return known_as(storage, key, (yield from _again(storage, serializer, key, kept, found.head)))
    payload = found.payload or b""
    keeps = cache is not None and len(payload) <= cache.max_bytes
    record = yield from compute(
        lambda: decode(found, key, serializer, storage._trust, spend=not keeps), small=storage._is_small(payload)
    )
    if cache is not None:
        cache.keep(place, found.head, found.payload, record.result)
    return known_as(storage, key, record)


def known_as(storage: PostgresStorage, key: str, record: ResultRecord[Any]) -> ResultRecord[Any]:
    """A record that was read, which knows now as which version, for what is computed from it."""
    metadata = record.metadata
    metadata._known_as(Origin(key, storage.database.place, storage.id, metadata.version))
    return record


def _again(
    storage: PostgresStorage, serializer: Serializer, key: str, kept: Kept, head: Head
) -> Program[ResultRecord[Any]]:
    """The record of a payload that was checked when it was read first."""
    metadata, payload = metadata_of(head, key, serializer, storage._trust), kept.payload
    if payload is None:
        return ResultRecord.model_construct(metadata=metadata, result=kept.result)
    return (yield from compute(lambda: loaded(metadata, payload, storage._trust), small=storage._is_small(payload)))


Unreadable: TypeAlias = Callable[[str, SerializationError], None]
"""Told of a key whose result cannot be loaded, and why."""


def read_all_current(
    storage: PostgresStorage,
    serializer: Serializer,
    keys: Sequence[str],
    unreadable: Unreadable | None = None,
    wanted: Wanted | None = None,
) -> Program[dict[str, ResultRecord[Any]]]:
    """Read the current results of keys in a storage, as they were at one moment; those without one are left out.

    Parameters:
        storage: where they lie.
        serializer: for payloads that name none.
        keys: of which.
        unreadable: told of what cannot be loaded, which then is left out; None: that raises.
        wanted: how new they have to be; see `reading`.

    Raises: IntegrityError; SerializationError; StorageUnavailable.
    """
    if not keys:
        return {}
    trust = yield from storage._trusted()

    def live_in(found: dict[str, Found]) -> dict[str, Found]:
        return {key: found[key] for key in keys if is_live(found.get(key))}

    live = live_in(
        (
            yield from reading(
                storage.database,
                lambda at, _: read_all(storage.id, keys, storage._look(at)),
                wanted,
                believed=lambda found: len(live_in(found)) == len(set(keys)),
            )
        )
    )
    size = sum(len(one.payload or b"") for one in live.values())

    def decode_all() -> dict[str, ResultRecord[Any]]:
        records = {}
        for key, one in live.items():
            try:
                records[key] = known_as(storage, key, decode(one, key, serializer, trust))
            except SerializationError as error:
                if unreadable is None:
                    raise
                unreadable(key, error)
        return records

    return (yield from compute(decode_all, small=size <= storage.settings.offload_bytes))
