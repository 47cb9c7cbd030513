"""Many results at once against what a careful user of psycopg would write for the same bytes, in one run.

``python -m benchmarks.bulk`` measures on an embedded server, ``--database-url`` on another one of this machine. Beside
the time stands what the processors worked, the client's and those of all processes of the server, apart and together:
on a busy machine that is the steadier figure. What is in brackets is no call of the store, but the least that one could
cost: the same rows into tables like the store's, and the rows that a read is made of.
"""

import argparse
import os
from collections.abc import Callable, Iterator
from operator import attrgetter
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any, NamedTuple

import psycopg
from psycopg.pq import Format
from rich.console import Console
from rich.table import Table

from benchmarks.__main__ import SCHEMA, prepared
from benchmarks.memory import peak
from pgresults.sql import results as statements
from pgresults.sql.results import Look
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore

_SIZE, _ROUNDS, _PAGE = 1024, 3, 1000
_PAYLOADS = [os.urandom(_SIZE) for _ in range(7)]
_BARE = "CREATE TABLE bare (key text PRIMARY KEY, data bytea NOT NULL)"
_COPY = "COPY bare FROM STDIN (FORMAT BINARY)"
_ANY = "SELECT key, data FROM bare WHERE key = ANY(%s)"


class Spent(NamedTuple):
    """Seconds that passed, and those that the processors of client and server worked."""

    time: float
    client: float
    server: float

    @property
    def processors(self) -> float:
        """Of both together."""
        return self.client + self.server


def _server_seconds(postmaster: int) -> float:
    """Processor time of a server's processes that run."""
    spent = 0
    for directory in Path("/proc").iterdir():
        try:
            parent = int((directory / "stat").read_text().rpartition(")")[2].split()[1])
            if postmaster in (parent, int(directory.name)):
                spent += int((directory / "schedstat").read_text().split()[0])
        except (OSError, ValueError):
            continue
    return spent / 1e9


def _items(prefix: str, count: int) -> Iterator[tuple[str, bytes]]:
    return ((f"{prefix}/{number:08}", _PAYLOADS[number % 7]) for number in range(count))


class Bench:
    """A server with both contestants on it."""

    def __init__(self, url: str, connection: psycopg.Connection[Any], count: int) -> None:
        self._bare, self._count = connection, count
        self._storage = PostgresStorage(url, "bulk", SCHEMA)
        self._store = ResultStore(result_storage=self._storage, cache_result_in_memory=False)
        pid = connection.execute("SELECT pg_read_file('postmaster.pid')").fetchone()
        self._postmaster = int(pid[0].split()[0]) if pid else 0
        connection.execute("DROP TABLE IF EXISTS bare, plain_payload, plain_result, plain_history")
        connection.execute(_BARE)
        for table in ("payload", "result", "history"):
            connection.execute(f"CREATE TABLE plain_{table} (LIKE {SCHEMA}.{table} INCLUDING ALL)")
        self._store.write(b"connect and import first", key="warm up")

    def rounds(self) -> dict[str, list[Spent]]:
        """What every subject took, in every round."""
        found: dict[str, list[Spent]] = {}
        for number in range(_ROUNDS):
            for name, subject in self._subjects(f"{number}").items():
                found.setdefault(name, []).append(self._timed(subject))
        return found

    def _timed(self, subject: Callable[[], Any]) -> Spent:
        before = perf_counter(), process_time(), _server_seconds(self._postmaster)
        subject()
        after = perf_counter(), process_time(), _server_seconds(self._postmaster)
        return Spent(*(now - then for now, then in zip(after, before, strict=True)))

    def _subjects(self, prefix: str) -> dict[str, Callable[[], Any]]:
        keys = [key for key, _ in _items(prefix, self._count)]
        store = self._store
        return {
            "COPY": lambda: self._copy(prefix),
            "write_many": lambda: store.write_many(_items(prefix, self._count)),
            "(plain inserts)": lambda: self._plain(prefix),
            "write_many again": lambda: store.write_many(_items(prefix, self._count)),
            "write_many, batches": lambda: store.write_many(_items(f"b{prefix}", self._count), atomic=False),
            "= ANY": lambda: [self._any(keys[start : start + _PAGE]) for start in range(0, len(keys), _PAGE)],
            "(rows of a read)": lambda: [self._rows(keys[start : start + 100]) for start in range(0, len(keys), 100)],
            "iter_many": lambda: sum(1 for _ in store.iter_many(keys)),
            "exists_many": lambda: store.exists_many(keys),
            "delete_many": lambda: store.delete_many(keys),
        }

    def _copy(self, prefix: str) -> None:
        with self._bare.cursor() as cursor, cursor.copy(_COPY) as copy:
            copy.set_types(["text", "bytea"])
            for row in _items(prefix, self._count):
                copy.write_row(row)

    def _plain(self, prefix: str) -> None:
        """Insert what was written into tables of the same indexes: no trigger, no digest, no look at what is there."""
        for table in ("payload", "result", "history"):
            self._bare.execute(
                f"INSERT INTO plain_{table} SELECT * FROM {SCHEMA}.{table} WHERE key LIKE %s", (f"{prefix}/%",)
            )

    def _rows(self, keys: list[str]) -> list[Any]:
        query = statements.READ_MANY[Look(at_table=True, signed=False)].query(SCHEMA)
        values = query.values({"storage_id": self._storage.id, "keys": keys})
        with psycopg.RawCursor(self._bare) as cursor:
            cursor.format = Format.BINARY
            return cursor.execute(query.text, values, prepare=True).fetchall()

    def _any(self, keys: list[str]) -> list[Any]:
        with self._bare.cursor(binary=True) as cursor:
            return cursor.execute(_ANY, (keys,)).fetchall()


_AGAINST = {
    "write_many": "COPY", "write_many again": "COPY", "write_many, batches": "COPY", "(plain inserts)": "COPY",
    "iter_many": "= ANY", "(rows of a read)": "= ANY", "exists_many": "= ANY", "delete_many": "COPY",
}  # fmt: skip


def table(found: dict[str, list[Spent]], count: int) -> Table:
    """What each subject costs against its yardstick."""
    columns = ("subject", "µs an item", "client's", "server's", "against", "ratio of times", "of processors")
    shown = Table(*columns, title=f"{count:,} items of 1 KB")
    for name, rounds in found.items():
        took = [median(figures) / count * 1e6 for figures in zip(*rounds, strict=True)]
        yardstick = found[_AGAINST.get(name, name)]
        ratios = [
            median(pick(mine) / pick(theirs) for mine, theirs in zip(rounds, yardstick, strict=True))
            for pick in (attrgetter("time"), attrgetter("processors"))
        ]
        shown.add_row(name, *(f"{one:.1f}" for one in took), _AGAINST.get(name, ""), *(f"{one:.1f}" for one in ratios))
    return shown


def main() -> None:
    """Measure, then print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bulk", description=__doc__)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--database-url", help="a server of this machine to measure on; default: an embedded one")
    options = parser.parse_args()
    with prepared(options.database_url) as url, psycopg.connect(url, autocommit=True) as connection:
        bench = Bench(url, connection, options.count)
        before = peak()
        bench._store.write_many(_items("memory", options.count))
        raised = peak() - before
        console = Console()
        (version,) = connection.execute("SHOW server_version").fetchone() or ("",)
        console.print(f"PostgreSQL {version}; write_many raised the client's peak memory by {raised / 1e6:.0f} MB")
        console.print(table(bench.rounds(), options.count))


if __name__ == "__main__":
    main()
