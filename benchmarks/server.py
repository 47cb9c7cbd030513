"""What the server pays: calls a second of 1 and 8 processes, and the server's processor time for each.

``python -m benchmarks.server`` measures 1 KB on an embedded server, ``--database-url`` on another one of this machine.
All subjects take their turns in every round. First clients and server have processors of their own, as on two machines,
then they share all there are: there a client's Python takes caches and time from the server.
"""

import argparse
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import cycle
from math import nan
from multiprocessing import get_context
from operator import attrgetter
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

import psycopg
from rich.console import Console
from rich.table import Table

from benchmarks.__main__ import KIB, SCHEMA, prepared
from benchmarks.bare import Bare
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore

_SUBJECTS = ("bare.write", "store.write", "bare.read", "store.read")
_KEYS = 100
_PAYLOADS = 7
_SPAWN = get_context("spawn")
_BACKENDS = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND datname = current_database()"


class Case(NamedTuple):
    """How many clients there are, and whether they and the server have processors of their own."""

    clients: int
    apart: bool


_CASES = (Case(1, apart=True), Case(8, apart=True), Case(8, apart=False))


class Cost(NamedTuple):
    """What one round came to: calls a second, and the server's processor time for one in microseconds."""

    rate: float
    cpu: float


class Clients:
    """Processes that make the same calls at the same time.

    Parameters:
        url: a ``postgresql://`` URL.
        count: how many.
        apart: whether they and the server's processes get processors of their own.
    """

    def __init__(self, url: str, count: int, *, apart: bool) -> None:
        self._admin = psycopg.connect(url, autocommit=True)
        Bare(self._admin, SCHEMA)
        ours, theirs = _processors(apart=apart)
        self._clients = [_Client(url, number, ours) for number in range(count)]
        for one in self._clients:
            one.answer()
        self._backends = [pid for (pid,) in self._admin.execute(_BACKENDS)]
        for pid in self._backends:
            with suppress(ProcessLookupError, PermissionError):
                os.sched_setaffinity(pid, theirs)

    def cost(self, subject: str, seconds: float) -> Cost:
        """What a subject costs, called by all of them for so long."""
        before, start = _processor_time(self._backends), perf_counter()
        for one in self._clients:
            one.ask((subject, seconds))
        calls = sum(one.answer() for one in self._clients)
        took, ran = perf_counter() - start, _processor_time(self._backends) - before
        return Cost(calls / took, ran / calls * 1e6)

    def end(self) -> None:
        """Have all of them end."""
        for one in self._clients:
            one.end()
        self._admin.close()


class _Client:
    def __init__(self, url: str, number: int, processors: set[int]) -> None:
        self._pipe, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_serve, args=(theirs, url, number, processors))
        self._process.start()

    def ask(self, command: tuple[str, float] | None) -> None:
        self._pipe.send(command)

    def answer(self) -> int:
        return self._pipe.recv()  # type: ignore[no-any-return]

    def end(self) -> None:
        self.ask(None)
        self._process.join()


def _serve(commands: Any, url: str, number: int, processors: set[int]) -> None:
    """Call a subject for so many seconds, and answer with the number of calls, until there is no command any more."""
    os.sched_setaffinity(0, processors)
    payloads = cycle([os.urandom(KIB) for _ in range(_PAYLOADS)])
    keys = [f"{number}/{key}" for key in range(_KEYS)]
    storage = PostgresStorage(url, "server", SCHEMA)
    store = ResultStore(result_storage=storage, cache_result_in_memory=False)
    with psycopg.connect(url, autocommit=True) as connection:
        bare = Bare(connection, SCHEMA)
        subjects: dict[str, Callable[[str], Any]] = {
            "bare.write": lambda key: bare.write(key, next(payloads)),
            "store.write": lambda key: store.write(next(payloads), key=key),
            "bare.read": bare.read,
            "store.read": store.read,
        }
        commands.send(sum(_calls(subject, keys, 0) for subject in subjects.values()))
        while (command := commands.recv()) is not None:
            name, seconds = command
            commands.send(_calls(subjects[name], keys, seconds))
    storage.close()


def _calls(subject: Callable[[str], Any], keys: Sequence[str], seconds: float) -> int:
    end, calls = perf_counter() + seconds, 0
    while True:
        for key in keys:
            subject(key)
        calls += len(keys)
        if perf_counter() >= end:
            return calls


def _processors(*, apart: bool) -> tuple[set[int], set[int]]:
    """The processors of the clients and those of the server."""
    every = os.sched_getaffinity(0)
    return ({max(every)}, every - {max(every)}) if apart and len(every) > 1 else (every, every)


def _processor_time(backends: Iterable[int]) -> float:
    """Seconds that the server's processes have run; 0 where this system does not say so."""
    said = (Path(f"/proc/{pid}/schedstat") for pid in backends)
    return sum(int(times.read_text().split()[0]) for times in said if times.exists()) / 1e9


def _rounds(url: str, case: Case, rounds: int, seconds: float) -> dict[str, list[Cost]]:
    clients = Clients(url, case.clients, apart=case.apart)
    costs: dict[str, list[Cost]] = {subject: [] for subject in _SUBJECTS}
    for _ in range(rounds):
        for subject in _SUBJECTS:
            costs[subject].append(clients.cost(subject, seconds))
    clients.end()
    return costs


def _table(costs: Mapping[Case, Mapping[str, Sequence[Cost]]]) -> Table:
    table = Table("clients", "1 KB", "store", "bare", "ratio", title="Calls a second, and the server's time for one")
    for case, rounds in costs.items():
        for operation in ("write", "read"):
            store, bare = rounds[f"store.{operation}"], rounds[f"bare.{operation}"]
            for unit, pick in (("calls/s", attrgetter("rate")), ("µs", attrgetter("cpu"))):
                ours, theirs = list(map(pick, store)), list(map(pick, bare))
                ratio = median(a / b for a, b in zip(ours, theirs, strict=True)) if all(theirs) else nan
                shown = (f"{median(ours):,.0f} {unit}", f"{median(theirs):,.0f} {unit}", f"{ratio:.2f}")
                table.add_row(f"{case.clients}, {'apart' if case.apart else 'shared'}", operation, *shown)
    return table


def main() -> None:
    """Measure, then print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.server", description=__doc__)
    parser.add_argument("--database-url", help="a server to measure on; default: an embedded one")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.5, help="of a subject's turn in a round")
    options = parser.parse_args()
    processors = os.sched_getaffinity(0)
    with prepared(options.database_url) as url:
        os.sched_setaffinity(0, processors)
        costs = {case: _rounds(url, case, options.rounds, options.seconds) for case in _CASES}
    Console().print(_table(costs))


if __name__ == "__main__":
    main()
