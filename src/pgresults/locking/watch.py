"""Watching who waits for locks here: the database is told, and whoever waits for itself in the end is ended."""

import logging
import random
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from uuid import UUID, uuid4

from pgresults.database.database import Database
from pgresults.errors import DeadlockDetected, PgResultsError
from pgresults.locking.deadlocks import AGE, deadlocked
from pgresults.locking.granted import holders_standing_still_for
from pgresults.locking.workers import Worker
from pgresults.operations import waiting as operations
from pgresults.operations.waiting import Waiting
from pgresults.records.provenance import AWAITED_BY

logger = logging.getLogger(__name__)

_YOUNG = 0.25  # seconds: most locks are had before the database knows that anybody waited
_SOONEST, _LATEST = 0.5, 2.0
_SURE_AFTER = 0.1
_IDLE = 2.0


class Waiter:
    """Somebody who waits for the lock of a key; who stops waiting just drops it.

    ``place`` is the place in the line of its process, which ends with the error of a deadlock.
    """

    def __init__(self, key: str, holder: str) -> None:
        self.id = uuid4()
        self.key = key
        self.holder = holder
        self.since = time.monotonic()
        self.worker = Worker.waiting()
        self.awaited_by = AWAITED_BY.get()
        self.place: Future[None] = Future()
        self._deadlock: DeadlockDetected | None = None

    @property
    def waited(self) -> float:
        """For how many seconds."""
        return time.monotonic() - self.since

    def end(self, deadlock: DeadlockDetected) -> None:
        """Have it give up."""
        self._deadlock = deadlock
        with suppress(InvalidStateError):  # it is the first in line
            self.place.set_exception(deadlock)

    def check(self) -> None:
        """Give up if that is asked for; raises DeadlockDetected."""
        if self._deadlock is not None:
            raise self._deadlock


class Watch:
    """A thread that looks after the waiters of a process while there are any.

    Parameters:
        database: where the locks are.
        storage_id: whose keys are locked.
    """

    def __init__(self, database: Database, storage_id: UUID) -> None:
        self._database = database
        self._storage_id = storage_id
        self._mutex = threading.Lock()
        self._waiters: weakref.WeakSet[Waiter] = weakref.WeakSet()
        self._known: set[tuple[UUID, str]] = set()
        self._thread: threading.Thread | None = None
        self._news = threading.Event()
        self._looked = 0.0

    def waiter(self, key: str, holder: str) -> Waiter:
        """Somebody who waits from now on, for as long as the waiter is kept."""
        waiter = Waiter(key, holder)
        with self._mutex:
            hurry = all(other.waited > 2 * _SOONEST for other in self._waiters)
            self._waiters.add(waiter)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="pgresults-waiters", daemon=True)
                self._thread.start()
        if hurry:
            self._news.set()
        return waiter

    def left(self, waiter: Waiter) -> None:
        """Somebody waits no more."""
        with self._mutex:
            self._waiters.discard(waiter)
        if any(waiter.id == known for known, _ in tuple(self._known)):
            self._news.set()

    def _work(self) -> None:
        while self._await_news():
            try:
                self._look()
            except PgResultsError as error:
                logger.warning("who waits for whom could not be looked at, will try again: %s", error)
            except Exception:
                # Frames of other threads are read while these go on: whatever was odd about one, the next look is new.
                logger.exception("who waits for whom could not be looked at, will try again")

    def _await_news(self) -> bool:
        """Wait until there is something to do; False when there has been nobody for so long that the thread ends."""
        with self._mutex:
            seconds = max(0.0, self._due() - time.monotonic()) if self._waiters else _IDLE
        news = self._news.wait(seconds)
        self._news.clear()
        with self._mutex:
            if news or self._waiters or self._known:
                return True
            self._thread = None
            return False

    def _due(self) -> float:
        """When to look next; the longer all have waited the later."""
        youngest = min((waiter.waited for waiter in self._waiters), default=0.0)
        return self._looked + min(max(_SOONEST, youngest / 2), _LATEST) * random.uniform(0.8, 1.0)  # noqa: S311

    def _look(self) -> None:
        """Tell the database who waits and who does not any more, and end who waits for itself."""
        with self._mutex:
            waiters = [waiter for waiter in self._waiters if waiter.waited >= _YOUNG]
            due = bool(waiters) and time.monotonic() >= self._due()
        if due:
            self._looked = time.monotonic()
            rows = [row for waiter in waiters for row in _rows(waiter)]
            still = {(row.id, row.holder) for row in rows}
        else:
            rows, ids = [], {waiter.id for waiter in waiters}
            still = {known for known in self._known if known[0] in ids}
        if gone := self._known - still:
            self._database.run(lambda _: operations.leave(self._storage_id, list(gone)))
            self._known -= gone
        if rows:
            self._known |= still
            self._database.run(lambda _: operations.see(self._storage_id, rows))
            self._end_deadlocks(waiters)

    def _end_deadlocks(self, waiters: Sequence[Waiter]) -> None:
        """Look twice: what is found may have come to its end in that moment."""
        ours = [waiter.id for waiter in waiters if waiter.waited >= AGE]
        found = self._deadlocks(ours)
        if found:
            time.sleep(_SURE_AFTER)
            found = self._deadlocks(list(found))
        for waiter in waiters:
            if waiter.id in found:
                logger.warning("%s", found[waiter.id])
                waiter.end(found[waiter.id])

    def _deadlocks(self, ours: Sequence[UUID]) -> Mapping[UUID, DeadlockDetected]:
        return deadlocked(self._database.run(lambda _: operations.edges(ours)), ours) if ours else {}


def _rows(waiter: Waiter) -> Iterator[Waiting]:
    """The waiter itself, and all who cannot go on before it."""
    age = waiter.waited
    yield Waiting(waiter.key, waiter.id, waiter.holder, False, age)
    for holder in holders_standing_still_for(waiter.worker) | set(waiter.awaited_by):
        if holder != waiter.holder:
            yield Waiting(waiter.key, waiter.id, holder, True, age)
