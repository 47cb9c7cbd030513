"""Connections to one database, kept per process and per event loop, opened lazily.

What is lent is idle and autocommitting, and is dropped unless it comes back so: there is nothing to reset, and nothing
to ask the server, between one use and the next. That is why these pools are our own, and so small.
"""

import asyncio
import os
import threading
import weakref
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import psycopg
from sqlalchemy import URL, Engine
from sqlalchemy.ext.asyncio import AsyncEngine

from pgresults.database.connections import AsyncConnection, Connection, NoneFree, OwnConnection, connection_parameters
from pgresults.database.engines import aborrowed, borrowed, is_idle

C = TypeVar("C", bound=OwnConnection)


@dataclass(frozen=True)
class PoolOptions:
    """How connections are made and kept; times in seconds."""

    size: int
    overflow: int
    connect_timeout: float
    response_timeout: float
    prepare: bool


class _ThreadPool:
    """The connections of a process's threads."""

    def __init__(self, pools: "Pools") -> None:
        self._pools = pools
        # What a semaphore would do, which in Python takes longer than all the rest of this.
        self._places: SimpleQueue[None] = SimpleQueue()
        for _ in range(pools.options.size + pools.options.overflow):
            self._places.put(None)
        self._idle: list[Connection] = []
        self._retired = False

    def take(self) -> Connection:
        try:
            self._places.get(timeout=self._pools.options.connect_timeout)
        except Empty:
            raise NoneFree from None
        try:
            return self._idle.pop()
        except IndexError:
            pass
        try:
            return self._pools.connect()
        except BaseException:
            self._places.put(None)
            raise

    def give(self, connection: Connection) -> None:
        try:
            if is_idle(connection) and len(self._idle) < self._pools.options.size and not self._retired:
                self._idle.append(connection)
            else:
                connection.close()
        finally:
            self._places.put(None)

    def clear(self) -> None:
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def retire(self) -> None:
        """Close what is idle now, and what is in use when it comes back."""
        self._retired = True
        self.clear()


class _LoopPool:
    """The connections of an event loop; none of them outlives it."""

    def __init__(self, pools: "Pools", loop: asyncio.AbstractEventLoop) -> None:
        self.loop = weakref.ref(loop)
        self._pools = pools
        self._places = asyncio.Semaphore(pools.options.size + pools.options.overflow)
        self._idle: list[AsyncConnection] = []
        self._retired = False
        self._opened: weakref.WeakSet[AsyncConnection] = weakref.WeakSet()

    async def take(self) -> AsyncConnection:
        await self._take_place()
        if self._idle:
            return self._idle.pop()
        try:
            connection = await self._pools.aconnect()
        except BaseException:
            self._places.release()
            raise
        self._opened.add(connection)
        return connection

    async def _take_place(self) -> None:
        if not self._places.locked():
            await self._places.acquire()
            return
        try:
            async with asyncio.timeout(self._pools.options.connect_timeout):
                await self._places.acquire()
        except TimeoutError:
            raise NoneFree from None

    async def give(self, connection: AsyncConnection) -> None:
        self._places.release()
        if is_idle(connection) and len(self._idle) < self._pools.options.size and not self._retired:
            self._idle.append(connection)
        else:
            await connection.close()

    async def clear(self) -> None:
        while self._idle:
            await self._idle.pop().close()

    def is_dead(self) -> bool:
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
                loop.call_soon_threadsafe(self._close_idle)

    def _close_idle(self) -> None:
        # A socket that is in use must not be closed under libpq's feet.
        while self._idle:
            self._idle.pop().pgconn.finish()


class _Lease(AbstractContextManager[Connection]):
    """A connection for the length of a ``with`` block."""

    __slots__ = ("_connection", "_pool")

    def __init__(self, pool: _ThreadPool) -> None:
        self._pool = pool

    def __enter__(self) -> Connection:
        self._connection = self._pool.take()
        return self._connection

    def __exit__(self, *_: object) -> None:
        self._pool.give(self._connection)


