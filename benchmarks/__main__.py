"""Run the benchmarks and print a table.

``python -m benchmarks`` measures on an embedded server, ``--database-url`` on another one: there everything happens
in a schema ``pgresults_benchmarks`` that is dropped at the end.
"""

import argparse
import asyncio
import os
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import reduce
from itertools import cycle
from operator import add
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from psycopg import sql
from rich.console import Console
from rich.table import Table
from sqlalchemy import URL, make_url

from benchmarks.bare import AsyncBare, Bare
from benchmarks.locks import lock_table
from benchmarks.memory import peak_bytes
from benchmarks.timing import Timings, ameasure, measure
from pgresults.database import migrations
from pgresults.server.embedded import EmbeddedPostgres
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore

SCHEMA = "pgresults_benchmarks"
KIB, MIB = 1024, 1024 * 1024
_WARM_UP = 1
_CONNECTIONS = 9  # a server's process stays near one processor or another: no contestant should be stuck with one
_PAYLOADS = 7  # a key never gets the same bytes twice in a row: Postgres would not log what has not changed


class Plan(NamedTuple):
    """How often a payload of a size is written and read: calls in a round, rounds on a connection."""

    label: str
    size: int
    calls: int
    rounds: int


PLANS = (
    Plan("1 KB", KIB, 100, 7),
    Plan("100 KB", 100 * KIB, 30, 5),
    Plan("1 MB", MIB, 10, 3),
    Plan("64 MB", 64 * MIB, 1, 2),
)

COMPARISONS = (
    ("write", "store.write", "bare.write", "bare upsert"),
    ("read", "store.read", "bare.read", "bare SELECT data"),
    ("read, cached", "cached.read", "bare.read", "bare SELECT data"),
    ("exists", "store.exists", "bare.exists", "bare SELECT 1"),
    ("exists", "store.exists", "store.read", "the store's read"),
)


class Bench:
    """One server with both contestants on it.

    Parameters:
        url: a ``postgresql://`` URL.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._storage = PostgresStorage(url, "benchmarks", SCHEMA)
        self._store = ResultStore(result_storage=self._storage, cache_result_in_memory=False)
        self._cached = ResultStore(result_storage=self._storage)

    def sync(self, plan: Plan) -> Timings:
        """Time calls that block, on several connections one after the other."""
        return reduce(add, [self._sync(plan) for _ in range(_CONNECTIONS)])

    async def asynchronous(self, plan: Plan) -> Timings:
        """Time calls that are awaited, on several connections one after the other."""
        return reduce(add, [await self._asynchronous(plan) for _ in range(_CONNECTIONS)])

    def _sync(self, plan: Plan) -> Timings:
        payloads, keys, store = _payloads(plan), _keys(plan), self._store
        with psycopg.connect(self._url, autocommit=True) as connection:
            bare = Bare(connection, SCHEMA)
            subjects = {
                "bare.write": lambda key: bare.write(key, next(payloads)),
                "store.write": lambda key: store.write(next(payloads), key=key),
                "bare.read": bare.read,
                "store.read": store.read,
                "cached.fill": self._cached.read,
                "cached.read": self._cached.read,
                "bare.exists": bare.exists,
                "store.exists": store.exists,
            }
            measure(subjects, keys, _WARM_UP)
            timings = measure(subjects, keys, plan.rounds)
        self._storage.close()
        return timings

    async def _asynchronous(self, plan: Plan) -> Timings:
        payloads, keys, store = _payloads(plan), _keys(plan), self._store
        async with await psycopg.AsyncConnection.connect(self._url, autocommit=True) as connection:
            bare = AsyncBare(connection, SCHEMA)
            subjects: dict[str, Callable[[str], Awaitable[Any]]] = {
                "bare.write": lambda key: bare.write(key, next(payloads)),
                "store.write": lambda key: store.awrite(next(payloads), key=key),
                "bare.read": bare.read,
                "store.read": store.aread,
                "cached.fill": self._cached.aread,
                "cached.read": self._cached.aread,
                "bare.exists": bare.exists,
                "store.exists": store.aexists,
            }
            await ameasure(subjects, keys, _WARM_UP)
            timings = await ameasure(subjects, keys, plan.rounds)
        await self._storage.aclose()
        return timings


def _payloads(plan: Plan) -> Iterator[bytes]:
    return cycle([os.urandom(plan.size) for _ in range(_PAYLOADS)])


def _keys(plan: Plan) -> list[str]:
    return [f"{plan.label}/{number}" for number in range(plan.calls)]


@contextmanager
def prepared(database_url: str | None) -> Iterator[str]:
    """A server with an empty schema for the benchmarks, and nothing left of it afterwards."""
    if database_url is None:
        with tempfile.TemporaryDirectory(prefix="pgresults-benchmarks-") as directory:
            server = EmbeddedPostgres(Path(directory) / "server")
            migrations.upgrade(_sqlalchemy(server.url), SCHEMA)
            _part(server)
            try:
                yield server.url
            finally:
                server.stop()
        return
    migrations.upgrade(_sqlalchemy(database_url), SCHEMA)
    try:
        yield database_url
    finally:
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(SCHEMA)))


def _part(server: EmbeddedPostgres) -> None:
    """Give client and server processors of their own, as on two machines.

    Otherwise it is chance whether a call stays on one processor, which makes a short one three times quicker.
    """
    processors, postmaster = os.sched_getaffinity(0), server.status().pid
    if len(processors) > 1 and postmaster is not None:
        os.sched_setaffinity(0, {max(processors)})
        os.sched_setaffinity(postmaster, processors - {max(processors)})


def _sqlalchemy(url: str) -> URL:
    return make_url(url).set(drivername="postgresql+psycopg")


def comparison_table(timings: Iterable[tuple[str, Plan, Timings]]) -> Table:
    """What the store costs against its yardsticks."""
    table = Table("calls", "size", "operation", "median", "against", "ratio", title="One call after the other")
    for mode, plan, times in timings:
        for operation, subject, yardstick, label in COMPARISONS:
            took, ratio = times.seconds(subject) * 1000, times.ratio(subject, yardstick)
            table.add_row(mode, plan.label, operation, f"{took:,.3f} ms", label, f"{ratio:.2f}")
        table.add_section()
    return table


def memory_table(url: str) -> Table:
    """What one large write and read need of the client's memory."""
    plan = PLANS[-1]
    table = Table("operation", "size", "store", "bare", title="Peak memory of the client, as a multiple of the payload")
    for operation, meaning in (("write", "write, beyond the object"), ("read", "read, with its result")):
        peaks = [peak_bytes(subject, operation, plan.size, url, SCHEMA) for subject in ("store", "bare")]
        table.add_row(meaning, plan.label, *(f"{peak / plan.size:.2f}" for peak in peaks))
    return table


def main() -> None:
    """Measure, then print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--database-url", help="a server to measure on; default: an embedded one")
    parser.add_argument("--size", choices=[plan.label for plan in PLANS], action="append", help="only this size")
    parser.add_argument("--locks", action="store_true", help="only the locks")
    options = parser.parse_args()
    plans = [plan for plan in PLANS if not options.size or plan.label in options.size]
    console = Console()
    with prepared(options.database_url) as url:
        console.print(lock_table(url, SCHEMA))
        if options.locks:
            return
        if PLANS[-1] in plans:
            console.print(memory_table(url))
        bench = Bench(url)
        timings = [("sync", plan, bench.sync(plan)) for plan in plans]
        timings += [("async", plan, asyncio.run(bench.asynchronous(plan))) for plan in plans]
    console.print(comparison_table(timings))


if __name__ == "__main__":
    main()
