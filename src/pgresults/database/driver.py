"""The two drivers that carry an operation out: over a psycopg connection, and over an async one."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import cached_property
from typing import Any, TypeAlias

import psycopg
from psycopg import sql
from psycopg.abc import PQGen
from psycopg.adapt import AdaptersMap
from psycopg.pq import Format
from psycopg.rows import tuple_row

from pgresults.database import prepared
from pgresults.database.adapters import own_adapters
from pgresults.database.connections import OwnConnection
from pgresults.operations.requests import Copy, Execute, ExecuteMany, Operation, Request, Row, Stream, T
from pgresults.sql.compiled import Query

Note: TypeAlias = Callable[[Request], None]

_UNLIMITED = sql.SQL("SET statement_timeout = 0")


def drive(connection: psycopg.Connection[Any], schema: str, operation: Operation[T], note: Note | None = None) -> T:
    """Carry an operation out over a connection.

    Parameters:
        connection: a psycopg connection; its transaction, if any, is the caller's.
        schema: the schema that holds the tables.
        operation: what to do.
        note: told each request before it is sent.

    Returns: what the operation returns.
    Raises: psycopg's errors, untranslated.
    """
    answer: list[Row] | None = None
    while True:
        try:
            request = operation.send(answer)  # type: ignore[arg-type] # a generator's first send is None
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        if note is not None:
            note(request)
        query = request.statement.query(schema)
        talk = _talk(connection, query, request)
        if talk is None:
            answer = _perform(connection, query, request)
        else:
            with connection.lock:
                answer = connection.wait(talk)


def _talk(connection: psycopg.BaseConnection[Any], query: Query, request: Request) -> PQGen[list[Row]] | None:
    """The quick way for a request, on a connection of our own; None: a cursor carries it out."""
    if query.plan_anew or not (prepared.AVAILABLE and isinstance(connection, OwnConnection)):
        return None
    match request:
        case Execute(_, parameters):
            return connection.statements.fetch(query.text, query.values(parameters))
        case ExecuteMany(_, many):
            return connection.statements.fetch_first(query.text, map(query.values, many))
    return None


class _WithAdapters:
    """A cursor that adapts as we do, also on a connection of the caller's."""

    @cached_property
    def adapters(self) -> AdaptersMap:
        """How values are sent and received."""
        return own_adapters()


class _Cursor(_WithAdapters, psycopg.RawCursor[Row]):
    pass


class _AsyncCursor(_WithAdapters, psycopg.AsyncRawCursor[Row]):
    pass


def _perform(connection: psycopg.Connection[Any], query: Query, request: Request) -> list[Row]:
    with _Cursor(connection, row_factory=tuple_row) as cursor:
        cursor.format = Format.BINARY
        match request:
            case Execute(_, parameters):
                cursor.execute(query.text, query.values(parameters), prepare=_preparing(query))
                return [] if cursor.rownumber is None else cursor.fetchall()
            case ExecuteMany(_, many):
                cursor.executemany(query.text, list(map(query.values, many)), returning=True)
                return [cursor.fetchone() or () for _ in results_of(cursor)]
            case Stream(_, parameters, sink):
                with _unhurried(connection):
                    for row in cursor.stream(query.text, query.values(parameters)):
                        sink(row)
            case Copy(statement, rows):
                with _unhurried(connection), cursor.copy(query.text) as copy:
                    copy.set_types(statement.types)
                    for row in rows:
                        copy.write_row(row)
    return []


def _preparing(query: Query) -> bool | None:
    """Whether a cursor prepares a query; None: as its connection does."""
    return False if query.plan_anew else None


@contextmanager
def _unhurried(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """What is copied or streamed takes as long as its bytes, and is not silent meanwhile."""
    patience = connection.patience if isinstance(connection, OwnConnection) else None
    if patience is not None:
        connection.execute(_UNLIMITED)
    yield
    if patience is not None:
        connection.execute(_limited(patience))


def _limited(patience: str) -> sql.Composed:
    return sql.SQL("SET statement_timeout = {}").format(patience)


def results_of(cursor: psycopg.RawCursor[Row] | psycopg.AsyncRawCursor[Row]) -> Iterator[None]:
    """Turn a cursor to the results of several executions, one after the other."""
    yield
    while cursor.nextset():
        yield


async def adrive(
    connection: psycopg.AsyncConnection[Any], schema: str, operation: Operation[T], note: Note | None = None
) -> T:
    """Carry an operation out over an async connection; see `drive`."""
    answer: list[Row] | None = None
    while True:
        try:
            request = operation.send(answer)  # type: ignore[arg-type] # a generator's first send is None
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        if note is not None:
            note(request)
        query = request.statement.query(schema)
        talk = _talk(connection, query, request)
        if talk is None:
            answer = await _aperform(connection, query, request)
        else:
            async with connection.lock:
                answer = await connection.wait(talk)


async def _aperform(connection: psycopg.AsyncConnection[Any], query: Query, request: Request) -> list[Row]:
    async with _AsyncCursor(connection, row_factory=tuple_row) as cursor:
        cursor.format = Format.BINARY
        match request:
            case Execute(_, parameters):
                await cursor.execute(query.text, query.values(parameters), prepare=_preparing(query))
                return [] if cursor.rownumber is None else await cursor.fetchall()
            case ExecuteMany(_, many):
                await cursor.executemany(query.text, list(map(query.values, many)), returning=True)
                return [await cursor.fetchone() or () for _ in results_of(cursor)]
            case Stream(_, parameters, sink):
                async with _aunhurried(connection):
                    async for row in cursor.stream(query.text, query.values(parameters)):
                        sink(row)
            case Copy(statement, rows):
                async with _aunhurried(connection), cursor.copy(query.text) as copy:
                    copy.set_types(statement.types)
                    for row in rows:
                        await copy.write_row(row)
    return []


@asynccontextmanager
async def _aunhurried(connection: psycopg.AsyncConnection[Any]) -> AsyncIterator[None]:
    """The async twin of `_unhurried`."""
    patience = connection.patience if isinstance(connection, OwnConnection) else None
    if patience is not None:
        await connection.execute(_UNLIMITED)
    yield
    if patience is not None:
        await connection.execute(_limited(patience))