class _AsyncLease(AbstractAsyncContextManager[AsyncConnection]):
    """A connection for the length of an ``async with`` block."""

    __slots__ = ("_connection", "_pool")

    def __init__(self, pool: _LoopPool) -> None:
        self._pool = pool

    async def __aenter__(self) -> AsyncConnection:
        self._connection = await self._pool.take()
        return self._connection

    async def __aexit__(self, *_: object) -> None:
        await self._pool.give(self._connection)


@dataclass
class _Process:
    """What one process has open; a forked child starts with its own and leaves its parent's alone."""

    threads: _ThreadPool
    loops: list[_LoopPool] = field(default_factory=list)
    mutex: threading.Lock = field(default_factory=threading.Lock)
    pid: int = field(default_factory=os.getpid)


class Pools:
    """Idle, autocommitting psycopg connections to one database, for threads and for event loops.

    Parameters:
        url: gives the database's URL; called for every new connection, may start a server.
        aurl: its async twin.
        options: how connections are made and kept.
        engine: the caller's own engine to use for sync calls.
        async_engine: the caller's own engine to use for async calls.
    """

    def __init__(
        self,
        url: Callable[[], URL],
        aurl: Callable[[], Awaitable[URL]],
        options: PoolOptions,
        engine: Engine | None = None,
        async_engine: AsyncEngine | None = None,
    ) -> None:
        self.options = options
        self._url = url
        self._aurl = aurl
        self._engine = engine
        self._async_engine = async_engine
        self._process = _Process(_ThreadPool(self))

    def connection(self) -> AbstractContextManager[psycopg.Connection[Any]]:
        """Lend a connection; it is dropped unless it comes back idle."""
        process = self._current()
        return _Lease(process.threads) if self._engine is None else borrowed(self._engine)

    def aconnection(self) -> AbstractAsyncContextManager[psycopg.AsyncConnection[Any]]:
        """Lend an async connection of the running event loop; see `connection`."""
        process = self._current()
        return _AsyncLease(self._loop_pool(process)) if self._async_engine is None else aborrowed(self._async_engine)

    def forget(self) -> None:
        """Close the idle connections: after one was found dead the others are not to be trusted."""
        if self._engine is None:
            self._current().threads.clear()
        else:
            self._engine.dispose()

    async def aforget(self) -> None:
        """Close the idle connections of the running event loop; see `forget`."""
        if self._async_engine is None:
            await self._loop_pool(self._current()).clear()
        else:
            await self._async_engine.dispose()

    def close(self) -> None:
        """Close the connections of this process, those in use when they come back; a later call opens new ones."""
        process, self._process = self._process, _Process(_ThreadPool(self))
        if process.pid == os.getpid():
            process.threads.retire()
            for pool in process.loops:
                pool.retire()

    async def aclose(self) -> None:
        """Close the connections of this process; see `close`."""
        self.close()
        await asyncio.sleep(0)  # this loop's own idle ones are closed before the caller goes on

    def connect(self) -> Connection:
        """Open a connection of the caller's own, outside of the pool."""
        return self._set_up(Connection.connect(**self._parameters(self._url())))

    async def aconnect(self) -> AsyncConnection:
        """Open an async connection of the caller's own, outside of the pool."""
        return self._set_up(await AsyncConnection.connect(**self._parameters(await self._aurl())))

    def _set_up(self, connection: C) -> C:
        connection.response_timeout, connection.prepare = self.options.response_timeout, self.options.prepare
        return connection

    def _current(self) -> _Process:
        if self._process.pid != os.getpid():
            self._process = _Process(_ThreadPool(self))
            if self._engine is not None:
                self._engine.dispose(close=False)
            if self._async_engine is not None:
                self._async_engine.sync_engine.dispose(close=False)
        return self._process

    def _loop_pool(self, process: _Process) -> _LoopPool:
        running = asyncio.get_running_loop()
        for pool in list(process.loops):
            if pool.loop() is running:
                return pool
        with process.mutex:
            for dead in [pool for pool in process.loops if pool.is_dead()]:
                dead.abandon()
                process.loops.remove(dead)
            process.loops.append(_LoopPool(self, running))
            return process.loops[-1]

    def _parameters(self, url: URL) -> dict[str, Any]:
        return connection_parameters(url, connect_timeout=self.options.connect_timeout)
