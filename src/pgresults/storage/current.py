"""Reading what is current under a key."""

from typing import Any

from pgresults.database.observing import observed, of_record
from pgresults.database.programs import Program, compute
from pgresults.operations.results import Head
from pgresults.records.keys import require_key
from pgresults.records.records import ResultRecord
from pgresults.serializers import Serializer
from pgresults.storage.cache import Kept, ResultCache
from pgresults.storage.checking import require_signed
from pgresults.storage.encoding import decode, loaded, metadata_of
from pgresults.storage.misses import require_live
from pgresults.storage.postgres import PostgresStorage


@observed("read", lambda storage, _serializer, key, _cache=None: storage._about(key), of_record)
def read_current(
    storage: PostgresStorage, serializer: Serializer, key: str, cache: ResultCache | None = None
) -> Program[ResultRecord[Any]]:
    """Read the current result of a key in a storage.

    Parameters:
        storage: where it lies.
        serializer: for a payload that names none.
        key: where it is.
        cache: payloads that need not be fetched again while they are the key's.

    Raises: MissingResult with the reason; IntegrityError; SerializationError; StorageUnavailable.
    """
    place = (storage.id, require_key(key))
    kept = cache.kept(place) if cache is not None else None
    found = require_live((yield from storage._fetch(key, None if kept is None else kept.payload_id)), key)
    if kept is not None and found.head.payload_id == kept.payload_id:
        require_signed(found.head, key, storage._trust)
        return (yield from _again(storage, serializer, key, kept, found.head))
    record = yield from compute(
        lambda: decode(found, key, serializer, storage._trust), small=storage._is_small(found.payload or b"")
    )
    if cache is not None:
        cache.keep(place, found.head, found.payload, record.result)
    return record


def _again(
    storage: PostgresStorage, serializer: Serializer, key: str, kept: Kept, head: Head
) -> Program[ResultRecord[Any]]:
    """The record of a payload that was checked when it was read first."""
    metadata, payload = metadata_of(head, key, serializer, storage._trust), kept.payload
    if payload is None:
        return ResultRecord.model_construct(metadata=metadata, result=kept.result)
    return (yield from compute(lambda: loaded(metadata, payload, storage._trust), small=storage._is_small(payload)))
