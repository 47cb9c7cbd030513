"""A connection for some questions of somebody who looks after a server; none of them takes long."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from sqlalchemy import URL

from pgresults.database.connections import Connection, connection_parameters
from pgresults.database.errors import translate

_CONNECT_TIMEOUT = 10.0
_RESPONSE_TIMEOUT = 30.0


@contextmanager
def asking(url: URL) -> Iterator[psycopg.Connection[Any]]:
    """A connection of its own, closed at the end; raises StorageUnavailable and ConfigurationError."""
    try:
        with Connection.connect(**connection_parameters(url, connect_timeout=_CONNECT_TIMEOUT)) as connection:
            connection.response_timeout = _RESPONSE_TIMEOUT
            yield connection
    except psycopg.Error as error:
        raise translate(error, connected=False) from error
