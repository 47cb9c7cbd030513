"""What the store costs on a Citus cluster: calls of 1 KB against bare statements on a distributed table, and locks.

``python -m benchmarks.cluster --database-url URL`` names a database with the extension on the coordinator. Everything
happens in a schema ``pgresults_benchmarks`` that is dropped at the end.
"""

import argparse
import logging
import os
import time
from collections.abc import Callable
from itertools import cycle
from multiprocessing import get_context
from typing import Any, TypeAlias

import psycopg
from psycopg import sql
from rich.console import Console
from rich.table import Table
from sqlalchemy import make_url

from benchmarks.__main__ import KIB, SCHEMA, prepared
from benchmarks.bare import Bare
from benchmarks.timing import Timings, measure
from pgresults.database import distribution
from pgresults.locking import PostgresLockManager
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from pgresults.transactions import transaction

_KEYS = [f"key {number}" for number in range(10)]  # short rounds: what disturbs one subject disturbs its yardstick
_PAYLOADS = 7
_Subject: TypeAlias = Callable[[str], Any]
_SPAWN = get_context("spawn")
_COMPARISONS = (
    ("write", "store.write", "bare.write", 1, "bare upsert"),
    ("write under a lock manager", "guarded.write", "bare.write", 1, "bare upsert"),
    ("read", "store.read", "bare.read", 1, "bare SELECT data"),
    ("exists", "store.exists", "bare.exists", 1, "bare SELECT 1"),
    ("tree of 10 keys", "tree", "store.write", len(_KEYS), "write"),
)


def spread(url: str) -> None:
    """Spread the schema, and the bare table beside it."""
    distribution.distribute(make_url(url).set(drivername="postgresql+psycopg"), SCHEMA)
    with psycopg.connect(url, autocommit=True) as connection:
        Bare(connection, SCHEMA)
        table = sql.Identifier(SCHEMA, "bare").as_string(connection)
        connection.execute("SELECT create_distributed_table(%s, 'key', colocate_with => 'none')", (table,))


def timed(url: str, rounds: int) -> Timings:
    """Seconds a call, of everything in every round."""
    payloads = cycle([os.urandom(KIB) for _ in range(_PAYLOADS)])
    storage = PostgresStorage(url, "cluster", SCHEMA)
    store = ResultStore(result_storage=storage, cache_result_in_memory=False)
    guarded = ResultStore(result_storage=storage, lock_manager=storage.lock_manager(), cache_result_in_memory=False)

    def tree(number: str) -> None:
        if number != _KEYS[0]:
            return
        with transaction(store=store):
            for key in _KEYS:
                with transaction(key=key, store=store, overwrite=True) as inner:
                    inner.stage(next(payloads))

    with psycopg.connect(url, autocommit=True) as connection:
        bare = Bare(connection, SCHEMA)
        subjects: dict[str, _Subject] = {
            "bare.write": lambda key: bare.write(key, next(payloads)),
            "store.write": lambda key: store.write(next(payloads), key=key),
            "guarded.write": lambda key: guarded.write(next(payloads), key=key),
            "bare.read": bare.read,
            "store.read": store.read,
            "bare.exists": bare.exists,
            "store.exists": store.exists,
            "tree": tree,
        }
        measure(subjects, _KEYS, 3)
        timings = measure(subjects, _KEYS, rounds)
    storage.close()
    return timings


def locks_a_second(url: str, clients: int, seconds: float) -> float:
    """How many locks so many processes take and give back in a second, each of keys of its own."""
    with _SPAWN.Pool(clients) as pool:
        counts = pool.starmap(_lock, [(url, number, seconds) for number in range(clients)], 1)
    return sum(counts)


def _lock(url: str, number: int, seconds: float) -> float:
    logging.getLogger("pgresults.locking").setLevel(logging.ERROR)
    locks = PostgresLockManager(url, "cluster", SCHEMA)
    count, start = 0, time.monotonic()
    while count < 10 or time.monotonic() - start < seconds:
        key = f"{number}/{count % 10}"
        locks.acquire_lock(key, "holder")
        locks.release_lock(key, "holder")
        count += 1
        if count == 10:  # connected and prepared
            start = time.monotonic()
    return (count - 10) / (time.monotonic() - start)


def main() -> None:
    """Measure, then print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=__doc__)
    parser.add_argument("--database-url", required=True, help="a database with the extension, on the coordinator")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=5.0, help="for which locks are taken")
    options = parser.parse_args()
    table = Table("operation", "median", "against", "ratio", title="1 KB on a cluster")
    with prepared(options.database_url) as url:
        spread(url)
        timings = timed(url, options.rounds)
        for operation, subject, yardstick, times, label in _COMPARISONS:
            took, ratio = timings.seconds(subject) * times * 1000, timings.ratio(subject, yardstick) * times
            table.add_row(operation, f"{took:,.3f} ms", label, f"{ratio:.2f}")
        for clients in (1, 4, 8):
            table.add_row(f"locks, {clients} processes", f"{locks_a_second(url, clients, options.seconds):,.0f} / s")
    Console().print(table)


if __name__ == "__main__":
    main()
