"""How often the calls of a task were answered by a stored result in this process."""

import threading
from typing import Any, NamedTuple

from pgresults.database.telemetry import count


class CacheInfo(NamedTuple):
    """How many calls in this process got a stored result, and how many ran the function."""

    hits: int
    misses: int


class Tally:
    """Counts the calls of a task, from any thread; another process begins at nothing.

    Parameters:
        task: the name of the task, under which the metrics have them.
    """

    def __init__(self, task: str) -> None:
        self._task = task
        self._lock = threading.Lock()
        self._hits = 0
        self._misses = 0

    def add(self, *, hits: int = 0, misses: int = 0, elsewhere: bool = False) -> None:
        """Count calls; the metrics of another process have those that were made there."""
        with self._lock:
            self._hits += hits
            self._misses += misses
        if not elsewhere:
            count("pgresults.task.hits", hits, pgresults_task_name=self._task)
            count("pgresults.task.misses", misses, pgresults_task_name=self._task)

    def info(self) -> CacheInfo:
        """What was counted so far."""
        with self._lock:
            return CacheInfo(self._hits, self._misses)

    def __reduce__(self) -> Any:
        return Tally, (self._task,)
