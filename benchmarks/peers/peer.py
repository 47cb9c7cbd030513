"""What a peer is: an object with some of the methods below; what it cannot do is absent."""

import os
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class Place:
    """Where peers keep what they are given: servers that run, and a directory."""

    url: str
    schema: str
    directory: Path
    redis: dict[str, int] = field(default_factory=dict)
    """Ports by how Redis was told to keep things: ``defaults`` and ``always`` (``appendfsync``)."""
    environment: dict[str, str] = field(default_factory=dict)


class Peer(Protocol):
    """All that can be measured; a class has what its library does, and `close`."""

    def write(self, key: str, data: bytes) -> Any: ...
    def read(self, key: str) -> bytes: ...
    def exists(self, key: str) -> bool: ...
    def call(self, key: str, size: int) -> bytes:
        """What the cached `produce` gives."""
        ...

    def map(self, keys: list[str], size: int) -> Any:
        """`produce` for many keys, all results kept."""
        ...

    def acquire(self, key: str) -> Any:
        """Wait for the key's lock."""
        ...

    def release(self, key: str) -> Any: ...
    def close(self) -> None: ...


@lru_cache(maxsize=8)
def payload(size: int) -> bytes:
    """Random bytes, the same for as long as the process lives."""
    return os.urandom(size)


def produce(key: str, size: int) -> bytes:  # noqa: ARG001 (it only makes the key)
    """Give at once what is to be cached."""
    return payload(size)
