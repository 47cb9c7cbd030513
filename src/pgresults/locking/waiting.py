"""Waiting on the server for a beacon to go out, on a bounded number of connections."""

import asyncio
import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from psycopg.errors import LockNotAvailable, QueryCanceled

from pgresults.database.database import Database
from pgresults.database.driver import adrive, drive
from pgresults.database.pools import Pools
from pgresults.database.programs import Program, wait_for
from pgresults.database.retries import Attempts
from pgresults.operations.requests import Operation

_SOONEST_LOOK, _LATEST_LOOK = 0.25, 2.0
_PAUSE = (0.01, 0.045)
_FEW = 20
_TIME_IS_UP = (LockNotAvailable, QueryCanceled)
"""Ours, or that of a ``statement_timeout`` that the server, the role or the URL has set to less."""


def next_look(waited: float) -> float:
    """Seconds after which a waiter looks at the lock again, whatever happened; the longer it has waited the later."""
    return min(max(_SOONEST_LOOK, waited / 2), _LATEST_LOOK)


class WaitingRoom:
    """A number of connections that wait for beacons; who finds none free looks at the lock again after a pause.

    Parameters:
        database: where the locks are.
    """

    def __init__(self, database: Database) -> None:
        size = database.settings.lock_waiters
        # A server that lets a waiter wait is not silent.
        patient = max(database.settings.response_timeout, 2 * _LATEST_LOOK)
        options = replace(database.pool_options(), size=size, overflow=0, response_timeout=patient)
        self._schema = database.schema
        self._pools = Pools(database.url, database.aurl, options, f"{database.described.pool} lock waiters")
        self._places = threading.Semaphore(size)
        self._pausing = 0

    def wait(self, start: Callable[[], Operation[None]], seconds: float) -> Program[None]:
        """Wait with an operation until it ends or its time is up; either way the lock is worth another look.

        Raises: StorageUnavailable.
        """
        if not self._places.acquire(blocking=False):
            yield from self.pause(seconds)
            return
        try:
            yield from wait_for(lambda: self._wait(start), lambda: self._await(start))
        finally:
            self._places.release()

    def pause(self, seconds: float) -> Program[None]:
        """A moment of random length, no longer than so many seconds; the more there are the longer."""
        self._pausing += 1
        try:
            yield from pause(min(seconds, random.uniform(*_PAUSE) * max(1, self._pausing / _FEW)))  # noqa: S311 (no secret)
        finally:
            self._pausing -= 1

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
            except _TIME_IS_UP:
                return

    async def _await(self, start: Callable[[], Operation[None]]) -> None:
        attempt = Attempts(repeatable=True)
        with attempt:
            async with self._pools.aconnection() as connection:
                attempt.connected = True
                try:
                    await adrive(connection, self._schema, start())
                except _TIME_IS_UP:
                    return


def pause(seconds: float) -> Program[None]:
    """Wait for so many seconds."""
    return wait_for(lambda: time.sleep(seconds), lambda: asyncio.sleep(seconds))
