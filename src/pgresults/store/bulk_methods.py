"""The methods of a result store for many results at once: written, read and found in few round trips."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from pgresults.database.programs import Program, aperform, perform
from pgresults.operations.views import FoundResult
from pgresults.records.listings import Listing
from pgresults.records.records import ResultRecord, ResultRecordMetadata
from pgresults.storage import finding
from pgresults.storage.keyspace import Keyspace
from pgresults.store import batches


class BulkMethods(ABC):
    """Many results at once: what a `ResultStore` does in few round trips."""

    @abstractmethod
    def _keyspace(self) -> Program[Keyspace]:
        """Where the results of the store lie."""

    @abstractmethod
    def _new_key(self) -> str:
        """A key for what has none."""

    def write_many(
        self,
        items: Mapping[str, Any],
        expiration: datetime | None = None,
        holder: str | None = None,
        tags: Iterable[str] | None = None,
        provenance: Mapping[str, Any] | None = None,
        expires_in: timedelta | None = None,
    ) -> dict[str, ResultRecordMetadata]:
        """Store objects under their keys, all of them or none.

        Parameters:
            items: the objects by key.
            expiration: when they cease to be live (aware); None: never.
            holder: who writes; None: this thread.
            tags: words to find them by.
            provenance: a JSON object to keep with each.
            expires_in: in place of expiration, how long they are live from now, by the server's clock.

        Returns: the metadata as stored, by key.
        Raises: what `write` raises; nothing is stored then.
        """
        return perform(self._write_many(items, expiration, holder, tags, provenance, expires_in))

    async def awrite_many(
        self,
        items: Mapping[str, Any],
        expiration: datetime | None = None,
        holder: str | None = None,
        tags: Iterable[str] | None = None,
        provenance: Mapping[str, Any] | None = None,
        expires_in: timedelta | None = None,
    ) -> dict[str, ResultRecordMetadata]:
        """Store objects under their keys, all of them or none; see `write_many`."""
        return await aperform(self._write_many(items, expiration, holder, tags, provenance, expires_in))

    def read_many(self, keys: Iterable[str]) -> dict[str, ResultRecord[Any]]:
        """Read the current results of keys, as they were at one moment; keys without a live one are left out.

        Unlike `read` it waits for no locks.

        Raises: InvalidKey; InvalidArgument; IntegrityError; SerializationError; StorageUnavailable.
        """
        return perform(self._read_many(keys))

    async def aread_many(self, keys: Iterable[str]) -> dict[str, ResultRecord[Any]]:
        """Read the current results of keys, as they were at one moment; see `read_many`."""
        return await aperform(self._read_many(keys))

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

        Raises: InvalidArgument; StorageUnavailable.
        """
        moments = (written_after, written_before, expires_before)
        given = finding.conditions(prefix, tags, task, flow, *moments, min_size, max_size)
        return perform(self._find(given, after, limit))

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
    ) -> Listing[FoundResult]:
        """The live results that meet every given condition, by key; see `find`."""
        moments = (written_after, written_before, expires_before)
        given = finding.conditions(prefix, tags, task, flow, *moments, min_size, max_size)
        return await aperform(self._find(given, after, limit))

    def _write_many(
        self,
        items: Mapping[str, Any],
        expiration: datetime | None,
        holder: str | None,
        tags: Iterable[str] | None,
        provenance: Mapping[str, Any] | None,
        expires_in: timedelta | None,
    ) -> Program[dict[str, ResultRecordMetadata]]:
        keyspace, new_key = (yield from self._keyspace()), self._new_key
        return (
            yield from batches.write_many(keyspace, items, new_key, expiration, holder, tags, provenance, expires_in)
        )

    def _read_many(
        self, keys: Iterable[str], unreadable: batches.Unreadable | None = None
    ) -> Program[dict[str, ResultRecord[Any]]]:
        return (yield from batches.read_many((yield from self._keyspace()), keys, unreadable))

    def _find(self, given: dict[str, Any], after: str | None, limit: int | None) -> Program[Listing[FoundResult]]:
        return Listing(
            (yield from finding.find((yield from self._keyspace()).entries, given, after, limit)), FoundResult
        )
