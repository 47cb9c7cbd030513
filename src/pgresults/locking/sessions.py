"""The session that holds a process's beacons, for its threads and its event loops.

It never comes from a pool: a beacon lives exactly as long as its session. There is one for all, so that a lock can be
taken and given back anywhere in the process, and outlives the event loop that took it. Behind a pooler a session is
not ours to keep, which shows in the server's process not being the one we were connected to; then locks are leases.
"""

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar
from uuid import UUID, uuid4

from psycopg import OperationalError
from psycopg.errors import ReadOnlySqlTransaction

from pgresults.database import prepared
from pgresults.database.connections import Connection
from pgresults.database.database import Database
from pgresults.database.driver import drive
from pgresults.database.engines import is_idle
from pgresults.database.retries import Attempts
from pgresults.locking.threads import outcome_of
from pgresults.operations.locks import open_session
from pgresults.operations.requests import Operation

logger = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Session:
    """A connection that holds beacons; ``pooled`` when it cannot, because a pooler stands between."""

    connection: Connection
    pooled: bool
    id: UUID = field(default_factory=uuid4)
    turn: threading.Lock = field(default_factory=threading.Lock)

    def require_idle(self) -> None:
        """Have a conversation that was interrupted end before another begins; else the session is of no use any more.

        Raises: psycopg.OperationalError.
        """
        connection = self.connection
        if is_idle(connection):
            return
        if prepared.AVAILABLE and not connection.closed:
            connection.wait(connection.statements.drain())
        if not is_idle(connection):
            connection.close()
            raise OperationalError("the session of this process's locks was interrupted in mid-conversation")


class _ProcessSession:
    """What one process has open; a forked child opens its own."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.mutex = threading.Lock()
        self.session: Session | None = None
        # One thread: what event loops ask for is carried out in the order in which they ask.
        self.thread = ThreadPoolExecutor(1, "pgresults-locks")


class Sessions:
    """Runs operations on the session of the calling process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._process = _ProcessSession()

    def run(self, start: Callable[[Session], Operation[T]]) -> T:
        """Carry an operation out on the process's session; it is told the session.

        An operation is begun anew when the session is lost: what the lost one held has gone with it.
        """
        tries = Attempts(repeatable=True)
        while True:
            with tries:
                session = self._session()
                tries.connected = True
                with session.turn:
                    session.require_idle()
                    try:
                        return drive(session.connection, self._database.schema, start(session))
                    except ReadOnlySqlTransaction:
                        session.connection.close()  # where no lock can be taken any more, none is held
                        raise

    async def arun(self, start: Callable[[Session], Operation[T]]) -> T:
        """Have a thread carry an operation out, see `run`; it is carried out even if nobody awaits it any more."""
        return await outcome_of(self._current().thread.submit(self.run, start))

    def close(self) -> None:
        """End the session of this process, and with it the locks it holds."""
        process, self._process = self._process, _ProcessSession()
        if process.pid != os.getpid():
            return
        process.thread.shutdown(wait=False)
        if (session := process.session) is not None:
            with session.turn:
                session.connection.close()

    async def aclose(self) -> None:
        """End the session of this process, and with it the locks it holds."""
        await asyncio.to_thread(self.close)

    def _current(self) -> _ProcessSession:
        if self._process.pid != os.getpid():
            self._process = _ProcessSession()
        return self._process

    def _session(self) -> Session:
        process = self._current()
        with process.mutex:
            if process.session is None or process.session.connection.closed:
                if process.session is not None:
                    logger.warning("the session of this process's locks was lost; whoever waited may have them by now")
                connection = self._database.connect()
                ours = drive(connection, self._database.schema, open_session(connection.info.backend_pid))
                process.session = Session(connection, pooled=not ours)
            return process.session
