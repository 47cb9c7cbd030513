"""Operations on a connection of the caller's, as part of the caller's own database transaction."""

from typing import Any, TypeAlias

import psycopg
from psycopg.pq import PipelineStatus, TransactionStatus
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session

from pgresults.database.driver import adrive, drive
from pgresults.database.programs import Program, wait_for
from pgresults.database.retries import Attempts
from pgresults.errors import ConfigurationError
from pgresults.operations.registry import ping
from pgresults.operations.requests import Operation, T

SyncCaller: TypeAlias = Connection | Session | psycopg.Connection[Any]
AsyncCaller: TypeAlias = AsyncConnection | AsyncSession | psycopg.AsyncConnection[Any]
Caller: TypeAlias = SyncCaller | AsyncCaller
"""A connection or session of SQLAlchemy's, or a connection of psycopg's."""


_KINDS = (Connection, Session, psycopg.Connection, AsyncConnection, AsyncSession, psycopg.AsyncConnection)


def require_caller(connection: object) -> None:
    """Refuse what is no connection, or one that cannot be used as it is.

    Raises: ConfigurationError.
    """
    if not isinstance(connection, _KINDS):
        raise ConfigurationError(
            f"connection must be a SQLAlchemy Connection or Session or a psycopg Connection (or their async kin), "
            f"not {type(connection).__name__}",
            setting="connection",
        )
    if isinstance(connection, psycopg.Connection | psycopg.AsyncConnection):
        _require_fit(connection)


def call_on(caller: Caller, schema: str, operation: Operation[T]) -> Program[T]:
    """Carry an operation out within the caller's transaction, under a savepoint: if it fails, only it is undone.

    Raises: ConfigurationError for a sync connection on an event loop, or the other way round; what `Database.run`
        raises.
    """
    return wait_for(lambda: _run(caller, schema, operation), lambda: _arun(caller, schema, operation))


def _run(caller: Caller, schema: str, operation: Operation[T]) -> T:
    connection = _psycopg(caller)
    only = Attempts.only()
    with only:
        if _would_commit(connection):
            drive(connection, schema, ping())
        with connection.transaction():
            return drive(connection, schema, operation, only.note)
    raise AssertionError("the only attempt returns or raises")


async def _arun(caller: Caller, schema: str, operation: Operation[T]) -> T:
    connection = await _apsycopg(caller)
    only = Attempts.only()
    with only:
        if _would_commit(connection):
            await adrive(connection, schema, ping())
        async with connection.transaction():
            return await adrive(connection, schema, operation, only.note)
    raise AssertionError("the only attempt returns or raises")


def _would_commit(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> bool:
    """Whether the block would be a transaction of its own where the caller is yet to begin one with a statement."""
    return not connection.autocommit and connection.pgconn.transaction_status == TransactionStatus.IDLE


def _psycopg(caller: Caller) -> psycopg.Connection[Any]:
    if isinstance(caller, Session):
        caller = caller.connection()
    if isinstance(caller, Connection):
        if not caller.in_transaction():
            caller.begin()
        driver: Any = caller.connection.driver_connection
    else:
        driver = caller
    if not isinstance(driver, psycopg.Connection):
        raise _unfit(driver, "an async connection needs `async with transaction(...)`")
    _require_fit(driver)
    return driver


async def _apsycopg(caller: Caller) -> psycopg.AsyncConnection[Any]:
    if isinstance(caller, AsyncSession):
        caller = await caller.connection()
    if isinstance(caller, AsyncConnection):
        if not caller.in_transaction():
            await caller.begin()
        driver: Any = (await caller.get_raw_connection()).driver_connection
    else:
        driver = caller
    if not isinstance(driver, psycopg.AsyncConnection):
        raise _unfit(driver, "a sync connection needs `with transaction(...)`")
    _require_fit(driver)
    return driver


def _require_fit(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    if connection.pgconn.pipeline_status != PipelineStatus.OFF:
        raise ConfigurationError(
            "a connection in pipeline mode answers too late for what a write has to know: end the `pipeline()` block "
            "around the transaction first",
            setting="connection",
        )
    if connection.info.encoding != "utf-8":
        raise ConfigurationError(
            f"a connection whose client_encoding is {connection.info.encoding} cannot carry every key and provenance: "
            "connect with client_encoding=utf8, which leaves the database's own encoding as it is",
            setting="connection",
        )


def _unfit(driver: object, advice: str) -> ConfigurationError:
    return ConfigurationError(
        f"the transaction cannot use a connection of {type(driver).__module__}.{type(driver).__qualname__}: {advice}, "
        "and only psycopg 3 can be used",
        setting="connection",
    )
