"""The connections of a process's threads."""

import sys
import time
import weakref
from contextlib import AbstractContextManager
from queue import Empty, SimpleQueue
from random import uniform
from typing import Any

import psycopg

from pgresults.database.connections import Connection, NoneFree, PoolOptions
from pgresults.database.engines import is_idle
from pgresults.database.errors import is_worn
from pgresults.database.opening import Opener
from pgresults.database.refusals import may_pass
from pgresults.interruptions import interruption_behind, is_interruption

_PAUSE = (0.005, 0.05)


class _Place:
    """The right to have one connection; it goes back by itself when whoever had it is gone, by whatever way."""

    __slots__ = ("_pool",)

    def __init__(self, pool: "ThreadPool") -> None:
        self._pool = weakref.ref(pool)

    def __del__(self) -> None:
        pool = self._pool()
        if pool is not None:
            pool.add_place()


class ThreadPool:
    """Idle connections, and places for those in use.

    Parameters:
        opener: opens connections.
        options: how many, and for how long.
    """

    def __init__(self, opener: Opener, options: PoolOptions) -> None:
        self._opener = opener
        self._options = options
        # What a semaphore would do, which in Python takes longer than all the rest of this.
        self._places: SimpleQueue[_Place] = SimpleQueue()
        for _ in range(options.size + options.overflow):
            self.add_place()
        self._idle: list[Connection] = []
        self._retired = False

    def lease(self) -> AbstractContextManager[Connection]:
        """A connection for the length of a ``with`` block; it is dropped unless it comes back idle."""
        return _Lease(self)

    def add_place(self) -> None:
        """Let one more connection be in use."""
        self._places.put(_Place(self))

    def place(self) -> _Place:
        """Wait for a place.

        Raises: NoneFree when the time to wait is up.
        """
        try:
            return self._places.get(timeout=self._options.connect_timeout)
        except Empty:
            raise NoneFree from None

    def free(self, place: _Place) -> None:
        """Give a place back."""
        self._places.put(place)

    def take(self) -> Connection:
        """An idle connection, else a new one; raises the driver's errors.

        Where no more can be opened, one of this pool that comes back in time serves as well.
        """
        deadline = time.monotonic() + self._options.connect_timeout
        while True:
            while self._idle:
                connection = self._idle.pop()
                if not connection.is_stale(self._options):
                    return connection
                connection.close()
            try:
                return self._opener.open()
            except psycopg.OperationalError as error:
                if not (may_pass(error) and self._others_are_in_use()) or time.monotonic() > deadline:
                    raise
                time.sleep(uniform(*_PAUSE))  # noqa: S311 (no secret)

    def give(self, connection: Connection) -> None:
        """Take a connection back."""
        if self._retired or not is_idle(connection) or len(self._idle) >= self._options.size:
            connection.close()
            return
        connection.used_at = time.monotonic()
        self._idle.append(connection)
        for longest_unused in self._idle[:1]:
            if longest_unused.is_stale(self._options):
                self._close_stale()

    def clear(self) -> None:
        """Close what is idle."""
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def retire(self) -> None:
        """Close what is idle now, and what is in use when it comes back."""
        self._retired = True
        self.clear()

    def usage(self) -> tuple[int, int]:
        """How many connections are idle, and how many in use."""
        return len(self._idle), self._options.size + self._options.overflow - self._places.qsize()

    def _others_are_in_use(self) -> bool:
        return self.usage()[1] > 1

    def _close_stale(self) -> None:
        """The longest unused stand at the front, since the last that came back goes first."""
        for connection in [one for one in self._idle if one.is_stale(self._options)]:
            try:
                self._idle.remove(connection)
            except ValueError:  # another thread took it
                continue
            connection.close()


class _Lease(AbstractContextManager[Connection]):
    __slots__ = ("_connection", "_handled", "_place", "_pool")

    def __init__(self, pool: ThreadPool) -> None:
        self._pool = pool
        self._handled = sys.exc_info()[1]

    def __enter__(self) -> Connection:
        self._place = self._pool.place()
        self._connection = self._pool.take()
        return self._connection

    def __exit__(self, _: Any, error: BaseException | None, __: Any) -> None:
        try:
            if error is not None and (is_interruption(error) or interruption_behind(error, self._handled)):
                self._connection.close()  # idle or not: psycopg itself may have stopped half-way
            elif is_worn(error):
                self._connection.close()
            self._pool.give(self._connection)
        finally:
            self._pool.free(self._place)
            del self._connection, self._place
