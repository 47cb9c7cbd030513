"""The methods of a result store for many results at once: written, read and found in few round trips."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, overload

from pgresults.audit.changes import delete_many
from pgresults.database.programs import Program, aperform, perform
from pgresults.database.standbys import looking_back
from pgresults.operations.views import FoundResult
from pgresults.records.keys import require_keys
from pgresults.records.lineage import GivenParent
from pgresults.records.listings import Listing
from pgresults.records.records import ResultRecord, ResultRecordMetadata
from pgresults.storage import finding
from pgresults.storage.current import Unreadable
from pgresults.storage.keyspace import Keyspace
from pgresults.store import batches
from pgresults.store.bulk_writing import Item, ItemOptions, WriteProgress, Writing, write_many

_KEYS_AT_A_TIME = 100


class BulkMethods(ABC):
    """Many results at once: what a `ResultStore` does in few round trips."""

    @abstractmethod
    def _keyspace(self) -> Program[Keyspace]:
        """Where the results of the store lie."""

    @abstractmethod
    def _new_key(self) -> str:
        """A key for what has none."""

    @overload
    def write_many(
        self,
        items: Mapping[str, Any],
        expiration: datetime | None = None,
        holder: str | None = None,
        tags: Iterable[str] | None = None,
        provenance: Mapping[str, Any] | None = None,
        expires_in: timedelta | None = None,
        derived_from: Iterable[GivenParent] | None = None,
        *,
        atomic: bool = True,
        progress: Callable[[WriteProgress], None] | None = None,
    ) -> dict[str, ResultRecordMetadata]: ...

    @overload
    def write_many(
        self,
        items: Iterable[Item],
        expiration: datetime | None = None,
        holder: str | None = None,
        tags: Iterable[str] | None = None,
        provenance: Mapping[str, Any] | None = None,
        expires_in: timedelta | None = None,
        derived_from: Iterable[GivenParent] | None = None,
        *,
        atomic: bool = True,
        progress: Callable[[WriteProgress], None] | None = None,
    ) -> int: ...

    def write_many(
        self,
        items: Mapping[str, Any] | Iterable[Item],
        expiration: datetime | None = None,
        holder: str | None = None,
        tags: Iterable[str] | None = None,
        provenance: Mapping[str, Any] | None = None,
        expires_in: timedelta | None = None,
        derived_from: Iterable[GivenParent] | None = None,
        *,
        atomic: bool = True,
        progress: Callable[[WriteProgress], None] | None = None,
    ) -> dict[str, ResultRecordMetadata] | int:
        """Store any number of objects under their keys in bounded memory, all of them or none.

        Parameters:
            items: the objects by key; or an iterable of ``(key, object)`` and ``(key, object, options)``, of which a
                key that comes again is a further version. Options are what is said below of all items: ``expiration``,
                ``expires_in``, ``tags``, ``provenance``, ``derived_from``.
            expiration: when they cease to be live (aware); None: never.
            holder: who writes; None: this thread.
            tags: words to find them by.
            provenance: a JSON object to keep with each.
            expires_in: in place of expiration, how long they are live from now, by the server's clock.
            derived_from: the versions that each was computed from; see `write`.
            atomic: in one transaction, for which all of them are made ready first, in a temporary file where they are
                many; False: in one transaction for every thousand items or 2 MiB, in their order, so that after a
                failure one goes on behind those that ``progress`` counted.
            progress: told after each transaction how much is stored.

        Returns: of a mapping the metadata as stored, by key; else the number of items.
        Raises: what `write` raises, and what the iterable raises, each with a note that names the item; nothing is
            stored then, if ``atomic``.
        """
        writing = Writing(ItemOptions(expiration, expires_in, tags, provenance, derived_from), holder, atomic, progress)
        return perform(self._write_many(items, writing))

    @overload
    async def awrite_many(
        self,
        items: Mapping[str, Any],
        expiration: datetime | None = None,
        holder: str | None = None,
        tags: Iterable[str] | None = None,
        provenance: Mapping[str, Any] | None = None,
        expires_in: timedelta | None = None,
        derived_from: Iterable[GivenParent] | None = None,
        *,
        atomic: bool = True,
        progress: Callable[[WriteProgress], None] | None = None,
    ) -> dict[str, ResultRecordMetadata]: ...

    @overload
    async def awrite_many(
        self,
        items: Iterable[Item],
        expiration: datetime | None = None,
        holder: str | None = None,
        tags: Iterable[str] | None = None,
        provenance: Mapping[str, Any] | None = None,
        expires_in: timedelta | None = None,
        derived_from: Iterable[GivenParent] | None = None,
        *,
        atomic: bool = True,
        progress: Callable[[WriteProgress], None] | None = None,
    ) -> int: ...

    async def awrite_many(
        self,
        items: Mapping[str, Any] | Iterable[Item],
        expiration: datetime | None = None,
        holder: str | None = None,
        tags: Iterable[str] | None = None,
        provenance: Mapping[str, Any] | None = None,
        expires_in: timedelta | None = None,
        derived_from: Iterable[GivenParent] | None = None,
        *,
        atomic: bool = True,
        progress: Callable[[WriteProgress], None] | None = None,
    ) -> dict[str, ResultRecordMetadata] | int:
        """Store any number of objects under their keys in bounded memory; see `write_many`."""
        writing = Writing(ItemOptions(expiration, expires_in, tags, provenance, derived_from), holder, atomic, progress)
        return await aperform(self._write_many(items, writing))

    def read_many(self, keys: Iterable[str], stale_ok: timedelta | None = None) -> dict[str, ResultRecord[Any]]:
        """Read the current results of keys, as they were at one moment; keys without a live one are left out.

        Unlike `read` it waits for no locks.

        Parameters:
            keys: of which.
            stale_ok: by how much all of them may be behind; see `read`.

        Raises: InvalidKey; InvalidArgument; IntegrityError; SerializationError; StorageUnavailable.
        """
        return perform(self._read_many(keys, None, stale_ok))

    async def aread_many(self, keys: Iterable[str], stale_ok: timedelta | None = None) -> dict[str, ResultRecord[Any]]:
        """Read the current results of keys, as they were at one moment; see `read_many`."""
        return await aperform(self._read_many(keys, None, stale_ok))

    def iter_many(
        self, keys: Iterable[str], stale_ok: timedelta | None = None
    ) -> Iterator[tuple[str, ResultRecord[Any]]]:
        """Read the current results of any number of keys, of which a hundred at a time are in memory.

        Parameters:
            keys: of which; those without a live result are left out.
            stale_ok: by how much they may be behind; see `read`.

        Returns: an iterator of keys and records, in the order of the keys; a hundred are as they were at one moment.
        Raises: what `read_many` raises, when it comes to that.
        """
        left = require_keys(keys)
        while page := list(islice(left, _KEYS_AT_A_TIME)):
            yield from perform(self._read_many(page, None, stale_ok)).items()

    async def aiter_many(
        self, keys: Iterable[str], stale_ok: timedelta | None = None
    ) -> AsyncIterator[tuple[str, ResultRecord[Any]]]:
        """Read the current results of any number of keys; see `iter_many`."""
        left = require_keys(keys)
        while page := list(islice(left, _KEYS_AT_A_TIME)):
            for found in (await aperform(self._read_many(page, None, stale_ok))).items():
                yield found

    def exists_many(self, keys: Iterable[str], stale_ok: timedelta | None = None) -> set[str]:
        """Those of several keys that have a live result; reads no payload. See `exists`.

        Parameters:
            keys: of which.
            stale_ok: by how much the answer may be behind; see `read`.

        Raises: InvalidKey; InvalidArgument; StorageUnavailable.
        """
        return perform(self._exists_many(keys, stale_ok))

    async def aexists_many(self, keys: Iterable[str], stale_ok: timedelta | None = None) -> set[str]:
        """Those of several keys that have a live result; see `exists_many`."""
        return await aperform(self._exists_many(keys, stale_ok))

    def delete_many(self, keys: Iterable[str], reason: str | None = None) -> int:
        """Take the live results of several keys away, all of them or none; their history stays.

        Parameters:
            keys: of which; those without a live result are left out.
            reason: kept in their history.

        Returns: how many there were.
        Raises: what `delete` raises; nothing is deleted then.
        """
        return perform(self._delete_many(keys, reason))

    async def adelete_many(self, keys: Iterable[str], reason: str | None = None) -> int:
        """Take the live results of several keys away; see `delete_many`."""
        return await aperform(self._delete_many(keys, reason))

    def find(
        self,
        prefix: str | None = None,
        tags: Iterable[str] | None = None,
        task: str | None = None,
        flow: str | None = None,
        written_after: datetime | None = None,
        written_before: datetime | None = None,
        expires_before: datetime | None = None,
        min_size: int | None = None,
        max_size: int | None = None,
        after: str | None = None,
        limit: int | None = None,
        stale_ok: timedelta | None = None,
    ) -> Listing[FoundResult]:
        """The live results that meet every given condition, by key: all of them, unless a limit is given.

        They are found page by page, each from the last key of the one before on: whatever is written meanwhile, no
        result that stays is left out or shown twice.

        Parameters:
            prefix: what their keys begin with.
            tags: words they all carry.
            task: the name of the task that wrote them.
            flow: the name of the flow that wrote them.
            written_after: the first moment (aware) of their writing.
            written_before: the moment (aware) before which they were written.
            expires_before: the moment (aware) before which they expire.
            min_size: bytes of payload, at least.
            max_size: bytes of payload, at most.
            after: the key after which to begin, such as the last one found before; None: at the first.
            limit: how many at most; None: all.
            stale_ok: by how much the answer may be behind; None: where a standby may answer (`PGRESULTS_READ_URL`), as
                the settings say, but with what this process has written.

        Raises: InvalidArgument; StorageUnavailable.
        """
        moments = (written_after, written_before, expires_before)
        given = finding.conditions(prefix, tags, task, flow, *moments, min_size, max_size)
        return perform(self._find(given, after, limit, stale_ok))

    async def afind(
        self,
        prefix: str | None = None,
        tags: Iterable[str] | None = None,
        task: str | None = None,
        flow: str | None = None,
        written_after: datetime | None = None,
        written_before: datetime | None = None,
        expires_before: datetime | None = None,
        min_size: int | None = None,
        max_size: int | None = None,
        after: str | None = None,
        limit: int | None = None,
        stale_ok: timedelta | None = None,
    ) -> Listing[FoundResult]:
        """The live results that meet every given condition, by key; see `find`."""
        moments = (written_after, written_before, expires_before)
        given = finding.conditions(prefix, tags, task, flow, *moments, min_size, max_size)
        return await aperform(self._find(given, after, limit, stale_ok))

    def _write_many(self, items: Any, writing: Writing) -> Program[dict[str, ResultRecordMetadata] | int]:
        return (yield from write_many((yield from self._keyspace()), items, self._new_key, writing))

    def _read_many(
        self, keys: Iterable[str], unreadable: Unreadable | None = None, stale_ok: timedelta | None = None
    ) -> Program[dict[str, ResultRecord[Any]]]:
        return (yield from batches.read_many((yield from self._keyspace()), keys, unreadable, stale_ok))

    def _exists_many(self, keys: Iterable[str], stale_ok: timedelta | None) -> Program[set[str]]:
        return (yield from batches.exists_many((yield from self._keyspace()), keys, stale_ok))

    def _delete_many(self, keys: Iterable[str], reason: str | None) -> Program[int]:
        return (yield from delete_many((yield from self._keyspace()), keys, reason))

    def _find(
        self, given: dict[str, Any], after: str | None, limit: int | None, stale_ok: timedelta | None
    ) -> Program[Listing[FoundResult]]:
        storage = (yield from self._keyspace()).entries
        wanted = looking_back(storage.database, stale_ok)
        return Listing((yield from finding.find(storage, given, after, limit, wanted)), FoundResult)
