"""The connections of an event loop; none of them outlives it."""

import asyncio
import time
import weakref
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, suppress
from random import uniform
from typing import Any

import psycopg

from pgresults.database.connections import AsyncConnection, NoneFree, PoolOptions
from pgresults.database.engines import is_idle
from pgresults.database.errors import is_worn
from pgresults.database.opening import Opener
from pgresults.database.refusals import may_pass

_PAUSE = (0.005, 0.05)


class LoopPool:
    """Idle connections of one loop, and places for those in use; to be made on that loop.

    Parameters:
        opener: opens connections.
        options: how many, and for how long.
    """

    def __init__(self, opener: Opener, options: PoolOptions) -> None:
        self._opener = opener
        self._options = options
        self._places = asyncio.Semaphore(options.size + options.overflow)
        self._in_use = 0
        self._idle: list[AsyncConnection] = []
        self._retired = False
        self._opened: weakref.WeakSet[AsyncConnection] = weakref.WeakSet()
        loop = asyncio.get_running_loop()
        self.loop = weakref.ref(loop)
        self._until_its_end = at_loop_end(self)

    def lease(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A connection for the length of an ``async with`` block; it is dropped unless it comes back idle."""
        return _Lease(self)

    async def take(self) -> AsyncConnection:
        """An idle connection, else a new one; see `ThreadPool.take`.

        Raises: NoneFree when the time to wait is up; the driver's errors.
        """
        await self._take_place()
        try:
            self._in_use += 1
            connection = await self._idle_or_new()
        except BaseException:
            self._give_place()
            raise
        self._opened.add(connection)
        return connection

    async def give(self, connection: AsyncConnection) -> None:
        """Take a connection back."""
        self._give_place()
        if self._retired or not is_idle(connection) or len(self._idle) >= self._options.size:
            await connection.close()
            return
        connection.used_at = time.monotonic()
        self._idle.append(connection)
        while self._idle and self._idle[0].is_stale(self._options):
            await self._idle.pop(0).close()

    async def clear(self) -> None:
        """Close what is idle."""
        while self._idle:
            await self._idle.pop().close()

    def usage(self) -> tuple[int, int]:
        """How many connections are idle, and how many in use."""
        return len(self._idle), self._in_use

    def is_dead(self) -> bool:
        """Whether its loop is closed or gone."""
        loop = self.loop()
        return loop is None or loop.is_closed()

    def abandon(self) -> None:
        """Close the sockets of a loop that cannot do it; nothing can be awaited any more."""
        for connection in list(self._opened):
            connection.pgconn.finish()

    def retire(self) -> None:
        """Have the loop close what is idle now, and what is in use when it comes back; from any thread."""
        self._retired = True
        loop = self.loop()
        if loop is None or loop.is_closed():
            self.abandon()
        else:
            with suppress(RuntimeError):  # closed in this moment: its connections close when they are dropped
                loop.call_soon_threadsafe(self.close_idle)

    def close_idle(self) -> None:
        """Close what is idle, without waiting; a socket that is in use must not be closed under libpq's feet."""
        while self._idle:
            self._idle.pop().pgconn.finish()

    async def _take_place(self) -> None:
        if not self._places.locked():
            await self._places.acquire()
            return
        try:
            async with asyncio.timeout(self._options.connect_timeout):
                await self._places.acquire()
        except TimeoutError:
            raise NoneFree from None

    def _give_place(self) -> None:
        self._in_use -= 1
        self._places.release()

    async def _idle_or_new(self) -> AsyncConnection:
        deadline = time.monotonic() + self._options.connect_timeout
        while True:
            while self._idle:
                connection = self._idle.pop()
                if not connection.is_stale(self._options):
                    return connection
                await connection.close()
            try:
                return await self._opener.aopen()
            except psycopg.OperationalError as error:
                others = self._in_use - 1
                if not (may_pass(error) and others) or time.monotonic() > deadline:
                    raise
                await asyncio.sleep(uniform(*_PAUSE))  # noqa: S311 (no secret)


class _Lease(AbstractAsyncContextManager[AsyncConnection]):
    __slots__ = ("_connection", "_pool")

    def __init__(self, pool: LoopPool) -> None:
        self._pool = pool

    async def __aenter__(self) -> AsyncConnection:
        self._connection = await self._pool.take()
        return self._connection

    async def __aexit__(self, _: Any, error: BaseException | None, __: Any) -> None:
        if is_worn(error):
            await self._connection.close()
        await self._pool.give(self._connection)


def at_loop_end(pool: LoopPool) -> AsyncGenerator[None, None]:
    """Have a pool closed when its loop ends: a loop closes the async generators that were begun on it.

    Returns: what does so as long as it is kept.
    """
    waiting = _waiting(weakref.ref(pool))
    with suppress(StopIteration):
        waiting.__anext__().send(None)  # up to its only yield there is nothing to wait for
    return waiting


async def _waiting(pool: "weakref.ref[LoopPool]") -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        if (ending := pool()) is not None:
            ending.close_idle()
