"""The yardstick: bare psycopg on one table, with what a careful user of it would turn on."""

from typing import Any

import psycopg
from psycopg import sql

_TABLE = sql.SQL("CREATE TABLE IF NOT EXISTS {table} (key text PRIMARY KEY, data bytea NOT NULL)")
_WRITE = sql.SQL("INSERT INTO {table} VALUES (%s, %s) ON CONFLICT (key) DO UPDATE SET data = excluded.data")
_READ = sql.SQL("SELECT data FROM {table} WHERE key = %s")
_EXISTS = sql.SQL("SELECT 1 FROM {table} WHERE key = %s")


class _Queries:
    def __init__(self, schema: str) -> None:
        self.write, self.read, self.exists = (
            query.format(table=sql.Identifier(schema, "bare")).as_string(None) for query in (_WRITE, _READ, _EXISTS)
        )


class Bare:
    """One autocommitting connection; prepared statements, binary both ways."""

    def __init__(self, connection: psycopg.Connection[Any], schema: str) -> None:
        self._connection = connection
        self._queries = _Queries(schema)
        connection.execute(_TABLE.format(table=sql.Identifier(schema, "bare")))

    def write(self, key: str, data: bytes) -> None:
        with self._connection.cursor(binary=True) as cursor:
            cursor.execute(self._queries.write, (key, data), prepare=True)

    def read(self, key: str) -> Any:
        return self._one(self._queries.read, key)

    def exists(self, key: str) -> Any:
        return self._one(self._queries.exists, key)

    def _one(self, query: str, key: str) -> Any:
        with self._connection.cursor(binary=True) as cursor:
            return cursor.execute(query, (key,), prepare=True).fetchone()


class AsyncBare:
    """The same on an event loop."""

    def __init__(self, connection: psycopg.AsyncConnection[Any], schema: str) -> None:
        self._connection = connection
        self._queries = _Queries(schema)

    async def write(self, key: str, data: bytes) -> None:
        async with self._connection.cursor(binary=True) as cursor:
            await cursor.execute(self._queries.write, (key, data), prepare=True)

    async def read(self, key: str) -> Any:
        return await self._one(self._queries.read, key)

    async def exists(self, key: str) -> Any:
        return await self._one(self._queries.exists, key)

    async def _one(self, query: str, key: str) -> Any:
        async with self._connection.cursor(binary=True) as cursor:
            return await (await cursor.execute(query, (key,), prepare=True)).fetchone()
