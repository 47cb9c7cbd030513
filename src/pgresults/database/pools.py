"""Connections to one database, kept per process and per event loop, opened lazily.

What is lent is idle and autocommitting, and is dropped unless it comes back so: there is nothing to reset, and nothing
to ask the server, between one use and the next. That is why these pools are our own, and so small.
"""

import asyncio
import os
import threading
import weakref
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
from sqlalchemy import URL, Engine

from pgresults.database.connections import AsyncConnection, Connection, PoolOptions
from pgresults.database.engines import aborrowed, borrowed
from pgresults.database.loop_pool import LoopPool
from pgresults.database.opening import Opener
from pgresults.database.thread_pool import ThreadPool

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine


@dataclass
class _Process:
    """What one process has open; a forked child starts with its own and leaves its parent's alone."""

    threads: ThreadPool
    loops: list[LoopPool] = field(default_factory=list)
    mutex: threading.Lock = field(default_factory=threading.Lock)
    pid: int = field(default_factory=os.getpid)


class Usage(NamedTuple):
    """How many connections are open and idle, how many in use, and how many there can be."""

    idle: int
    used: int
    most: int


class Pools:
    """Idle, autocommitting psycopg connections to one database, for threads and for event loops.

    Parameters:
        url: gives the database's URL; called for every new connection, may start a server.
        aurl: its async twin.
        options: how connections are made and kept.
        name: what they are called where their usage is shown.
        engine: the caller's own engine to use for sync calls.
        async_engine: the caller's own engine to use for async calls.
    """

    def __init__(
        self,
        url: Callable[[], URL],
        aurl: Callable[[], Awaitable[URL]],
        options: PoolOptions,
        name: str,
        engine: Engine | None = None,
        async_engine: "AsyncEngine | None" = None,
    ) -> None:
        self._options = options
        self._opener = Opener(url, aurl, options)
        self.name = name
        self._engine = engine
        self._async_engine = async_engine
        self._process = self._begin()
        _known.add(self)

    def connection(self) -> AbstractContextManager[psycopg.Connection[Any]]:
        """Lend a connection; it is dropped unless it comes back idle."""
        process = self._current()
        return process.threads.lease() if self._engine is None else borrowed(self._engine)

    def aconnection(self) -> AbstractAsyncContextManager[psycopg.AsyncConnection[Any]]:
        """Lend an async connection of the running event loop; see `connection`."""
        process = self._current()
        return self._loop_pool(process).lease() if self._async_engine is None else aborrowed(self._async_engine)

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
        process, self._process = self._process, self._begin()
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
        return self._opener.open()

    async def aconnect(self) -> AsyncConnection:
        """Open an async connection of the caller's own, outside of the pool."""
        return await self._opener.aopen()

    def usage(self) -> Usage | None:
        """How this process uses them; None where it has none open."""
        process = self._process
        if process.pid != os.getpid():
            return None
        every = [process.threads.usage(), *(pool.usage() for pool in [*process.loops] if not pool.is_dead())]
        idle, used = map(sum, zip(*every, strict=True))
        most = (self._options.size + self._options.overflow) * len(every)
        return Usage(idle, used, most) if idle + used else None

    def _begin(self) -> _Process:
        return _Process(ThreadPool(self._opener, self._options))

    def _current(self) -> _Process:
        if self._process.pid != os.getpid():
            self._process = self._begin()
            if self._engine is not None:
                self._engine.dispose(close=False)
            if self._async_engine is not None:
                self._async_engine.sync_engine.dispose(close=False)
        return self._process

    def _loop_pool(self, process: _Process) -> LoopPool:
        running = asyncio.get_running_loop()
        for pool in list(process.loops):
            if pool.loop() is running:
                return pool
        with process.mutex:
            for dead in [pool for pool in process.loops if pool.is_dead()]:
                dead.abandon()
                process.loops.remove(dead)
            process.loops.append(LoopPool(self._opener, self._options))
            return process.loops[-1]


_known: weakref.WeakSet[Pools] = weakref.WeakSet()


def known() -> list[Pools]:
    """The pools of this process, for who wants to know how they are used."""
    return list(_known)
