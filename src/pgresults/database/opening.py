"""Opening connections of our own to one database."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
from sqlalchemy import URL

from pgresults.database.connections import AsyncConnection, Connection, PoolOptions, connection_parameters
from pgresults.database.refusals import refusal
from pgresults.database.session_limits import alimit, limit, session_limits


class Opener:
    """Opens connections, bounded on both sides.

    Parameters:
        url: gives the database's URL; called for every new connection, may start a server.
        aurl: its async twin.
        options: how connections are made.
    """

    def __init__(self, url: Callable[[], URL], aurl: Callable[[], Awaitable[URL]], options: PoolOptions) -> None:
        self._url = url
        self._aurl = aurl
        self._options = options
        self._limits = session_limits(options.response_timeout, options.max_idle)

    def open(self) -> Connection:
        """Open a connection; raises the driver's errors."""
        parameters = self._parameters(self._url())
        try:
            connection = Connection.connect(**parameters)
        except psycopg.OperationalError as error:
            raise refusal(error, parameters, self._options.connect_timeout) from error.__cause__
        connection.set_up(self._options)
        limit(connection, self._limits)
        return connection

    async def aopen(self) -> AsyncConnection:
        """Open an async connection; see `open`."""
        parameters = self._parameters(await self._aurl())
        try:
            connection = await AsyncConnection.connect(**parameters)
        except psycopg.OperationalError as error:
            timeout = self._options.connect_timeout
            raise await asyncio.to_thread(refusal, error, parameters, timeout) from error.__cause__
        connection.set_up(self._options)
        await alimit(connection, self._limits)
        return connection

    def _parameters(self, url: URL) -> dict[str, Any]:
        return connection_parameters(url, connect_timeout=self._options.connect_timeout)
