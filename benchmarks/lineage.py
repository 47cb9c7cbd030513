"""What a lineage costs to write, and to go along: ``python -m benchmarks.lineage [--results N]``.

Run it in the checkout: the store is filled as the tests fill theirs, in about two minutes a million.
"""

import argparse
import os
import tempfile
from collections.abc import Callable
from hashlib import md5
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from rich.console import Console
from rich.table import Table

from pgresults.audit.lineage import Lineage
from pgresults.database import migrations
from pgresults.server.embedded import EmbeddedPostgres
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.growth import grow

_CALLS = 30
_WRITES = 300
_STEPS = 6
"""So many steps from one with three on, a tree has 1,093 versions."""


def _key(number: int) -> str:
    """One of the keys, which are numbered from 1 on."""
    return f"k/{md5(str(number).encode(), usedforsecurity=False).hexdigest()}"


def _time(ask: Callable[[int], Any]) -> float:
    times = []
    for number in range(_CALLS):
        start = perf_counter()
        ask(number)
        times.append(perf_counter() - start)
    return median(times)


def _walks(store: ResultStore, results: int) -> Callable[[str, int], Callable[[int], Lineage]]:
    def walk(direction: Any, depth: int) -> Callable[[int], Lineage]:
        return lambda number: store.lineage(_key(1 + number * 7919 % results), direction=direction, depth=depth)

    return walk


def _writes(store: ResultStore, results: int) -> tuple[float, float]:
    """What a write takes without parents and with three, by turns."""
    times: dict[int, list[float]] = {0: [], 3: []}
    payload = os.urandom(1024)
    for number in range(_WRITES):
        for parents in times:
            made_of = [(_key(1 + (number + step) * 104729 % results), 1) for step in range(parents)]
            start = perf_counter()
            store.write(payload, key=f"written/{parents}/{number}", derived_from=made_of or None)
            times[parents].append(perf_counter() - start)
    return median(times[0]), median(times[3])


def _measure(server: EmbeddedPostgres, results: int) -> Table:
    storage = PostgresStorage(server, name="derived")
    migrations.upgrade(storage.database.url())
    store = ResultStore(result_storage=storage, cache_result_in_memory=False)
    store.write("a result", key="seed")
    grow(storage.database.url(), "seed", results, derived=True)
    walk, table = _walks(store, results), Table("what", "ms", "versions")
    for direction in ("up", "down"):
        for depth in (1, _STEPS):
            found = walk(direction, depth)(1)
            took = _time(walk(direction, depth)) * 1000
            table.add_row(f"{depth} steps {direction}", f"{took:.2f}", f"{len(found.versions):,}")
    store.write(b"x" * 1024, key="read")
    table.add_row("read of 1 KB, to compare", f"{_time(lambda _: store.read('read')) * 1000:.2f}", "")
    without, with_three = _writes(store, results)
    table.add_row("write without parents", f"{without * 1000:.2f}", "")
    table.add_row("write with three parents", f"{with_three * 1000:.2f}", f"{with_three / without:.3f} times")
    storage.close()
    return table


def main() -> None:
    """Fill a store, and go along its lineages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=int, default=1_000_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        server = EmbeddedPostgres(Path(directory, "server"))
        try:
            Console().print(_measure(server, given.results))
        finally:
            server.stop()


if __name__ == "__main__":
    main()
