"""Reading a payload chunk by chunk."""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from pgresults.operations.requests import Execute, Operation, Row, Stream
from pgresults.sql import results as statements


class Digests(NamedTuple):
    """What was seen of a payload when all of it was read: its size, its digest, and the digest of each chunk."""

    size: int
    sha256: bytes
    chunks: tuple[bytes, ...]


def digest(place: Mapping[str, Any], first: bytes, seen: Callable[[int], None] | None = None) -> Operation[Digests]:
    """Read what follows the first chunk of a payload, and keep its digests alone; ``seen`` is told the bytes so far."""
    whole, size, chunks = hashlib.sha256(first), len(first), [hashlib.sha256(first).digest()]

    def see(row: Row) -> None:
        nonlocal size
        number, data = row
        if number == len(chunks):  # else one is missing, which the digest tells
            whole.update(data)
            size += len(data)
            chunks.append(hashlib.sha256(data).digest())
            if seen is not None:
                seen(size)

    yield Stream(statements.READ_CHUNKS, place, see)
    return Digests(size, whole.digest(), tuple(chunks))


def chunk(place: Mapping[str, Any], number: int) -> Operation[bytes | None]:
    """One chunk of a payload; None where it is current no more."""
    rows = yield Execute(statements.READ_CHUNK, {**place, "chunk": number})
    return rows[0][0] if rows else None
