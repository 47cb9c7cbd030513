"""Payloads on their way into a database: bytes, the parts of an object, or a file of more than fits into memory."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, TypeAlias

from pgresults.errors import SerializationError
from pgresults.serializers.parts import Parts


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


Payload: TypeAlias = bytes | Parts | FilePayload


def sha256_of(payload: Payload) -> bytes:
    """The digest of a payload."""
    if isinstance(payload, FilePayload):
        return payload.sha256
    digest = hashlib.sha256()
    for part in payload.parts if isinstance(payload, Parts) else (payload,):
        digest.update(part)
    return digest.digest()


def pieces(payload: Payload, size: int, sha256: bytes) -> Iterator[bytes | memoryview]:
    """A payload in pieces of a size, the last one being what is left.

    Raises: SerializationError at the end for an object that was changed since its digest was computed.
    """
    if isinstance(payload, FilePayload):
        yield from _of_file(payload, size)
    elif isinstance(payload, Parts):
        digest = hashlib.sha256()
        for piece in payload.pieces(size):
            digest.update(piece)
            yield piece
        if digest.digest() != sha256:
            raise SerializationError(
                "the object was changed by somebody else while it was written, so nothing was stored: write a copy"
            )
    else:
        view = memoryview(payload)
        for start in range(0, len(view), size):
            yield view[start : start + size]


def _of_file(payload: FilePayload, size: int) -> Iterator[bytes]:
    payload.file.seek(0)
    done = 0
    while piece := payload.file.read(size):
        yield piece
        done += len(piece)
        if payload.sent is not None:
            payload.sent(done)
