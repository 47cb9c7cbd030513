"""Reading a payload piece by piece, of which nothing is given out before all of it was checked.

Opening reads the whole payload once and keeps the digests of its chunks; what is read later is fetched chunk by chunk
and compared with them. So memory stays small, and one can go anywhere in it.
"""

import hashlib
import io
from collections.abc import AsyncIterator, Callable
from functools import partial
from types import TracebackType
from typing import Any, Self

from pgresults.arguments import require_text
from pgresults.database.observing import HIT, SIZE, observed
from pgresults.database.programs import Program, aperform, call, compute, perform
from pgresults.errors import IntegrityError, InvalidArgument
from pgresults.locking.proofs import await_others
from pgresults.operations import results, streams
from pgresults.operations.requests import Operation
from pgresults.operations.results import Head
from pgresults.records.keys import require_key
from pgresults.records.lineage import Origin, note
from pgresults.records.provenance import default_holder
from pgresults.records.records import ResultRecordMetadata
from pgresults.storage.checking import require_signed
from pgresults.storage.current import read_current
from pgresults.storage.encoding import metadata_of
from pgresults.storage.keyspace import Keyspace
from pgresults.storage.misses import require_live, went_meanwhile
from pgresults.storage.pointers import pointed_to
from pgresults.storage.postgres import PostgresStorage

_BUFFER = 64 * 1024


class Outgoing:
    """A checked payload, of which one chunk at a time is in memory.

    Parameters:
        storage: where it lies.
        key: under which key.
        head: what its row said.
        digests: what was seen when it was checked.
        first: its first chunk.
        metadata: what is known about it.
    """

    def __init__(
        self,
        storage: PostgresStorage,
        key: str,
        head: Head,
        digests: streams.Digests,
        first: bytes,
        metadata: ResultRecordMetadata,
    ) -> None:
        self._storage, self._key, self._head = storage, key, head
        self._digests, self._chunk_size = digests, len(first)
        self._kept = (0, first)
        self.metadata = metadata
        self.size = digests.size
        self.position = 0
        self.closed = False

    def read(self, size: int) -> Program[bytes]:
        """Bytes from the position on, at most so many and at most to the end of a chunk; moves the position."""
        if self.closed:
            raise InvalidArgument("the file is closed", argument="file")
        if size <= 0 or self.position >= self.size:
            return b""
        number, offset = divmod(self.position, self._chunk_size)
        piece = (yield from self._chunk(number))[offset : offset + size]
        self.position += len(piece)
        return piece

    def seek(self, offset: int, whence: int) -> int:
        """Move the position; see ``io.IOBase.seek``."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.size}.get(whence)
        if start is None or start + offset < 0:
            raise InvalidArgument(f"there is no place {offset} from {whence}", argument="offset", value=offset)
        self.position = start + offset
        return self.position

    def _chunk(self, number: int) -> Program[bytes]:
        if self._kept[0] == number:
            return self._kept[1]
        place = {"storage_id": self._storage.id, "key": self._key, "payload_id": self._head.payload_id}
        data = yield from call(self._storage.database, lambda _: streams.chunk(place, number))
        if data is None:
            raise went_meanwhile(self._key)
        small = len(data) <= self._storage.settings.offload_bytes
        if (yield from compute(lambda: hashlib.sha256(data).digest(), small=small)) != self._digests.chunks[number]:
            raise _damaged(self._key, self._head)
        self._kept = (number, data)
        return data


def opened(
    keyspace: Keyspace, key: str, holder: str | None, seen: Callable[[int], None] | None = None
) -> Program[Outgoing]:
    """Check a payload that is to be read piece by piece; see `ResultStore.open_read`.

    ``seen`` is told, for a bar on a terminal, how many bytes of a large one were checked so far.
    """
    storage, holder = keyspace.payloads, require_text(holder, "holder") or default_holder()
    key = require_key(key)
    if keyspace.locks is not None:
        yield from await_others(keyspace.locks, key, holder, storage.settings.read_lock_timeout)
    outgoing = yield from _checked(keyspace, key, seen)
    note([outgoing.metadata._origin])
    return outgoing


@observed(
    "read", lambda keyspace, key, _: keyspace.payloads._about(key), lambda checked: {HIT: True, SIZE: checked.size}
)
def _checked(keyspace: Keyspace, key: str, seen: Callable[[int], None] | None) -> Program[Outgoing]:
    storage, pointer = keyspace.payloads, None
    if keyspace.apart is not None:
        pointer = yield from read_current(keyspace.apart, keyspace.serializer, key)
        key = pointed_to(pointer)
    trust = yield from storage._trusted()
    while True:
        found = require_live(
            (yield from call(storage.database, lambda _: results.read_first(storage.id, key, storage._look()))), key
        )
        head, first = found.head, bytes(found.payload or b"")
        require_signed(head, key, trust)
        place = {"storage_id": storage.id, "key": key, "payload_id": head.payload_id}
        digests = yield from call(storage.database, partial(_digesting, place, first, seen))
        if (digests.size, digests.sha256) == (head.size, head.sha256):
            metadata = metadata_of(head, key, keyspace.serializer, trust)
            own = Origin(key, storage.database.place, storage.id, head.version)
            metadata._known_as(own if pointer is None else pointer._origin)
            return Outgoing(storage, key, head, digests, first, metadata)
        # It may have been superseded between the two statements, which is no damage: what is true now decides.
        again = require_live((yield from storage._fetch(key, head.payload_id)), key)
        if again.head.payload_id == head.payload_id:
            raise _damaged(key, head)


def _digesting(
    place: dict[str, Any], first: bytes, seen: Callable[[int], None] | None, _: bool
) -> Operation[streams.Digests]:
    return streams.digest(place, first, seen)


def _damaged(key: str, head: Head) -> IntegrityError:
    return IntegrityError(
        f"the payload of {key!r}, version {head.version}, is not what was written: its digest does not match. "
        "Nothing of it was given out; an earlier version may be intact: see `pgresults history`.",
        key=key,
        version=head.version,
    )


class _Raw(io.RawIOBase):
    """The payload as Python's own files are made of."""

    def __init__(self, outgoing: Outgoing) -> None:
        self.outgoing = outgoing

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = perform(self.outgoing.read(len(buffer)))
        buffer[: len(piece)] = piece
        return len(piece)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self.outgoing.seek(offset, whence)

    def tell(self) -> int:
        return self.outgoing.position


