"""Many results at once against what a careful user of psycopg would write for the same bytes, in one run.

``python -m benchmarks.bulk`` measures on an embedded server. Beside the time stands what the processors worked, for the
client and all processes of the server together: on a busy machine that is the steadier figure.
"""

import argparse
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import psycopg
from rich.console import Console
from rich.table import Table

from benchmarks.__main__ import SCHEMA, prepared
from benchmarks.memory import peak
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore

_SIZE, _ROUNDS, _PAGE = 1024, 3, 1000
_PAYLOADS = [os.urandom(_SIZE) for _ in range(7)]
_BARE = "CREATE TABLE bare (key text PRIMARY KEY, data bytea NOT NULL)"
_COPY = "COPY bare FROM STDIN (FORMAT BINARY)"
_ANY = "SELECT key, data FROM bare WHERE key = ANY(%s)"


def _server_seconds(postmaster: int) -> float:
    """Processor time of a server's processes that run."""
    ticks = 0
    for directory in Path("/proc").iterdir():
        try:
            fields = (directory / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if directory.name == str(postmaster) or int(fields[1]) == postmaster:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _items(prefix: str, count: int) -> Iterator[tuple[str, bytes]]:
    return ((f"{prefix}/{number:08}", _PAYLOADS[number % 7]) for number in range(count))


class Bench:
    """A server with both contestants on it."""

    def __init__(self, url: str, connection: psycopg.Connection[Any], count: int) -> None:
        self._bare, self._count = connection, count
        self._store = ResultStore(result_storage=PostgresStorage(url, "bulk", SCHEMA), cache_result_in_memory=False)
        pid = connection.execute("SELECT pg_read_file('postmaster.pid')").fetchone()
        self._postmaster = int(pid[0].split()[0]) if pid else 0
        connection.execute(_BARE)
        self._store.write(b"connect and import first", key="warm up")

    def rounds(self) -> dict[str, list[tuple[float, float]]]:
        """Seconds and processor seconds of every subject, in every round."""
        found: dict[str, list[tuple[float, float]]] = {}
        for number in range(_ROUNDS):
            for name, subject in self._subjects(f"{number}").items():
                found.setdefault(name, []).append(self._timed(subject))
        return found

    def _timed(self, subject: Callable[[], Any]) -> tuple[float, float]:
        worked, start = process_time() + _server_seconds(self._postmaster), perf_counter()
        subject()
        took = perf_counter() - start
        return took, process_time() + _server_seconds(self._postmaster) - worked

    def _subjects(self, prefix: str) -> dict[str, Callable[[], Any]]:
        keys = [key for key, _ in _items(prefix, self._count)]
        store = self._store
        return {
            "COPY": lambda: self._copy(prefix),
            "write_many": lambda: store.write_many(_items(prefix, self._count)),
            "write_many, batches": lambda: store.write_many(_items(f"b{prefix}", self._count), atomic=False),
            "= ANY": lambda: [self._any(keys[start : start + _PAGE]) for start in range(0, len(keys), _PAGE)],
            "iter_many": lambda: sum(1 for _ in store.iter_many(keys)),
            "exists_many": lambda: store.exists_many(keys),
            "delete_many": lambda: store.delete_many(keys),
        }

    def _copy(self, prefix: str) -> None:
        with self._bare.cursor() as cursor, cursor.copy(_COPY) as copy:
            copy.set_types(["text", "bytea"])
            for row in _items(prefix, self._count):
                copy.write_row(row)

    def _any(self, keys: list[str]) -> list[Any]:
        with self._bare.cursor(binary=True) as cursor:
            return cursor.execute(_ANY, (keys,)).fetchall()


_AGAINST = {
    "write_many": "COPY", "write_many, batches": "COPY", "iter_many": "= ANY", "exists_many": "= ANY",
    "delete_many": "COPY",
}  # fmt: skip


def table(found: dict[str, list[tuple[float, float]]], count: int) -> Table:
    """What each subject costs against its yardstick."""
    columns = ("subject", "µs an item", "µs of processors", "against", "ratio of times", "of processors")
    shown = Table(*columns, title=f"{count:,} items of 1 KB")
    for name, rounds in found.items():
        took, worked = (median(figures) / count * 1e6 for figures in zip(*rounds, strict=True))
        yardstick = found[_AGAINST.get(name, name)]
        ratios = [
            f"{median(mine[at] / theirs[at] for mine, theirs in zip(rounds, yardstick, strict=True)):.1f}"
            for at in (0, 1)
        ]
        shown.add_row(name, f"{took:.1f}", f"{worked:.1f}", _AGAINST.get(name, ""), *ratios)
    return shown


def main() -> None:
    """Measure, then print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bulk", description=__doc__)
    parser.add_argument("--count", type=int, default=20_000)
    count = parser.parse_args().count
    with prepared(None) as url, psycopg.connect(url, autocommit=True) as connection:
        bench = Bench(url, connection, count)
        before = peak()
        bench._store.write_many(_items("memory", count))
        raised = peak() - before
        console = Console()
        console.print(f"write_many raised the client's peak memory by {raised / 1e6:.0f} MB")
        console.print(table(bench.rounds(), count))


if __name__ == "__main__":
    main()
