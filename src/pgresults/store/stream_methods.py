"""The methods of a result store for payloads that do not fit into memory."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from pgresults.database.programs import Program, aperform, perform
from pgresults.records.lineage import GivenParent
from pgresults.storage.keyspace import Keyspace
from pgresults.store import stream_reading, stream_writing
from pgresults.store.stream_reading import AsyncResultReader, Outgoing, ResultReader
from pgresults.store.stream_writing import AsyncResultWriter, Incoming, ResultWriter, StreamOptions


class StreamMethods(ABC):
    """What a `ResultStore` writes and reads piece by piece."""

    @abstractmethod
    def _keyspace(self) -> Program[Keyspace]:
        """Where the results of the store lie."""

    @abstractmethod
    def _new_key(self) -> str:
        """A key for what has none."""

    def open_write(
        self,
        key: str,
        expiration: datetime | None = None,
        holder: str | None = None,
        tags: Iterable[str] | None = None,
        provenance: Mapping[str, Any] | None = None,
        expires_in: timedelta | None = None,
        derived_from: Iterable[GivenParent] | None = None,
    ) -> ResultWriter:
        """Open a file whose bytes become the next version of a key when it is closed.

        What is written waits in a temporary file without a name. Nothing is stored when a ``with`` block ends with an
        exception, and when the process dies. `read` gives the result as ``bytes``.

        Parameters:
            key: where to store it.
            expiration: when it ceases to be live (aware); None: never.
            holder: who writes; None: this thread.
            tags: words to find it by.
            provenance: a JSON object to keep with the version.
            expires_in: in place of expiration, how long it is live from when it is closed, by the server's clock.
            derived_from: the versions it is computed from; see `write`.

        Raises: InvalidKey; InvalidArgument; LockedError. What `write` raises else is raised by ``close``.
        """
        options = StreamOptions(expiration, holder, tags, provenance, expires_in, derived_from)
        return ResultWriter(perform(self._open_write(key, options)))

    async def aopen_write(
        self,
        key: str,
        expiration: datetime | None = None,
        holder: str | None = None,
        tags: Iterable[str] | None = None,
        provenance: Mapping[str, Any] | None = None,
        expires_in: timedelta | None = None,
        derived_from: Iterable[GivenParent] | None = None,
    ) -> AsyncResultWriter:
        """Open a file whose bytes become the next version of a key when it is closed; see `open_write`."""
        options = StreamOptions(expiration, holder, tags, provenance, expires_in, derived_from)
        return AsyncResultWriter(await aperform(self._open_write(key, options)))

    def open_read(self, key: str, holder: str | None = None) -> ResultReader:
        """Open the payload of a key's current result as a binary file, to be read from anywhere.

        The payload is what the serializer gave: of what `open_write` stored, the bytes themselves. All of it is read
        and checked once before the first byte is given out, and each chunk again when it is read.

        Parameters:
            key: where it is.
            holder: who reads; None: this thread.

        Raises: what `read` raises. A version that is superseded while it is read raises MissingResult.
        """
        return ResultReader(perform(self._open_read(key, holder)))

    async def aopen_read(self, key: str, holder: str | None = None) -> AsyncResultReader:
        """Open the payload of a key's current result as a binary file; see `open_read`."""
        return AsyncResultReader(await aperform(self._open_read(key, holder)))

    def _open_write(self, key: str, options: StreamOptions) -> Program[Incoming]:
        return (yield from stream_writing.opened((yield from self._keyspace()), key, options, self._new_key))

    def _open_read(self, key: str, holder: str | None, seen: Callable[[int], None] | None = None) -> Program[Outgoing]:
        return (yield from stream_reading.opened((yield from self._keyspace()), key, holder, seen))
