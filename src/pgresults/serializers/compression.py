"""Decompressing no more than may come out: a small payload can hold gigabytes."""

import zlib
from collections.abc import Callable
from inspect import getmembers, isclass
from types import ModuleType
from typing import Protocol, cast

from pgresults.errors import PayloadTooLarge

_GZIP = 31
"""zlib's way of saying that there is a header of gzip's."""


class _Decompressor(Protocol):
    """What bz2, lzma and most others have for one stream."""

    @property
    def eof(self) -> bool:
        """Whether the stream has ended."""

    @property
    def unused_data(self) -> bytes:
        """What came after its end."""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Give at most so many bytes."""


def decompress(library: ModuleType, data: bytes, limit: int) -> bytes:
    """Give what was compressed, unless it is too large; then no more than the limit was ever in memory.

    Of a library that has no way to stop, what comes out is measured afterwards.

    Parameters:
        library: a module with ``decompress``.
        data: what its ``compress`` gave.
        limit: bytes that may come out.

    Raises: PayloadTooLarge; what the library raises.
    """
    begin = _decompressor(library)
    out: bytes = library.decompress(data) if begin is None else _streams(begin, data, limit)
    return require_within(out, limit)


def require_within(data: bytes, limit: int) -> bytes:
    """Give the bytes back unless they are too many.

    Raises: PayloadTooLarge.
    """
    if len(data) > limit:
        raise PayloadTooLarge(
            f"a compressed payload holds more than {limit:,} bytes, the limit (PGRESULTS_MAX_PAYLOAD_BYTES)",
            size=len(data),
            limit=limit,
        )
    return data


def _streams(begin: Callable[[], _Decompressor], data: bytes, limit: int) -> bytes:
    """What a stream holds, and those that follow it; one byte more than the limit shows that there is too much."""
    parts: list[bytes] = []
    left = limit + 1
    while data:
        stream = begin()
        parts.append(stream.decompress(data, left))
        left -= len(parts[-1])
        if left == 0:
            break
        if not stream.eof:
            raise EOFError("the compressed data ends before the end of its stream")
        data = stream.unused_data.lstrip(b"\0")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _decompressor(library: ModuleType) -> Callable[[], _Decompressor] | None:
    """What decompresses a stream of the library's in steps; None: it has nothing of that kind."""
    if library.__name__ == "zlib":
        return lambda: _Zlib(zlib.MAX_WBITS)
    if library.__name__ == "gzip":
        return lambda: _Zlib(_GZIP)
    kinds = [kind for name, kind in getmembers(library, isclass) if name.endswith("Decompressor")]
    found = [kind for kind in kinds if hasattr(kind, "unused_data") and hasattr(kind, "eof")]
    return cast("Callable[[], _Decompressor]", found[0]) if found else None


class _Zlib:
    """zlib's own object, which keeps what it did not get to."""

    def __init__(self, wbits: int) -> None:
        self._stream = zlib.decompressobj(wbits)

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._stream.decompress(data, max_length)

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data