class ResultReader(io.BufferedReader):
    """A payload as a binary file that can be read from anywhere; all of it was checked when it was opened."""

    def __init__(self, outgoing: Outgoing) -> None:
        super().__init__(_Raw(outgoing), _BUFFER)
        self._outgoing = outgoing

    @property
    def metadata(self) -> ResultRecordMetadata:
        """What is known about the result."""
        return self._outgoing.metadata


class AsyncResultReader:
    """A payload as a binary file for an event loop; see `ResultReader`. Iterating gives it in pieces of up to a MiB."""

    def __init__(self, outgoing: Outgoing) -> None:
        self._outgoing = outgoing

    @property
    def metadata(self) -> ResultRecordMetadata:
        """What is known about the result."""
        return self._outgoing.metadata

    @property
    def closed(self) -> bool:
        """Whether nothing more can be read."""
        return self._outgoing.closed

    async def read(self, size: int | None = -1) -> bytes:
        """Read so many bytes, fewer only at the end; None or a negative number: all there are."""
        left = self._outgoing.size if size is None or size < 0 else size
        pieces = []
        while piece := await aperform(self._outgoing.read(left)):
            pieces.append(piece)
            left -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place, counted from the beginning, from here or from the end; waits for nothing."""
        return self._outgoing.seek(offset, whence)

    def tell(self) -> int:
        """The place where it is read next."""
        return self._outgoing.position

    def close(self) -> None:
        """Read no more; waits for nothing."""
        self._outgoing.closed = True

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while piece := await aperform(self._outgoing.read(self._outgoing.size)):
            yield piece

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()
