"""Borrowing psycopg connections from SQLAlchemy engines of the caller's, which get them back as they were."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.pq import PipelineStatus, TransactionStatus
from sqlalchemy import Engine
from sqlalchemy.util import greenlet_spawn

from pgresults.database.errors import is_worn

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine


@contextmanager
def borrowed(engine: Engine) -> Iterator[psycopg.Connection[Any]]:
    """Borrow an idle, autocommitting connection; it is dropped from the pool if it comes back in another state."""
    pooled = engine.raw_connection()
    connection: psycopg.Connection[Any] = pooled.driver_connection  # type: ignore[assignment]
    was_autocommit = connection.autocommit
    try:
        if not is_idle(connection):  # a hook of the engine's owner set it up, and left its transaction open
            connection.commit()
        if not was_autocommit:
            connection.autocommit = True
        yield connection
    except psycopg.Error as error:
        if is_worn(error):
            connection.close()
        raise
    finally:
        if not is_idle(connection):
            pooled.invalidate()
        elif not was_autocommit:
            connection.autocommit = False
        pooled.close()


@asynccontextmanager
async def aborrowed(engine: "AsyncEngine") -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    """Borrow an async connection; see `borrowed`."""
    pooled = await engine.raw_connection()
    connection: psycopg.AsyncConnection[Any] = pooled.driver_connection  # type: ignore[assignment]
    was_autocommit = connection.autocommit
    try:
        if not is_idle(connection):
            await connection.commit()
        if not was_autocommit:
            await connection.set_autocommit(True)
        yield connection
    except psycopg.Error as error:
        if is_worn(error):
            await connection.close()
        raise
    finally:
        if not is_idle(connection):
            await greenlet_spawn(pooled.invalidate)
        elif not was_autocommit:
            await connection.set_autocommit(False)
        await greenlet_spawn(pooled.close)


def is_idle(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> bool:
    """Whether a connection is open and outside of any transaction."""
    pgconn = connection.pgconn
    return pgconn.transaction_status == TransactionStatus.IDLE and pgconn.pipeline_status == PipelineStatus.OFF
