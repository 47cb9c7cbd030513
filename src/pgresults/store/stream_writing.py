"""Writing a result piece by piece: what is written waits in a file without a name and is stored when that is closed.

Nothing of it is in the database before: no transaction is open while the caller works, a write is repeated after a lost
connection, and whatever ends the process takes the file with it.
"""

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from types import TracebackType
from typing import IO, Any, NamedTuple, Self

from pgresults.database.observing import SIZE, About, observed
from pgresults.database.programs import Program, aperform, compute, perform
from pgresults.errors import InvalidArgument, PayloadTooLarge
from pgresults.locking.proofs import refuse_others
from pgresults.operations.payloads import FilePayload, Payload
from pgresults.records.keys import require_key
from pgresults.records.lineage import GivenParent
from pgresults.records.records import ResultRecordMetadata
from pgresults.serializers import BytesSerializer
from pgresults.sql.schema import CHUNK_SIZE
from pgresults.storage.keyspace import Keyspace
from pgresults.store.writing import (
    Draft,
    ancestry_of,
    describe,
    draft_of,
    encode_described,
    store_staged,
    stored_metadata,
)


class StreamOptions(NamedTuple):
    """What is said of a result that is written piece by piece; see `ResultStore.write`."""

    expiration: datetime | None = None
    holder: str | None = None
    tags: Iterable[str] | None = None
    provenance: Mapping[str, Any] | None = None
    expires_in: timedelta | None = None
    derived_from: Iterable[GivenParent] | None = None
    sent: Callable[[int], None] | None = None
    """Told, while it is stored, how many bytes of a large payload have left; for a bar on a terminal."""


class Incoming:
    """A result whose payload is still being written."""

    def __init__(
        self,
        keyspace: Keyspace,
        draft: Draft,
        described: dict[str, Any],
        new_key: Callable[[], str],
        sent: Callable[[int], None] | None,
    ) -> None:
        self._keyspace, self._draft, self._described, self._new_key = keyspace, draft, described, new_key
        self._sent = sent
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(CHUNK_SIZE, prefix="pgresults-")  # noqa: SIM115
        self._sha256 = hashlib.sha256()
        self.size = 0
        self.closed = False
        self.metadata: ResultRecordMetadata | None = None

    def take(self, data: Any) -> Program[int]:
        """Take further bytes; gives their number."""
        self.require_open()
        try:
            view = memoryview(data).cast("B")
        except TypeError as error:
            raise InvalidArgument(
                f"what is written are bytes, not a {type(data).__name__}", argument="data", value=type(data)
            ) from error
        settings, size = self._keyspace.payloads.settings, self.size + len(view)
        if size > settings.max_payload_bytes:
            raise PayloadTooLarge(
                f"the payload of {self._draft.storage_key!r} has more than {settings.max_payload_bytes:,} bytes "
                "(PGRESULTS_MAX_PAYLOAD_BYTES)",
                key=self._draft.storage_key,
                size=size,
                limit=settings.max_payload_bytes,
            )
        yield from compute(lambda: self._append(view), small=len(view) <= settings.offload_bytes)
        return len(view)

    def _append(self, view: memoryview) -> None:
        try:
            self._file.write(view)
        except BaseException:
            self.discard()  # nobody knows how much of it is there
            raise
        self._sha256.update(view)
        self.size += len(view)

    def _about(self) -> About | None:
        return None if self.closed else self._keyspace.payloads._about(self._draft.storage_key, **{SIZE: self.size})

    @observed("write", _about)
    def store(self) -> Program[None]:
        """Store what was taken, once; whatever becomes of it, nothing more is taken."""
        if self.closed:
            return
        self.closed = True
        try:
            draft = self._draft._replace(payload=self._payload())
            staged = yield from encode_described(self._keyspace, draft, self._new_key, self._described)
            written = yield from store_staged(staged)
            self.metadata = stored_metadata(staged[0], written[0], staged[-1].upload.origin)
        finally:
            self._file.close()

    def discard(self) -> None:
        """Forget what was taken."""
        self.closed = True
        self._file.close()

    def require_open(self) -> None:
        """Refuse what comes too late."""
        if self.closed:
            raise InvalidArgument("the file is closed: what was written is stored or discarded", argument="file")

    def _payload(self) -> Payload:
        if self.size > CHUNK_SIZE:
            return FilePayload(self._file, self.size, self._sha256.digest(), self._sent)
        self._file.seek(0)
        return self._file.read()


def opened(keyspace: Keyspace, key: str, options: StreamOptions, new_key: Callable[[], str]) -> Program[Incoming]:
    """Begin to write a result; see `ResultStore.open_write`."""
    draft = draft_of(None, require_key(key), BytesSerializer(), options.expiration, options.expires_in)
    draft = draft._replace(ancestry=ancestry_of(options.derived_from))
    described = describe(options.holder, options.tags, options.provenance)
    if keyspace.locks is not None:
        yield from refuse_others(keyspace.locks, key, described["holder"])
    return Incoming(keyspace, draft, described, new_key, options.sent)


class _Writer:
    """What both kinds of writers have that waits for nothing."""

    def __init__(self, incoming: Incoming) -> None:
        self._incoming = incoming

    @property
    def metadata(self) -> ResultRecordMetadata | None:
        """The metadata as stored; None before the file is closed, and when it was discarded."""
        return self._incoming.metadata

    @property
    def closed(self) -> bool:
        """Whether nothing more can be written."""
        return self._incoming.closed

    def discard(self) -> None:
        """Forget what was written; nothing is stored."""
        self._incoming.discard()

    def tell(self) -> int:
        """How many bytes were written."""
        return self._incoming.size

    def readable(self) -> bool:
        """Whether it can be read: it cannot."""
        return False

    def writable(self) -> bool:
        """Whether it can be written."""
        return True

    def seekable(self) -> bool:
        """Whether one can write elsewhere than at the end: one cannot."""
        return False


class ResultWriter(_Writer):
    """A file that becomes a result when it is closed; one that is never closed is discarded."""

    def write(self, data: Any) -> int:
        """Write bytes, or anything with a buffer.

        Returns: how many bytes.
        Raises: PayloadTooLarge; InvalidArgument for what has no bytes, and after the end; OSError when the disk is
            full, after which nothing can be stored.
        """
        return perform(self._incoming.take(data))

    def writelines(self, lines: Iterable[Any]) -> None:
        """Write several pieces; see `write`."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Do nothing: what was written is stored when the file is closed."""
        self._incoming.require_open()

    def close(self) -> None:
        """Store what was written; a second time it does nothing.

        Raises: what `ResultStore.write` raises; nothing is stored then.
        """
        perform(self._incoming.store())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()


class AsyncResultWriter(_Writer):
    """A file that becomes a result when it is closed, for an event loop; see `ResultWriter`."""

    async def write(self, data: Any) -> int:
        """Write bytes, or anything with a buffer; see `ResultWriter.write`."""
        return await aperform(self._incoming.take(data))

    async def close(self) -> None:
        """Store what was written; see `ResultWriter.close`."""
        await aperform(self._incoming.store())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if kind is None:
            await self.close()
        else:
            self.discard()
