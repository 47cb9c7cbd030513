"""What grows with the store: ``python -m benchmarks.growth [--sizes 1000,100000,2000000]``, as ratios to the smallest.

Run it in the checkout: the store is filled as the tests fill theirs, in about a minute a million.
"""

import argparse
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import psycopg
from rich.console import Console
from rich.table import Table

from pgresults.database import migrations
from pgresults.database.programs import call, perform
from pgresults.operations import views
from pgresults.server.embedded import EmbeddedPostgres
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.database import psycopg_url
from tests.support.growth import grow

_CALLS = 15


def _questions(storage: PostgresStorage) -> dict[str, Callable[[], Any]]:
    store = ResultStore(result_storage=storage, cache_result_in_memory=False)
    lately = datetime.now(UTC) + timedelta(seconds=1)

    def asked(operation: Any) -> Callable[[], Any]:
        return lambda: perform(call(storage.database, lambda _: operation()))

    def sql(query: str) -> Callable[[], Any]:
        def ask() -> Any:
            with psycopg.connect(psycopg_url(storage.database.url())) as connection:
                return connection.execute(query.encode()).fetchall()

        return ask

    return {
        "read": lambda: store.read("seed"),
        "write": lambda: store.write("a result", key="written"),
        "exists": lambda: store.exists("seed"),
        "find by a rare tag": lambda: store.find(tags=["rare"], limit=100),
        "find by a common tag": lambda: store.find(tags=["tag 3"], limit=100),
        "expiring": lambda: store.expiring(timedelta(minutes=15), limit=100),
        "totals, estimated": asked(lambda: views.usage(storage.id)),
        "totals, counted": asked(lambda: views.usage(storage.id, exact=True)),
        "verify since now": lambda: store.verify(since=lately),
        "history by time": sql(
            "SELECT * FROM pgresults.result_history WHERE at > now() - interval '1 minute' ORDER BY at DESC LIMIT 50"
        ),
        "history by a rare actor": sql(
            "SELECT * FROM pgresults.result_history WHERE actor = 'nobody' ORDER BY at DESC LIMIT 50"
        ),
        "history by the actor of all": sql(
            "SELECT * FROM pgresults.result_history WHERE actor = 'somebody' ORDER BY at DESC LIMIT 50"
        ),
        "written in the last hour, by day": asked(lambda: views.written_daily(storage.id, timedelta(hours=1))),
    }


def _time(question: Callable[[], Any]) -> float:
    times = []
    for _ in range(_CALLS):
        start = perf_counter()
        question()
        times.append(perf_counter() - start)
    return median(times[2:])


def _measure(server: EmbeddedPostgres, sizes: list[int]) -> dict[int, dict[str, float]]:
    storage = PostgresStorage(server, name="growing")
    migrations.upgrade(storage.database.url())
    ResultStore(result_storage=storage).write("a result", key="seed", tags=["rare"])
    found, before = {}, 0
    for size in sizes:
        grow(storage.database.url(), "seed", size - before, first=before)
        before = size
        found[size] = {name: _time(question) for name, question in _questions(storage).items()}
    storage.close()
    return found


def main() -> None:
    """Fill a store step by step, and ask at each what it costs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="1000,100000,2000000")
    sizes = [int(size) for size in parser.parse_args().sizes.split(",")]
    with tempfile.TemporaryDirectory() as directory:
        server = EmbeddedPostgres(Path(directory, "server"))
        try:
            found = _measure(server, sizes)
        finally:
            server.stop()
    table = Table("question", *(f"ms at {size:,}" for size in sizes), *(f"ratio at {size:,}" for size in sizes[1:]))
    for name in found[sizes[0]]:
        first = found[sizes[0]][name]
        times = [f"{found[size][name] * 1000:.2f}" for size in sizes]
        table.add_row(name, *times, *(f"{found[size][name] / first:.1f}" for size in sizes[1:]))
    Console().print(table)


if __name__ == "__main__":
    main()
