"""Reading results by key: the current one, an earlier one, or whether there is one."""

from datetime import datetime, timedelta
from typing import Any

from pgresults.arguments import require_moment, require_text
from pgresults.audit.past import exists_as_of, find_version, read_past
from pgresults.database.following import Wanted
from pgresults.database.programs import Program, aperform, perform
from pgresults.database.standbys import current, looking_back
from pgresults.errors import ConfigurationError, InvalidArgument, MissingResult
from pgresults.locking.proofs import await_others
from pgresults.records.keys import require_key
from pgresults.records.lineage import note
from pgresults.records.provenance import default_holder
from pgresults.records.records import ResultRecord, ResultRecordMetadata
from pgresults.storage.cache import ResultCache
from pgresults.storage.current import read_current
from pgresults.storage.keyspace import Keyspace
from pgresults.storage.pointers import known_by, pointed_to
from pgresults.storage.postgres import PostgresStorage
from pgresults.storage.registry import require_postgres, resolving, resolving_default


def read(
    keyspace: Keyspace,
    key: str,
    holder: str | None = None,
    version: int | None = None,
    as_of: datetime | None = None,
    cache: ResultCache | None = None,
    stale_ok: timedelta | None = None,
) -> Program[ResultRecord[Any]]:
    """Read a result, of which the run around takes note; see `ResultStore.read`."""
    if version is not None or as_of is not None:
        return _noted((yield from read_past(keyspace, key, version, as_of, stale_ok)))
    wanted = current(stale_ok)
    if keyspace.locks is not None and wanted is None:
        reader = require_text(holder, "holder") or default_holder()
        yield from await_others(keyspace.locks, require_key(key), reader, keyspace.payloads.settings.read_lock_timeout)
    return _noted((yield from read_at_once(keyspace, key, cache, wanted)))


def _noted(record: ResultRecord[Any]) -> ResultRecord[Any]:
    """A record that was read, of which the run around takes note."""
    note([record._origin])
    return record


def read_at_once(
    keyspace: Keyspace, key: str, cache: ResultCache | None = None, wanted: Wanted | None = None
) -> Program[ResultRecord[Any]]:
    """Read what is current under a key, whoever has its lock; see `ResultStore.read`."""
    storage, serializer = keyspace.payloads, keyspace.serializer
    if keyspace.apart is None:
        return (yield from read_current(storage, serializer, key, cache, wanted))
    pointer = yield from read_current(keyspace.apart, serializer, key, cache, wanted)
    return known_by(pointer, (yield from read_current(storage, serializer, pointed_to(pointer), cache, wanted)))


def exists(keyspace: Keyspace, key: str, as_of: datetime | None, stale_ok: timedelta | None = None) -> Program[bool]:
    """Whether a key has, or had at a moment, a live result; see `ResultStore.exists`."""
    storage = keyspace.entries
    if as_of is None:
        return storage._has(require_key(key), current(stale_ok))
    moment = require_moment(as_of, "as_of")
    return exists_as_of(storage, key, moment, looking_back(storage.database, stale_ok, moment))


class _Source:
    """Reads the record that metadata belongs to."""

    def read(self, metadata: ResultRecordMetadata) -> ResultRecord[Any]:
        return perform(self._read(metadata))

    async def aread(self, metadata: ResultRecordMetadata) -> ResultRecord[Any]:
        return await aperform(self._read(metadata))

    def _read(self, metadata: ResultRecordMetadata) -> Program[ResultRecord[Any]]:
        key, block = metadata.storage_key, metadata.storage_block_id
        if key is None:
            raise InvalidArgument("metadata without a storage key points to nothing", argument="metadata")
        storage = require_postgres((yield from (resolving_default() if block is None else resolving(block))))
        try:
            record = yield from read_current(storage, metadata.serializer, key)
        except MissingResult as missing:
            if missing.reason != "never written":
                raise
            raise _written_elsewhere(metadata, storage) from missing
        if not (yield from _has_been(record, metadata, storage)):
            raise _written_elsewhere(metadata, storage)
        return _noted(record)


def _has_been(current: ResultRecord[Any], metadata: ResultRecordMetadata, storage: PostgresStorage) -> Program[bool]:
    """Whether what is current under a key is, or has taken the place of, the version that metadata is of."""
    version, key = metadata.version, metadata.storage_key
    if version is None or metadata.sha256 in (None, current.metadata.sha256) or key is None:
        return True
    if version >= (current.metadata.version or 0):
        return False
    try:
        found = yield from find_version(storage, key, version)
    except MissingResult as missing:
        return missing.reason != "no such version"  # its payload is gone, but there was one
    return found.head.sha256 is not None and found.head.sha256.hex() == metadata.sha256


def _written_elsewhere(metadata: ResultRecordMetadata, storage: PostgresStorage) -> ConfigurationError:
    named = (
        "names no registered storage" if metadata.storage_block_id is None else "names a storage of another database"
    )
    return ConfigurationError(
        f"the metadata of {metadata.storage_key!r} {named}, and {storage!r} is not where it was written. Have "
        "PGRESULTS_DATABASE_URL name the database where it was and register its storage there with save(), so that "
        "metadata says where it is; or read it with ResultStore(result_storage=...)",
        setting="result_storage",
    )


ResultRecord._source = _Source()
