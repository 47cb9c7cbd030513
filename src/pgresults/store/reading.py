"""Reading results by key: the current one, an earlier one, or whether there is one."""

from datetime import datetime
from typing import Any

from pgresults.arguments import require_moment, require_text
from pgresults.audit.past import exists_as_of, read_past
from pgresults.database.programs import Program, aperform, perform
from pgresults.errors import InvalidArgument
from pgresults.locking.proofs import await_others
from pgresults.records.keys import require_key
from pgresults.records.provenance import default_holder
from pgresults.records.records import ResultRecord, ResultRecordMetadata
from pgresults.storage.cache import ResultCache
from pgresults.storage.current import read_current
from pgresults.storage.keyspace import Keyspace
from pgresults.storage.pointers import pointed_to
from pgresults.storage.registry import require_postgres, resolving, resolving_default


def read(
    keyspace: Keyspace,
    key: str,
    holder: str | None = None,
    version: int | None = None,
    as_of: datetime | None = None,
    cache: ResultCache | None = None,
) -> Program[ResultRecord[Any]]:
    """Read a result; see `ResultStore.read`."""
    if version is not None or as_of is not None:
        return (yield from read_past(keyspace, key, version, as_of))
    if keyspace.locks is not None:
        reader = require_text(holder, "holder") or default_holder()
        yield from await_others(keyspace.locks, require_key(key), reader, keyspace.payloads.settings.read_lock_timeout)
    return (yield from read_at_once(keyspace, key, cache))


def read_at_once(keyspace: Keyspace, key: str, cache: ResultCache | None = None) -> Program[ResultRecord[Any]]:
    """Read what is current under a key, whoever has its lock; see `ResultStore.read`."""
    storage, serializer = keyspace.payloads, keyspace.serializer
    if keyspace.apart is not None:
        key = pointed_to((yield from read_current(keyspace.apart, serializer, key, cache)))
    return (yield from read_current(storage, serializer, key, cache))


def exists(keyspace: Keyspace, key: str, as_of: datetime | None) -> Program[bool]:
    """Whether a key has, or had at a moment, a live result; see `ResultStore.exists`."""
    if as_of is None:
        return keyspace.entries._has(require_key(key))
    return exists_as_of(keyspace.entries, key, require_moment(as_of, "as_of"))


class _Source:
    """Reads the record that metadata belongs to."""

    def read(self, metadata: ResultRecordMetadata) -> ResultRecord[Any]:
        return perform(self._read(metadata))

    async def aread(self, metadata: ResultRecordMetadata) -> ResultRecord[Any]:
        return await aperform(self._read(metadata))

    def _read(self, metadata: ResultRecordMetadata) -> Program[ResultRecord[Any]]:
        if metadata.storage_key is None:
            raise InvalidArgument("metadata without a storage key points to nothing", argument="metadata")
        block = metadata.storage_block_id
        storage = require_postgres((yield from (resolving_default() if block is None else resolving(block))))
        return (yield from read_current(storage, metadata.serializer, metadata.storage_key))


ResultRecord._source = _Source()
