"""The two drivers that carry an operation out: over a psycopg connection, and over an async one."""

from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg.pq import Format
from psycopg.rows import tuple_row

from pgresults.operations.requests import Copy, Execute, ExecuteMany, Operation, Request, Row, Stream, T


def drive(connection: psycopg.Connection[Any], schema: str, operation: Operation[T]) -> T:
    """Carry an operation out over a connection.

    Parameters:
        connection: a psycopg connection; its transaction, if any, is the caller's.
        schema: the schema that holds the tables.
        operation: what to do.

    Returns: what the operation returns.
    Raises: psycopg's errors, untranslated.
    """
    with psycopg.RawCursor(connection, row_factory=tuple_row) as cursor:
        cursor.format = Format.BINARY
        answer: list[Row] | None = None
        while True:
            try:
                request = operation.send(answer)  # type: ignore[arg-type] # a generator's first send is None
            except StopIteration as done:
                return done.value  # type: ignore[no-any-return]
            answer = _perform(cursor, schema, request)


def _perform(cursor: psycopg.RawCursor[Row], schema: str, request: Request) -> list[Row]:
    query, names = request.statement.query(schema)
    match request:
        case Execute(_, parameters):
            cursor.execute(query, [parameters[name] for name in names])
            return [] if cursor.rownumber is None else cursor.fetchall()
        case ExecuteMany(_, many):
            cursor.executemany(query, [[parameters[name] for name in names] for parameters in many], returning=True)
            return [cursor.fetchone() or () for _ in results_of(cursor)]
        case Stream(_, parameters, sink):
            for row in cursor.stream(query, [parameters[name] for name in names]):
                sink(row)
        case Copy(statement, rows):
            with cursor.copy(query) as copy:
                copy.set_types(statement.types)
                for row in rows:
                    copy.write_row(row)
    return []


def results_of(cursor: psycopg.RawCursor[Row] | psycopg.AsyncRawCursor[Row]) -> Iterator[None]:
    """Turn a cursor to the results of several executions, one after the other."""
    yield
    while cursor.nextset():
        yield


async def adrive(connection: psycopg.AsyncConnection[Any], schema: str, operation: Operation[T]) -> T:
    """Carry an operation out over an async connection; see `drive`."""
    async with psycopg.AsyncRawCursor(connection, row_factory=tuple_row) as cursor:
        cursor.format = Format.BINARY
        answer: list[Row] | None = None
        while True:
            try:
                request = operation.send(answer)  # type: ignore[arg-type] # a generator's first send is None
            except StopIteration as done:
                return done.value  # type: ignore[no-any-return]
            answer = await _aperform(cursor, schema, request)


async def _aperform(cursor: psycopg.AsyncRawCursor[Row], schema: str, request: Request) -> list[Row]:
    query, names = request.statement.query(schema)
    match request:
        case Execute(_, parameters):
            await cursor.execute(query, [parameters[name] for name in names])
            return [] if cursor.rownumber is None else await cursor.fetchall()
        case ExecuteMany(_, many):
            sets = [[parameters[name] for name in names] for parameters in many]
            await cursor.executemany(query, sets, returning=True)
            return [await cursor.fetchone() or () for _ in results_of(cursor)]
        case Stream(_, parameters, sink):
            async for row in cursor.stream(query, [parameters[name] for name in names]):
                sink(row)
        case Copy(statement, rows):
            async with cursor.copy(query) as copy:
                copy.set_types(statement.types)
                for row in rows:
                    await copy.write_row(row)
    return []
