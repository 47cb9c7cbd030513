"""Large payloads: in parts where their object has them, and given back bit by bit while they are loaded."""

import io
import mmap
import pickle
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

_FIRST_SIZE = 16 * 1024 * 1024
_GIVEN_BACK = 1024 * 1024
_BUFFER = 64 * 1024


@dataclass(frozen=True, slots=True)
class Parts:
    """A payload in several places, some of which are in the object that it is of: it lasts while that is not changed.

    Parameters:
        parts: the places in their order.
        size: bytes of them all.
    """

    parts: tuple[memoryview, ...]
    size: int

    def __len__(self) -> int:
        return self.size

    def joined(self) -> bytes:
        """A copy that lasts."""
        return b"".join(self.parts)

    def pieces(self, size: int) -> Iterator[bytes]:
        """Copies of its pieces of a size, the last one being what is left."""
        waiting: list[memoryview] = []
        left = size
        for part in self.parts:
            rest = part
            while rest:
                waiting.append(rest[:left])
                left -= len(waiting[-1])
                rest = rest[len(waiting[-1]) :]
                if not left:
                    yield b"".join(waiting)
                    waiting, left = [], size
        if waiting:
            yield b"".join(waiting)


Dumped: TypeAlias = bytes | Parts
"""What a serializer gives."""


class PartsFile:
    """A file for who writes a payload: what is large is not copied."""

    def __init__(self) -> None:
        self._parts: list[memoryview] = []

    def write(self, data: Any) -> int:
        """Take bytes, or a buffer that lasts as long as the payload is used."""
        view = data.raw() if isinstance(data, pickle.PickleBuffer) else memoryview(data).cast("B")
        self._parts.append(view)
        return len(view)

    def parts(self) -> Parts:
        """What was written."""
        return Parts(tuple(self._parts), sum(map(len, self._parts)))


Arrived: TypeAlias = bytes | bytearray | memoryview
"""A payload as it is read; a view where it is large: of memory that can be given back before all of it was read."""


class Arriving:
    """A large payload that arrives piece by piece."""

    def __init__(self) -> None:
        self._place: Any = bytearray()
        if sys.platform == "linux":  # elsewhere a mapping does not grow
            self._place = mmap.mmap(-1, _FIRST_SIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._size = 0

    def append(self, data: bytes) -> None:
        """Take a further piece."""
        end = self._size + len(data)
        if end > len(self._place):
            self._grow(end)
        self._place[self._size : end] = data
        self._size = end

    def _grow(self, size: int) -> None:
        if isinstance(self._place, mmap.mmap):
            self._place.resize(max(size, len(self._place) * 5 // 4))  # what is not used yet takes no memory
        else:
            self._place += bytes(size - len(self._place))

    def whole(self) -> Arrived:
        """What has arrived."""
        return self._place if isinstance(self._place, bytearray) else memoryview(self._place)[: self._size]


def opened(payload: memoryview, *, spend: bool) -> io.BufferedReader:
    """A payload as a file.

    Parameters:
        payload: it.
        spend: whether it is read for the last time: the memory behind what was read is given back.
    """
    return io.BufferedReader(_Raw(payload, spend), _BUFFER)


def held(payload: Arrived, *, spend: bool) -> bytes:
    """A payload in memory of its own; see `opened`."""
    if isinstance(payload, memoryview):
        place = bytearray(len(payload))
        opened(payload, spend=spend).readinto(place)
        payload = place
    return payload  # type: ignore[return-value]  # a bytearray does for all who read bytes


class _Raw(io.RawIOBase):
    def __init__(self, payload: memoryview, spend: bool) -> None:
        self._payload, self._position, self._given = payload, 0, 0
        self._place = payload.obj if spend and isinstance(payload.obj, mmap.mmap) else None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._payload[self._position : self._position + min(len(buffer), _GIVEN_BACK)]
        buffer[: len(piece)] = piece
        self._position += len(piece)
        behind = self._position // _GIVEN_BACK * _GIVEN_BACK
        if self._place is not None and behind > self._given and hasattr(mmap, "MADV_DONTNEED"):
            self._place.madvise(mmap.MADV_DONTNEED, self._given, behind - self._given)
            self._given = behind
        return len(piece)
