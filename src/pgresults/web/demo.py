"""A store with life in it, made to be shown."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any


@contextmanager
def demonstrated() -> Iterator[Mapping[str, Any]]:
    """Settings of a store of its own."""
    yield {}
