"""The memory of a store: records it has read, kept while the database still holds the version they came from."""

import os
import threading
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from cachetools import LRUCache

from pgresults.operations.results import Head
from pgresults.records.records import ResultRecord


@dataclass(frozen=True, slots=True)
class _Entry:
    payload_id: UUID
    size: int
    record: ResultRecord[Any]


class ResultCache:
    """Deserialized records by key, the least recently used ones dropped first; safe to share among threads.

    An entry says from which payload it came. Whether that still is the key's payload only the database knows: the
    cache saves the transfer and the deserializing, never the question.

    Parameters:
        max_entries: how many records are kept at most.
        max_bytes: how many bytes of payload the records kept may have come from.
    """

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        self.max_entries = max_entries
        self.max_bytes = max_bytes
        # A record counts at least its share of the bytes, rounded up, so that one bound keeps both.
        share = -(-max_bytes // max_entries)
        self._entries: LRUCache[Any, _Entry] = LRUCache(max_bytes, lambda entry: max(entry.size, share))
        self._lock = threading.Lock()
        self._pid = os.getpid()

    def payload_id(self, place: tuple[UUID, str]) -> UUID | None:
        """The payload from which the record of a place came; None when there is none."""
        with self._own_lock():
            entry = self._entries.get(place)
        return entry.payload_id if entry else None

    def record(self, place: tuple[UUID, str], payload_id: UUID | None) -> ResultRecord[Any] | None:
        """The record of a place, if it came from that payload."""
        with self._own_lock():
            entry = self._entries.get(place)
        return entry.record if entry and entry.payload_id == payload_id else None

    def keep(self, place: tuple[UUID, str], head: Head, record: ResultRecord[Any]) -> None:
        """Remember a record, unless its payload alone exceeds the bound."""
        if head.payload_id is None or head.size is None or head.size > self.max_bytes:
            return
        with self._own_lock():
            self._entries[place] = _Entry(head.payload_id, head.size, record)

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
        self.__init__(**state)  # type: ignore[misc] # configuration travels, records do not
