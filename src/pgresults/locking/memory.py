"""Locks within one process."""

import os
import threading
import time
import weakref
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID, uuid4

from pgresults.arguments import require_holder
from pgresults.database.programs import Program, aperform, aperform_or_undo, perform, perform_or_undo
from pgresults.errors import InvalidArgument
from pgresults.locking.deadline import Deadline
from pgresults.locking.deadlocks import AGE, deadlocked
from pgresults.locking.queues import wait_for_signal
from pgresults.locking.workers import Worker
from pgresults.operations.waiting import Edge
from pgresults.records.keys import require_key
from pgresults.records.provenance import default_holder


@dataclass(eq=False)
class _Held:
    holder: str
    hold: Deadline
    worker: Worker | None
    since: float = field(default_factory=time.monotonic)
    watchers: list[Future[None]] = field(default_factory=list)


@dataclass(eq=False)
class _Waiter:
    key: str
    holder: str
    id: UUID = field(default_factory=uuid4)
    worker: Worker = field(default_factory=Worker.waiting)
    since: float = field(default_factory=time.monotonic)


class _Locks:
    """The locks of a process."""

    def __init__(self) -> None:
        self.mutex = threading.Lock()
        self.held: dict[str, _Held] = {}
        self.waiters: weakref.WeakSet[_Waiter] = weakref.WeakSet()


_LOCKS = _Locks()
os.register_at_fork(after_in_child=_LOCKS.__init__)  # type: ignore[misc] # what the parent holds, the child does not


class MemoryLockManager:
    """A `LockManager` for threads and coroutines of one process, in which all of them share their locks."""

    def acquire_lock(
        self, key: str, holder: str, acquire_timeout: float | None = None, hold_timeout: float | None = None
    ) -> bool:
        """Take the lock; see `LockManager`."""
        had = self.is_lock_holder(key, holder)
        return perform_or_undo(
            self._acquire(key, holder, acquire_timeout, hold_timeout), lambda: self._decline(key, holder, had)
        )

    async def aacquire_lock(
        self, key: str, holder: str, acquire_timeout: float | None = None, hold_timeout: float | None = None
    ) -> bool:
        """Take the lock; see `LockManager`."""
        had = self.is_lock_holder(key, holder)
        return await aperform_or_undo(
            self._acquire(key, holder, acquire_timeout, hold_timeout), lambda: self._decline(key, holder, had)
        )

    def release_lock(self, key: str, holder: str) -> None:
        """Give the lock back; see `LockManager`."""
        require_holder(holder)
        with _LOCKS.mutex:
            held = _current(key)
            if held is None or held.holder != holder:
                raise InvalidArgument(f"{holder!r} does not hold the lock of {key!r}", argument="holder", value=holder)
            _drop(key)

    async def arelease_lock(self, key: str, holder: str) -> None:
        """Give the lock back; see `LockManager`."""
        self.release_lock(key, holder)

    def is_locked(self, key: str) -> bool:
        """Whether anybody holds the lock."""
        with _LOCKS.mutex:
            return _current(key) is not None

    async def ais_locked(self, key: str) -> bool:
        """Whether anybody holds the lock."""
        return self.is_locked(key)

    def is_lock_holder(self, key: str, holder: str) -> bool:
        """Whether this holder has the lock."""
        require_holder(holder)
        with _LOCKS.mutex:
            held = _current(key)
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

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MemoryLockManager)

    def __hash__(self) -> int:
        return hash(MemoryLockManager)

    def _acquire(
        self, key: str, holder: str, acquire_timeout: float | None, hold_timeout: float | None
    ) -> Program[bool]:
        require_key(key)
        require_holder(holder)
        deadline = Deadline.after(acquire_timeout, "acquire_timeout")
        Deadline.after(hold_timeout, "hold_timeout")
        waiter: _Waiter | None = None
        while True:
            with _LOCKS.mutex:
                held = _current(key)
                if held is None:
                    worker = Worker.current() if holder == default_holder() else None
                    _LOCKS.held[key] = _Held(holder, Deadline.after(hold_timeout), worker)
                    return True
                if held.holder == holder:
                    return True
            if deadline.passed():
                return False
            waiter = waiter or _waiter(key, holder)
            yield from self._watch(held, waiter, deadline)

    def _decline(self, key: str, holder: str, had: bool) -> Program[None]:
        """Give back what was granted in the moment in which its acquirer was interrupted or cancelled."""
        with _LOCKS.mutex:
            held = _current(key)
            if held is not None and held.holder == holder and not had:
                _drop(key)
        return
        yield  # what makes this a program

    def _wait(self, key: str, timeout: float | None, holder: str | None = None) -> Program[bool]:
        deadline = Deadline.after(timeout)
        waiter: _Waiter | None = None
        while True:
            with _LOCKS.mutex:
                held = _current(key)
            if held is None:
                return True
            if deadline.passed():
                return False
            waiter = waiter or _waiter(key, default_holder() if holder is None else holder)
            yield from self._watch(held, waiter, deadline)

    def _holder_of(self, key: str) -> Program[str | None]:
        with _LOCKS.mutex:
            held = _current(key)
        return None if held is None else held.holder
        yield  # what makes this a program

    def _watch(self, held: _Held, waiter: _Waiter, deadline: Deadline) -> Program[None]:
        """Wait for a change: a release, the end of the hold or of our time, or the moment to look for a deadlock.

        Raises: DeadlockDetected.
        """
        signal: Future[None] = Future()
        with _LOCKS.mutex:
            if _LOCKS.held.get(waiter.key) is not held:
                return
            held.watchers.append(signal)
        try:
            yield from wait_for_signal(signal, deadline.or_earlier(held.hold).or_earlier(Deadline.after(AGE)))
        except TimeoutError:
            found = deadlocked(_edges(), (waiter.id,))
            if waiter.id in found:
                raise found[waiter.id] from None
        finally:
            with _LOCKS.mutex:
                if signal in held.watchers:
                    held.watchers.remove(signal)


def _waiter(key: str, holder: str) -> _Waiter:
    waiter = _Waiter(key, holder)
    with _LOCKS.mutex:
        _LOCKS.waiters.add(waiter)
    return waiter


def _edges() -> list[Edge]:
    """Who waits for whom and has not moved for a while."""
    now = time.monotonic()
    with _LOCKS.mutex:
        waiters = [waiter for waiter in _LOCKS.waiters if now - waiter.since >= AGE]
        held = {key: one for key in list(_LOCKS.held) if (one := _current(key)) and now - one.since >= AGE}
    edges = []
    for waiter in waiters:
        if (lock := held.get(waiter.key)) is None:
            continue
        since = datetime.fromtimestamp(waiter.since, UTC)  # of no calendar: only which one is later counts
        behind = {one.holder for one in held.values() if one.worker and one.worker.stands_still_for(waiter.worker)}
        if waiter.holder != lock.holder:
            edges.append(Edge(waiter.id, waiter.holder, waiter.key, lock.holder, since, False))
        edges += [
            Edge(waiter.id, other, waiter.key, lock.holder, since, True) for other in behind if other != waiter.holder
        ]
    return edges


def _current(key: str) -> _Held | None:
    held = _LOCKS.held.get(key)
    if held is not None and held.hold.passed():
        _drop(key)
        return None
    return held


def _drop(key: str) -> None:
    """Let everybody know who waits."""
    for watcher in _LOCKS.held.pop(key).watchers:
        watcher.set_result(None)
