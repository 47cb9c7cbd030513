"""The memory of a store: payloads it has read, kept while the database still holds the version they came from."""

import os
import threading
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from cachetools import LRUCache

from pgresults.operations.results import Head
from pgresults.serializers.parts import Arrived

_UNCHANGEABLE = frozenset(
    (type(None), bool, int, float, complex, str, bytes, date, datetime, time, timedelta, Decimal, UUID)
)


@dataclass(frozen=True, slots=True)
class Kept:
    """A payload that was read and checked; None in place of it: nobody can change its ``result``, which is kept."""

    payload_id: UUID
    size: int
    payload: bytes | None
    result: Any = None


class ResultCache:
    """Payloads by key, the least recently used ones dropped first; safe to share among threads.

    An entry says which payload it is. Whether that still is the key's payload only the database knows: the cache saves
    the transfer, never the question. Every hit is deserialized anew, for what one caller does to a result must not
    reach the next; only what cannot be changed is handed out as it is.

    Parameters:
        max_entries: how many payloads are kept at most.
        max_bytes: how many bytes they may have together.
    """

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        self.max_entries = max_entries
        self.max_bytes = max_bytes
        # A payload counts at least its share of the bytes, rounded up, so that one bound keeps both.
        share = -(-max_bytes // max_entries)
        self._entries: LRUCache[Any, Kept] = LRUCache(max_bytes, lambda entry: max(entry.size, share))
        self._lock = threading.Lock()
        self._pid = os.getpid()

    def kept(self, place: tuple[UUID, str]) -> Kept | None:
        """What is kept of a place."""
        with self._own_lock():
            return self._entries.get(place)

    def keep(self, place: tuple[UUID, str], head: Head, payload: Arrived | None, result: Any) -> None:
        """Keep a payload, or its result where that cannot be changed, unless it alone exceeds the bound."""
        if head.payload_id is None or payload is None or len(payload) > self.max_bytes:
            return
        size = len(payload)
        kept = (None, result) if _cannot_be_changed(result) else (bytes(payload),)
        with self._own_lock():
            self._entries[place] = Kept(head.payload_id, size, *kept)

    def _own_lock(self) -> threading.Lock:
        """The lock; a forked child starts empty, for a thread of its parent's may have held the lock and half changed
        the entries."""
        if self._pid != os.getpid():
            self.__setstate__(self.__getstate__())
        return self._lock

    def __len__(self) -> int:
        return len(self._entries)

    def __getstate__(self) -> dict[str, Any]:
        return {"max_entries": self.max_entries, "max_bytes": self.max_bytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc] # configuration travels, payloads do not


def _cannot_be_changed(result: Any, depth: int = 8) -> bool:
    """Whether nobody can change a result; what is nested deeper is taken for changeable."""
    if type(result) in (tuple, frozenset):
        return depth > 0 and all(_cannot_be_changed(item, depth - 1) for item in result)
    return type(result) in _UNCHANGEABLE
