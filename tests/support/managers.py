"""Lock managers as other people write them."""

import asyncio
import threading
from typing import Any

from pgresults.errors import InvalidArgument
from pgresults.locking import LockManager


class SyncMethods:
    """A manager of one process with the sync methods alone."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._holders: dict[str, str] = {}
        self.asked: list[str] = []

    def acquire_lock(
        self, key: str, holder: str, acquire_timeout: float | None = None, hold_timeout: float | None = None
    ) -> bool:
        self.asked.append(holder)
        with self._changed:
            free = self._changed.wait_for(lambda: self._holders.get(key, holder) == holder, acquire_timeout)
            if free:
                self._holders[key] = holder
            return free

    def release_lock(self, key: str, holder: str) -> None:
        with self._changed:
            if self._holders.get(key) != holder:
                raise InvalidArgument(f"{holder} does not hold {key}")
            del self._holders[key]
            self._changed.notify_all()

    def is_locked(self, key: str) -> bool:
        return key in self._holders

    def is_lock_holder(self, key: str, holder: str) -> bool:
        return self._holders.get(key) == holder

    def wait_for_lock(self, key: str, timeout: float | None = None) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: key not in self._holders, timeout)


class Derived(SyncMethods, LockManager):
    """One that derives from the protocol, whose other methods do nothing."""


class PrefectLike(SyncMethods):
    """One with the two async methods that Prefect asks for."""

    async def aacquire_lock(self, key: str, holder: str, *times: Any, **named: Any) -> bool:
        return self.acquire_lock(key, holder, 0) or await _slow(self.acquire_lock, key, holder, *times, **named)

    async def await_for_lock(self, key: str, timeout: float | None = None) -> bool:
        return await _slow(self.wait_for_lock, key, timeout)


async def _slow(function: Any, *arguments: Any, **named: Any) -> bool:
    return await asyncio.to_thread(function, *arguments, **named)
