"""The yardstick: bare psycopg with the least SQL that does the work."""

import psycopg
from psycopg import sql

from benchmarks.bare import Bare as Table
from benchmarks.peers.peer import Place, payload, produce

_ANY = "SELECT key, data FROM {} WHERE key = ANY(%s)"
_INSERT = "INSERT INTO {} VALUES (%s, %s) ON CONFLICT (key) DO UPDATE SET data = excluded.data"
_LOCK = "SELECT pg_advisory_lock(hashtextextended(%s, 0))"
_UNLOCK = "SELECT pg_advisory_unlock(hashtextextended(%s, 0))"


class Bare:
    """A table with a key and a bytea, on one autocommitting connection."""

    def __init__(self, place: Place) -> None:
        self._connection = psycopg.connect(place.url, autocommit=True)
        self._table = Table(self._connection, place.schema)
        name = sql.Identifier(place.schema, "bare")
        self._any, self._insert = (sql.SQL(query).format(name) for query in (_ANY, _INSERT))
        self.write = self._table.write
        self.close = self._connection.close

    def read(self, key: str) -> bytes:
        (data,) = self._table.read(key)
        return bytes(data)

    def exists(self, key: str) -> bool:
        return self._table.exists(key) is not None

    def call(self, key: str, size: int) -> bytes:
        if (found := self._table.read(key)) is not None:
            return bytes(found[0])
        data = produce(key, size)
        self.write(key, data)
        return data

    def map(self, keys: list[str], size: int) -> list[bytes]:
        with self._connection.transaction(), self._connection.cursor(binary=True) as cursor:
            found: dict[str, bytes] = dict(cursor.execute(self._any, (keys,)).fetchall())
            made = {key: payload(size) for key in keys if key not in found}
            cursor.executemany(self._insert, list(made.items()))
        return [found.get(key) or made[key] for key in keys]

    def acquire(self, key: str) -> None:
        self._say(_LOCK, key)

    def release(self, key: str) -> None:
        self._say(_UNLOCK, key)

    def _say(self, query: str, key: str) -> None:
        with self._connection.cursor(binary=True) as cursor:
            cursor.execute(query.encode(), (key,), prepare=True).fetchone()
