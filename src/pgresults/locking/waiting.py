"""Waiting on the server for a beacon to go out, on a bounded number of connections."""

import asyncio
import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from psycopg.errors import LockNotAvailable

from pgresults.database.database import Database
from pgresults.database.driver import adrive, drive
from pgresults.database.pools import Pools
from pgresults.database.programs import Program, wait_for
from pgresults.database.retries import Attempts
from pgresults.operations.requests import Operation

LONGEST_WAIT = 30.0
"""Seconds after which a waiter looks at the lock again, whatever happened."""

_PAUSE = (0.02, 0.1)


class WaitingRoom:
    """A number of connections that wait for beacons; who finds none free looks at the lock again after a pause.

    Parameters:
        database: where the locks are.
    """

    def __init__(self, database: Database) -> None:
        size = database.settings.lock_waiters
        # A server that lets a waiter wait is not silent.
        patient = max(database.settings.response_timeout, 2 * LONGEST_WAIT)
        options = replace(database.pool_options(), size=size, overflow=0, response_timeout=patient)
        self._schema = database.schema
        self._pools = Pools(database.url, database.aurl, options)
        self._places = threading.Semaphore(size)

    def wait(self, start: Callable[[], Operation[None]], seconds: float) -> Program[None]:
        """Wait with an operation until it ends or its time is up; either way the lock is worth another look.

        Raises: StorageUnavailable.
        """
        if not self._places.acquire(blocking=False):
            yield from pause(seconds)
            return
        try:
            yield from wait_for(lambda: self._wait(start), lambda: self._await(start))
        finally:
            self._places.release()

    def close(self) -> None:
        """Close the connections of this process."""
        self._pools.close()

    async def aclose(self) -> None:
        """Close the connections of this process."""
        await self._pools.aclose()

    def _wait(self, start: Callable[[], Operation[None]]) -> None:
        attempt = Attempts(repeatable=True)
        with attempt, self._pools.connection() as connection:
            attempt.connected = True
            try:
                drive(connection, self._schema, start())
            except LockNotAvailable:
                return

    async def _await(self, start: Callable[[], Operation[None]]) -> None:
        attempt = Attempts(repeatable=True)
        with attempt:
            async with self._pools.aconnection() as connection:
                attempt.connected = True
                try:
                    await adrive(connection, self._schema, start())
                except LockNotAvailable:
                    return


def pause(seconds: float) -> Program[None]:
    """A moment of random length, no longer than so many seconds: those who look again do not all look at once."""
    moment = min(seconds, random.uniform(*_PAUSE))  # noqa: S311 (no secret)
    return wait_for(lambda: time.sleep(moment), lambda: asyncio.sleep(moment))
