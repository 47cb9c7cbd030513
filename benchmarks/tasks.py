"""What calling a task costs, where its result is there and where it is computed, beside other caches of functions.

``python -m benchmarks.tasks`` starts an embedded Postgres, as it comes: it syncs every write to disk. joblib and
diskcache write files without that, so what they wrote last may be lost when the machine stops. Prefect keeps results in
local files and reports every run to a server of its own, DBOS keeps workflows in the same Postgres. Each of these four
is measured where it is installed, and left out with a line where it is not.

The function returns 1 KB at once; "hit" is a call whose result is there, "miss" one with an argument that never was.
Each is called in turn with the store, and alone with it: what one brings along is not in the way of another.
"""

import argparse
import asyncio
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from itertools import count
from operator import add
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from rich.console import Console
from rich.table import Table

from benchmarks.__main__ import SCHEMA, prepared
from benchmarks.timing import Timings, ameasure, measure
from pgresults import PostgresStorage, ResultStore, task
from pgresults.cache_policies import INPUTS

_CALLS, _ROUNDS, _CONNECTIONS = 50, 7, 5
_PAYLOAD = os.urandom(1024)

Cached = Callable[[str], Any]


class Peer(NamedTuple):
    """A cache of functions: how it is said to keep results, and what gives a cached function."""

    durable: str
    cached: Callable[[str, Path], Any]


def produce(key: str) -> bytes:  # noqa: ARG001 (it only makes the key)
    """Give what is to be cached."""
    return _PAYLOAD


@contextmanager
def _joblib(_: str, directory: Path) -> Iterator[Cached]:
    import joblib

    yield joblib.Memory(directory / "joblib", verbose=0).cache(produce)


@contextmanager
def _diskcache(_: str, directory: Path) -> Iterator[Cached]:
    import diskcache

    with diskcache.Cache(directory / "diskcache") as cache:
        yield cache.memoize()(produce)


@contextmanager
def _prefect(_: str, directory: Path) -> Iterator[Cached]:
    os.environ["PREFECT_HOME"] = str(directory / "prefect")
    os.environ["PREFECT_LOGGING_LEVEL"] = "ERROR"
    os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
    import prefect
    from prefect.cache_policies import INPUTS as PREFECT_INPUTS
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness():
        yield prefect.task(produce, cache_policy=PREFECT_INPUTS, persist_result=True)


@contextmanager
def _dbos(url: str, _: Path) -> Iterator[Cached]:
    from dbos import DBOS, SetWorkflowID

    DBOS(config={"name": "benchmarks", "system_database_url": url, "log_level": "ERROR"})
    workflow = DBOS.workflow()(produce)
    DBOS.launch()

    def cached(key: str) -> Any:
        with SetWorkflowID(f"benchmarks {key}"):
            return workflow(key)

    try:
        yield cached
    finally:
        DBOS.destroy()


PEERS = {
    "joblib, files": Peer("no", _joblib),
    "diskcache, SQLite": Peer("no", _diskcache),
    "Prefect, local files": Peer("no", _prefect),
    "DBOS, Postgres": Peer("yes", _dbos),
}


class Ours(NamedTuple):
    """A task beside the store that it keeps its results with."""

    storage: PostgresStorage
    store: ResultStore
    sync: Cached
    asynchronous: Any

    @classmethod
    def on(cls, url: str) -> "Ours":
        """Both on a server."""
        storage = PostgresStorage(url, "tasks", SCHEMA)

        async def aproduce(key: str) -> bytes:  # noqa: ARG001 (it only makes the key)
            return _PAYLOAD

        options: Any = {"result_storage": storage, "cache_policy": INPUTS}
        store = ResultStore(result_storage=storage, cache_result_in_memory=False)
        return cls(storage, store, task(produce, **options), task(aproduce, **options))


def _sync(ours: Ours, function: Cached) -> tuple[Timings, Timings]:
    """The times of hits and misses."""
    keys, fresh = [uuid4().hex for _ in range(_CALLS)], count()
    for key in keys:
        ours.store.write(_PAYLOAD, key=key)
        function(key)
    hits = measure({"store": ours.store.read, "function": function}, keys, _ROUNDS)
    misses = measure(
        {
            "store": lambda key: ours.store.write(_PAYLOAD, key=f"{key} {next(fresh)}"),
            "function": lambda key: function(f"{key} {next(fresh)}"),
        },
        keys,
        _ROUNDS,
    )
    return hits, misses


async def _async(ours: Ours) -> tuple[Timings, Timings]:
    """The times of hits and misses on an event loop."""
    keys, fresh = [uuid4().hex for _ in range(_CALLS)], count()
    for key in keys:
        await ours.store.awrite(_PAYLOAD, key=key)
        await ours.asynchronous(key)
    hits = await ameasure({"store": ours.store.aread, "function": ours.asynchronous}, keys, _ROUNDS)
    misses = await ameasure(
        {
            "store": lambda key: ours.store.awrite(_PAYLOAD, key=f"{key} {next(fresh)}"),
            "function": lambda key: ours.asynchronous(f"{key} {next(fresh)}"),
        },
        keys,
        _ROUNDS,
    )
    await ours.storage.aclose()
    return hits, misses


def _row(name: str, durable: str, parts: Sequence[tuple[Timings, Timings]]) -> tuple[str, ...]:
    hits, misses = (reduce(add, timings) for timings in zip(*parts, strict=True))
    cells = (
        f"{timings.seconds('function') * 1000:.3f} ms ({timings.ratio('function', 'store'):.2f})"
        for timings in (hits, misses)
    )
    return name, *cells, durable


def main() -> None:
    """Measure, then print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tasks", description=__doc__)
    parser.add_argument("--database-url", help="a server to measure on; default: an embedded one")
    parser.add_argument("--alone", action="store_true", help="without the others")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    console = Console()
    table = Table(
        "cached function", "hit", "miss", "durable", title="A call (in brackets: against store.read and write)"
    )
    with prepared(options.database_url) as url, tempfile.TemporaryDirectory() as directory:
        ours = Ours.on(url)
        rows = [_row("pgresults", "yes", [_sync(ours, ours.sync) for _ in range(_CONNECTIONS)])]
        rows.append(_row("pgresults, async", "yes", [asyncio.run(_async(ours)) for _ in range(_CONNECTIONS)]))
        for name, peer in () if options.alone else PEERS.items():
            try:
                with peer.cached(url, Path(directory)) as function:
                    rows.append(_row(name, peer.durable, [_sync(ours, function)]))
            except ImportError as error:
                console.print(f"{name}: left out, {error}")
        ours.storage.close()
    for row in rows:
        table.add_row(*row)
    console.print(table)


if __name__ == "__main__":
    main()
