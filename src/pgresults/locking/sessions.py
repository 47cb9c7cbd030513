"""The sessions that hold beacons: one connection of its own for a process's threads, one for each event loop.

They never come from a pool: a beacon lives exactly as long as its session. Behind a pooler a session is not ours to
keep, which shows in the server's process not being the one we were connected to; then locks are leases.
"""

import asyncio
import logging
import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from uuid import UUID, uuid4

import psycopg

from pgresults.database.database import Database
from pgresults.database.driver import adrive, drive
from pgresults.database.retries import Attempts
from pgresults.operations.locks import open_session
from pgresults.operations.requests import Operation

logger = logging.getLogger(__name__)
T = TypeVar("T")
C = TypeVar("C", psycopg.Connection[Any], psycopg.AsyncConnection[Any])


@dataclass(frozen=True, eq=False)
class Session(Generic[C]):
    """A connection that holds beacons; ``pooled`` when it cannot, because a pooler stands between."""

    connection: C
    pooled: bool
    id: UUID = field(default_factory=uuid4)


@dataclass(eq=False)
class _LoopSession:
    """The session of an event loop, opened once by whoever comes first."""

    loop: weakref.ref[asyncio.AbstractEventLoop]
    opening: asyncio.Lock = field(default_factory=asyncio.Lock)
    session: Session[psycopg.AsyncConnection[Any]] | None = None


class _ProcessSessions:
    """What one process has open; a forked child opens its own."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.mutex = threading.Lock()
        self.session: Session[psycopg.Connection[Any]] | None = None
        self.loops: list[_LoopSession] = []


class Sessions:
    """Runs operations on the session of the calling thread's process or of the running event loop."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._process = _ProcessSessions()

    def run(self, start: Callable[[Session[Any]], Operation[T]]) -> T:
        """Carry an operation out on the threads' session; it is told the session.

        An operation is begun anew when the session is lost: what the lost one held has gone with it.
        """
        tries = Attempts(repeatable=True)
        while True:
            with tries:
                session = self._session()
                tries.connected = True
                return drive(session.connection, self._database.schema, start(session))

    async def arun(self, start: Callable[[Session[Any]], Operation[T]]) -> T:
        """Carry an operation out on the running event loop's session; see `run`."""
        tries = Attempts(repeatable=True)
        while True:
            with tries:
                session = await self._loop_session()
                tries.connected = True
                return await adrive(session.connection, self._database.schema, start(session))

    def run_on(self, session_id: UUID, operation: Callable[[], Operation[None]]) -> None:
        """Have the session that holds something carry an operation out, without waiting for another's event loop."""
        process = self._current()
        if process.session is not None and process.session.id == session_id:
            drive(process.session.connection, self._database.schema, operation())
            return
        for place in process.loops:
            loop, session = place.loop(), place.session
            if session is not None and session.id == session_id and loop is not None and loop.is_running():
                work = adrive(session.connection, self._database.schema, operation())
                asyncio.run_coroutine_threadsafe(work, loop)

    def close(self) -> None:
        """End the sessions of this process, and with them the locks they hold."""
        self._close()

    async def aclose(self) -> None:
        """End the sessions of this process, and with them the locks they hold."""
        for ending in await asyncio.to_thread(self._close):
            await asyncio.wrap_future(ending)

    def _close(self) -> list[Future[None]]:
        """End what can be ended at once; gives the endings that living event loops are asked for."""
        process, self._process = self._process, _ProcessSessions()
        if process.pid != os.getpid():
            return []
        if (session := process.session) is not None:
            with session.connection.lock:
                session.connection.close()
        return [ending for place in process.loops if (ending := _end(place)) is not None]

    def _current(self) -> _ProcessSessions:
        if self._process.pid != os.getpid():
            self._process = _ProcessSessions()
        return self._process

    def _session(self) -> Session[psycopg.Connection[Any]]:
        process = self._current()
        with process.mutex:
            if process.session is None or process.session.connection.closed:
                _warn_if_lost(process.session)
                connection = self._database.connect()
                ours = drive(connection, self._database.schema, open_session(connection.info.backend_pid))
                process.session = Session(connection, pooled=not ours)
            return process.session

    async def _loop_session(self) -> Session[psycopg.AsyncConnection[Any]]:
        place = self._place_of_loop()
        async with place.opening:
            if place.session is None or place.session.connection.closed:
                _warn_if_lost(place.session)
                connection = await self._database.aconnect()
                ours = await adrive(connection, self._database.schema, open_session(connection.info.backend_pid))
                place.session = Session(connection, pooled=not ours)
            return place.session

    def _place_of_loop(self) -> _LoopSession:
        process, running = self._current(), asyncio.get_running_loop()
        with process.mutex:
            for place in list(process.loops):
                loop = place.loop()
                if loop is running:
                    return place
                if loop is None or loop.is_closed():
                    _abandon(place)
                    process.loops.remove(place)
            process.loops.append(_LoopSession(weakref.ref(running)))
            return process.loops[-1]


def _end(place: _LoopSession) -> Future[None] | None:
    """Have a session's event loop close it once nothing uses it; close it here if the loop is gone."""
    loop, session = place.loop(), place.session
    if session is None:
        return None
    if loop is None or not loop.is_running():
        _abandon(place)
        return None
    return asyncio.run_coroutine_threadsafe(_close_unused(session.connection), loop)


async def _close_unused(connection: psycopg.AsyncConnection[Any]) -> None:
    async with connection.lock:
        await connection.close()


def _abandon(place: _LoopSession) -> None:
    """Close the socket of a session whose event loop can no longer do it."""
    if place.session is not None:
        place.session.connection.pgconn.finish()


def _warn_if_lost(session: Session[Any] | None) -> None:
    if session is not None:
        logger.warning("the session that held this process's locks was lost; whoever waited may have them by now")
