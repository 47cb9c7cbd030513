"""What the console's pages take: ``python -m benchmarks.console [--sizes 100000,1000000] [--at DIRECTORY]``.

In milliseconds and kB. Run it in the checkout: the store is filled as the tests fill theirs, in a minute or two a
million. The console runs as a program of its own, and is asked by HTTP; the first request of all is shown by itself.
"""

import argparse
import http.client
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import NamedTuple
from urllib.parse import quote

from rich.console import Console
from rich.table import Table
from sqlalchemy import make_url

from pgresults.database import migrations
from pgresults.server.embedded import EmbeddedPostgres
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from pgresults.tasks import task
from tests.support.growth import grow

_ROUNDS = 12
_PAGES = {
    "log": "/log",
    "log, older": "/log?before={middle}",
    "log of a prefix that is nowhere": "/log?prefix=nowhere/",
    "log of a rare tag": "/log?tag=rare",
    "log of a rare actor": "/log?actor=nobody",
    "log of the actor of all": "/log?actor=somebody",
    "log of an actor and a rare action": "/log?actor=somebody&action=redact",
    "results": "/results",
    "results of a prefix": "/results?prefix=k/7f",
    "results of a rare tag": "/results?tag=rare",
    "results of a common tag": "/results?tag=tag 3",
    "results of a task": "/results?task=count",
    "suggestions": "/suggestions?prefix=k/a",
    "a key": "/key?key=reports/may",
    "two versions": "/key?key=reports/may&a=1&b=2",
    "locks": "/locks",
    "space": "/space",
    "tasks": "/tasks",
    "one task": "/tasks?task=count",
    "holds": "/holds",
    "integrity": "/integrity",
    "health": "/health",
    "metrics": "/metrics",
}


class Taken(NamedTuple):
    """What a page took: the median and the longest, in milliseconds, and its kilobytes."""

    usual: float
    longest: float
    size: float


def _fill(server: EmbeddedPostgres, size: int) -> None:
    storage = PostgresStorage(server)
    url = make_url(server.ensure_running())
    migrations.upgrade(storage.database.url())
    store = ResultStore(result_storage=storage)
    if store.exists("reports/may"):
        return
    kept = task(name="count", cache_key_fn=lambda *_: "seed", result_storage=storage, persist_result=True)
    kept(lambda: 1)()
    for rows in (1, 2):
        store.write({"rows": rows}, "reports/may", tags=["rare"])
    grow(url, "seed", size)
    storage.close()


@contextmanager
def _console(url: str) -> Iterator[tuple[http.client.HTTPConnection, float]]:
    """A console, and what its first page took."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pgresults", "web", "--port", "0", "--access-log", os.devnull],
        env=os.environ | {"PGRESULTS_DATABASE_URL": url},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    found = re.search(r":(\d+)/", process.stdout.readline())
    assert found is not None
    connection = http.client.HTTPConnection("127.0.0.1", int(found[1]))
    try:
        yield connection, _ask(connection, "/log")[0]
    finally:
        process.terminate()
        process.wait()


def _ask(connection: http.client.HTTPConnection, path: str) -> tuple[float, int]:
    start = perf_counter()
    connection.request("GET", quote(path, safe="/?&=,:%+"), headers={"Accept-Encoding": "gzip"})
    answer = connection.getresponse()
    body = answer.read()
    taken = (perf_counter() - start) * 1000
    if answer.status != http.HTTPStatus.OK:
        raise RuntimeError(f"{path}: {answer.status}: {body[:500]!r}")
    return taken, len(body)


def _measure(url: str) -> tuple[float, dict[str, Taken], float]:
    with _console(url) as (connection, first):
        connection.request("GET", "/log")
        page = connection.getresponse().read().decode()
        files = sum(_ask(connection, path)[1] for path in re.findall(r'(?:src|href)="(/static/[^"]+)"', page))
        middle = re.search(r"before=([^\"&]+)", page)
        taken = {}
        for name, path in _PAGES.items():
            asked = [_ask(connection, path.replace("{middle}", middle[1] if middle else "")) for _ in range(_ROUNDS)]
            times = [time for time, _ in asked]
            taken[name] = Taken(median(times), max(times), asked[-1][1] / 1000)
        return first, taken, (files + len(page)) / 1000


def main() -> None:
    """Measure, and print a table for each size."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", default="100000")
    parser.add_argument("--at", type=Path, help="a directory with stores that are kept for the next time")
    given = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        for size in map(int, given.sizes.split(",")):
            server = EmbeddedPostgres((given.at or Path(directory)) / f"{size}")
            try:
                _fill(server, size)
                first, taken, whole = _measure(server.url)
            finally:
                server.stop()
            table = Table("page", "ms", "longest ms", "kB", title=f"{size:,} results")
            for name, one in taken.items():
                table.add_row(name, f"{one.usual:.0f}", f"{one.longest:.0f}", f"{one.size:.0f}")
            console.print(table)
            console.print(f"the first page of all: {first:.0f} ms; {whole:.0f} kB with its style, scripts and icon")


if __name__ == "__main__":
    main()
