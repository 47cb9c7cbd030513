"""Operations on a connection of the caller's, as part of the caller's own database transaction."""

from typing import TYPE_CHECKING, Any, TypeAlias, Union

import psycopg
from psycopg.pq import PipelineStatus, TransactionStatus
from sqlalchemy import Connection

from pgresults.database.driver import adrive, drive
from pgresults.database.lookups import (
    DjangoConnection,
    is_async_connection,
    is_async_session,
    is_django,
    is_session,
)
from pgresults.database.programs import Program, wait_for
from pgresults.database.retries import Attempts
from pgresults.errors import ConfigurationError
from pgresults.operations.registry import ping
from pgresults.operations.requests import Operation, T

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
    from sqlalchemy.orm import Session

# `Union`, for names may stand in it.
SyncCaller: TypeAlias = Union[Connection, "Session", psycopg.Connection[Any], DjangoConnection]
AsyncCaller: TypeAlias = Union["AsyncConnection", "AsyncSession", psycopg.AsyncConnection[Any]]
Caller: TypeAlias = SyncCaller | AsyncCaller
"""A connection or session of SQLAlchemy's, or a connection of psycopg's or Django's."""

_KINDS = (Connection, psycopg.Connection, psycopg.AsyncConnection)


def require_caller(connection: object) -> None:
    """Refuse what is no connection, or one that cannot be used as it is.

    Raises: ConfigurationError.
    """
    asked = (is_session, is_async_connection, is_async_session, is_django)
    if not isinstance(connection, _KINDS) and not any(is_it(connection) for is_it in asked):
        raise ConfigurationError(
            f"connection must be a SQLAlchemy Connection or Session, a psycopg Connection (or their async kin) or "
            f"django.db.connection, not {type(connection).__name__}",
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
    if is_session(caller):
        caller = caller.connection()
    if isinstance(caller, Connection):
        if not caller.in_transaction():
            caller.begin()
        driver: Any = caller.connection.driver_connection
    elif is_django(caller):
        driver = _of_atomic_block(caller)
    else:
        driver = caller
    if not isinstance(driver, psycopg.Connection):
        raise _unfit(driver, "an async connection needs `async with transaction(...)`")
    _require_fit(driver)
    return driver


def _of_atomic_block(caller: DjangoConnection) -> Any:
    """The driver's connection, in which Django has begun a transaction."""
    if not caller.in_atomic_block:
        raise ConfigurationError(
            "Django commits every statement by itself here: use its connection inside of `transaction.atomic()`",
            setting="connection",
        )
    return caller.connection


async def _apsycopg(caller: Caller) -> psycopg.AsyncConnection[Any]:
    if is_async_session(caller):
        caller = await caller.connection()
    if is_async_connection(caller):
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
