"""How often the calls of a task were answered by a stored result in this process."""

import threading
from typing import Any, NamedTuple


class CacheInfo(NamedTuple):
    """How many calls in this process got a stored result, and how many ran the function."""

    hits: int
    misses: int


class Tally:
    """Counts the calls of a task, from any thread; another process begins at nothing."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hits = 0
        self._misses = 0

    def add(self, *, hits: int = 0, misses: int = 0) -> None:
        """Count calls."""
        with self._lock:
            self._hits += hits
            self._misses += misses

    def info(self) -> CacheInfo:
        """What was counted so far."""
        with self._lock:
            return CacheInfo(self._hits, self._misses)

    def __reduce__(self) -> Any:
        return Tally, ()
