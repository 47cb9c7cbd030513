"""Reading what is current under a key."""

from typing import Any

from pgresults.database.programs import Program, compute
from pgresults.records.keys import require_key
from pgresults.records.records import ResultRecord
from pgresults.serializers import Serializer
from pgresults.storage.cache import ResultCache
from pgresults.storage.checking import require_signed
from pgresults.storage.encoding import decode, metadata_of
from pgresults.storage.misses import require_live
from pgresults.storage.postgres import PostgresStorage


def read_current(
    storage: PostgresStorage, serializer: Serializer, key: str, cache: ResultCache | None = None
) -> Program[ResultRecord[Any]]:
    """Read the current result of a key in a storage.

    Parameters:
        storage: where it lies.
        serializer: for a payload that names none.
        key: where it is.
        cache: records that need not be fetched again while their payload is the key's.

    Raises: MissingResult with the reason; IntegrityError; SerializationError; StorageUnavailable.
    """
    place = (storage.id, require_key(key))
    known = cache.payload_id(place) if cache is not None else None
    found = require_live((yield from storage._fetch(key, known)), key)
    if cache is not None and found.head.payload_id == known and (kept := cache.record(place, known)):
        require_signed(found.head, key, storage._trust)
        return kept.model_copy(update={"metadata": metadata_of(found.head, key, serializer)})
    if found.payload is None:  # the memory forgot it between the question and the answer
        found = require_live((yield from storage._fetch(key)), key)
    record = yield from compute(
        lambda: decode(found, key, serializer, storage._trust), small=storage._is_small(found.payload or b"")
    )
    if cache is not None:
        cache.keep(place, found.head, record)
    return record
