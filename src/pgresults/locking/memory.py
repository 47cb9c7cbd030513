"""Locks within one process."""

import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from pgresults.database.programs import Program, aperform, perform
from pgresults.errors import InvalidArgument
from pgresults.locking.deadline import Deadline
from pgresults.locking.queues import wait_for_signal
from pgresults.records.keys import require_key


@dataclass
class _Held:
    holder: str
    hold: Deadline
    watchers: list[Future[None]] = field(default_factory=list)


class MemoryLockManager:
    """A `LockManager` for threads and coroutines of one process; its locks end with it."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._held: dict[str, _Held] = {}

    def acquire_lock(
        self, key: str, holder: str, acquire_timeout: float | None = None, hold_timeout: float | None = None
    ) -> bool:
        """Take the lock; see `LockManager`."""
        return perform(self._acquire(key, holder, acquire_timeout, hold_timeout))

    async def aacquire_lock(
        self, key: str, holder: str, acquire_timeout: float | None = None, hold_timeout: float | None = None
    ) -> bool:
        """Take the lock; see `LockManager`."""
        return await aperform(self._acquire(key, holder, acquire_timeout, hold_timeout))

    def release_lock(self, key: str, holder: str) -> None:
        """Give the lock back; see `LockManager`."""
        with self._mutex:
            held = self._current(key)
            if held is None or held.holder != holder:
                raise InvalidArgument(f"{holder!r} does not hold the lock of {key!r}", argument="holder", value=holder)
            self._drop(key)

    async def arelease_lock(self, key: str, holder: str) -> None:
        """Give the lock back; see `LockManager`."""
        self.release_lock(key, holder)

    def is_locked(self, key: str) -> bool:
        """Whether anybody holds the lock."""
        with self._mutex:
            return self._current(key) is not None

    async def ais_locked(self, key: str) -> bool:
        """Whether anybody holds the lock."""
        return self.is_locked(key)

    def is_lock_holder(self, key: str, holder: str) -> bool:
        """Whether this holder has the lock."""
        with self._mutex:
            held = self._current(key)
            return held is not None and held.holder == holder

    async def ais_lock_holder(self, key: str, holder: str) -> bool:
        """Whether this holder has the lock."""
        return self.is_lock_holder(key, holder)

    def wait_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """Wait until nobody holds the lock; see `LockManager`."""
        return perform(self._wait(key, timeout))

    async def await_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """Wait until nobody holds the lock; see `LockManager`."""
        return await aperform(self._wait(key, timeout))

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc] # the locks of another process are of no use here

    def _acquire(
        self, key: str, holder: str, acquire_timeout: float | None, hold_timeout: float | None
    ) -> Program[bool]:
        require_key(key)
        deadline = Deadline.after(acquire_timeout, "acquire_timeout")
        Deadline.after(hold_timeout, "hold_timeout")
        while True:
            with self._mutex:
                held = self._current(key)
                if held is None:
                    self._held[key] = _Held(holder, Deadline.after(hold_timeout))
                    return True
                if held.holder == holder:
                    return True
            if deadline.passed():
                return False
            yield from self._watch(key, held, deadline)

    def _wait(self, key: str, timeout: float | None) -> Program[bool]:
        deadline = Deadline.after(timeout)
        while True:
            with self._mutex:
                held = self._current(key)
            if held is None:
                return True
            if deadline.passed():
                return False
            yield from self._watch(key, held, deadline)

    def _watch(self, key: str, held: _Held, deadline: Deadline) -> Program[None]:
        """Wait for a change: a release, the end of the hold, or the end of our time."""
        signal: Future[None] = Future()
        with self._mutex:
            if self._held.get(key) is not held:
                return
            held.watchers.append(signal)
        try:
            yield from wait_for_signal(signal, deadline.or_earlier(held.hold))
        except TimeoutError:
            return
        finally:
            with self._mutex:
                if signal in held.watchers:
                    held.watchers.remove(signal)

    def _current(self, key: str) -> _Held | None:
        held = self._held.get(key)
        if held is not None and held.hold.passed():
            self._drop(key)
            return None
        return held

    def _drop(self, key: str) -> None:
        watchers, self._held[key].watchers = self._held[key].watchers, []
        del self._held[key]
        for watcher in watchers:
            watcher.set_result(None)
