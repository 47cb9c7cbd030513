"""Payloads on their way into a database: bytes, or a file of more than fits into memory."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, TypeAlias


@dataclass(frozen=True, slots=True)
class FilePayload:
    """A payload that is read from a file, from its beginning and as often as needed.

    Parameters:
        file: where it is.
        size: bytes.
        sha256: its digest, computed while it was written.
        sent: told, while it is read, how many bytes there were so far.
    """

    file: IO[bytes]
    size: int
    sha256: bytes
    sent: Callable[[int], None] | None = None

    def __len__(self) -> int:
        return self.size


Payload: TypeAlias = bytes | FilePayload


def sha256_of(payload: Payload) -> bytes:
    """The digest of a payload."""
    return payload.sha256 if isinstance(payload, FilePayload) else hashlib.sha256(payload).digest()


def pieces(payload: Payload, size: int) -> Iterator[bytes | memoryview]:
    """A payload in pieces of a size, the last one being what is left."""
    if isinstance(payload, FilePayload):
        payload.file.seek(0)
        done = 0
        while piece := payload.file.read(size):
            yield piece
            done += len(piece)
            if payload.sent is not None:
                payload.sent(done)
        return
    view = memoryview(payload)
    for start in range(0, len(view), size):
        yield view[start : start + size]
