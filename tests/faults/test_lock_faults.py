"""Locks under real deaths: whoever was stopped, killed or cut off, no write is stale, lost or there by half."""

# ruff: noqa: PT012 (what fails is the end of a block)

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL

from pgresults.errors import LockLostError, StorageUnavailable
from pgresults.server.embedded import EmbeddedPostgres
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from pgresults.transactions import IsolationLevel, transaction
from tests.faults.conftest import Tell
from tests.support.database import psycopg_url

NAME = "faults"

WORKER = """
import os, sys
from contextlib import suppress
from pgresults.errors import PgResultsError
from pgresults.serializers import JSONSerializer
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from pgresults.transactions import transaction

storage = PostgresStorage(sys.argv[1], sys.argv[2])
store = ResultStore(result_storage=storage, lock_manager=storage.lock_manager(), serializer=JSONSerializer())
while True:
    with suppress(PgResultsError), transaction(store=store) as root:
        holder = root.holder
        store.acquire_lock("counter", hold_timeout=0.4)
        fence = store.lock_manager._grant("counter", holder).fence
        value = store.read("counter").result + 1 if store.exists("counter") else 1
        with transaction("counter", overwrite=True) as child:
            child.stage(value)
        for n in range(20):  # what comes after the proof: time for faults between it and the commit
            with transaction(f"other/{os.getpid()}/{n}", overwrite=True) as child:
                child.stage(n)
    if root.is_committed():
        os.write(1, f"{fence} {value}\\n".encode())
    with suppress(PgResultsError):
        store.release_lock("counter", holder)
"""


class Workers:
    """Processes that increment one value under its lock, and whatever may happen to them."""

    def __init__(self, url: URL, outputs: Path, number: int) -> None:
        self.url, self.outputs = psycopg_url(url), outputs
        self.started = 0
        self.running = [self.start() for _ in range(number)]
        while not self.acknowledged():
            time.sleep(0.01)

    def start(self) -> subprocess.Popen[bytes]:
        self.started += 1
        with (self.outputs / str(self.started)).open("wb") as output:
            return subprocess.Popen([sys.executable, "-c", WORKER, self.url, NAME], stdout=output)

    def kill(self, chance: random.Random) -> None:
        number = chance.randrange(len(self.running))
        self.running[number].kill()
        self.running[number].wait()
        self.running[number] = self.start()

    def stop_for_a_while(self, chance: random.Random) -> None:
        process = chance.choice(self.running)
        process.send_signal(signal.SIGSTOP)
        time.sleep(chance.uniform(0.3, 0.9))  # as long as the fault lasts: longer than a hold, or not
        process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        for process in self.running:
            process.kill()
            process.wait()

    def acknowledged(self) -> list[tuple[int, int]]:
        """Fence and value of each write that a worker was told of."""
        written = []
        for path in self.outputs.iterdir():
            lines = path.read_text().splitlines(keepends=True)
            whole = [line for line in lines if line.endswith("\n")]
            written += [tuple(map(int, line.split())) for line in whole]
        return written


def increment_under_faults(url: URL, outputs: Path, seconds: float, seed: int, tell: Tell) -> None:
    """Let workers increment while they are killed, stopped and cut off; then compare with the history."""
    chance = random.Random(seed)
    workers = Workers(url, outputs, 4)
    faults = 0
    try:
        with psycopg.connect(psycopg_url(url), autocommit=True) as connection:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                time.sleep(chance.uniform(0.05, 0.3))  # the moment of a fault is meant to be any
                faults += 1
                fault = chance.choice(["kill", "stop", "stop", "stop", "terminate", "terminate"])
                if fault == "kill":
                    workers.kill(chance)
                elif fault == "stop":
                    workers.stop_for_a_while(chance)
                else:
                    connection.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
                        "AND application_name = 'pgresults' ORDER BY random() LIMIT 2"
                    )
    finally:
        workers.end()
    acknowledged = workers.acknowledged()
    lost = check(url, acknowledged, at_least=seconds * 2)
    stuck = int(not PostgresStorage(url).lock_manager().acquire_lock("counter", "next", 30))
    named = "a lock's holder is killed, stopped or cut off"
    tell(named, rounds=faults, acknowledged=len(acknowledged), lost=lost, stuck=stuck)


def check(url: URL, acknowledged: list[tuple[int, int]], at_least: float) -> int:
    """No write was stale: values grow one by one, fences never go back; says how many were lost that were told."""
    with psycopg.connect(psycopg_url(url)) as connection:
        history = connection.execute(
            "SELECT fence, convert_from(data, 'UTF8')::int FROM pgresults.history JOIN pgresults.payload "
            "USING (storage_id, key, payload_id) WHERE key = 'counter' ORDER BY seq"
        ).fetchall()
    fences, values = [fence for fence, _ in history], [value for _, value in history]
    assert values == list(range(1, len(values) + 1))
    assert fences == sorted(fences)
    assert len(acknowledged) > at_least
    return len(set(acknowledged) - set(history))


def test_no_write_under_a_lock_is_stale_or_lost(fresh_url: URL, tmp_path: Path, tell: Tell) -> None:
    increment_under_faults(fresh_url, tmp_path, 5, 1, tell)


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_no_write_under_a_lock_is_stale_or_lost_for_a_minute(fresh_url: URL, tmp_path: Path, tell: Tell) -> None:
    increment_under_faults(fresh_url, tmp_path, 60, 2, tell)


# A holder that hangs at the worst moment


GUARDED_WRITE = """
import sys
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
storage = PostgresStorage(sys.argv[1], sys.argv[2])
store = ResultStore(result_storage=storage, lock_manager=storage.lock_manager())
store.acquire_lock("k", "there")
print("held", flush=True)
sys.stdin.readline()
try:
    store.write("stale", key="k", holder="there")
except Exception as error:
    print(type(error).__name__, flush=True)
else:
    print("written", flush=True)
sys.stdin.readline()
"""

Start = Callable[[str], Any]


@pytest.fixture
def start(shared_url: URL, storage: PostgresStorage) -> Iterator[Start]:
    """Starts a Python process with the URL and the storage's name as arguments."""
    started = []

    def start(program: str) -> Any:
        command = [sys.executable, "-c", program, psycopg_url(shared_url), storage.name]
        started.append(subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def tell(process: Any) -> None:
    process.stdin.write("\n")
    process.stdin.flush()


def test_a_released_lock_goes_to_the_process_that_waits(guarded: ResultStore, start: Start) -> None:
    holder = start(GUARDED_WRITE.replace('store.write("stale", key="k"', 'store.release_lock("k"'))
    assert holder.stdout.readline() == "held\n"
    assert guarded.acquire_lock("k", "here", timeout=0) is False
    tell(holder)
    assert guarded.acquire_lock("k", "here", timeout=30) is True
    assert guarded.is_lock_holder("k", "here")


def test_a_killed_holders_lock_goes_to_the_process_that_waits(guarded: ResultStore, start: Start) -> None:
    holder = start(GUARDED_WRITE)
    assert holder.stdout.readline() == "held\n"
    holder.kill()
    assert guarded.acquire_lock("k", "here", timeout=30) is True
    assert guarded.write("here", key="k", holder="here").version == 1


def test_a_stopped_holders_write_comes_too_late(guarded: ResultStore, start: Start, connection: Any) -> None:
    holder = start(GUARDED_WRITE)
    assert holder.stdout.readline() == "held\n"
    holder.send_signal(signal.SIGSTOP)
    query = "SELECT pg_terminate_backend(b.backend_pid, 10000) FROM pgresults.held_locks b WHERE b.holder = 'there'"
    assert connection.execute(query + " AND b.storage = %s", [str(guarded.result_storage.id)]).fetchall() == [(True,)]
    assert guarded.acquire_lock("k", "here", timeout=30) is True
    guarded.write("fresh", key="k", holder="here")
    guarded.release_lock("k", "here")
    tell(holder)
    holder.send_signal(signal.SIGCONT)
    assert holder.stdout.readline() == "LockLostError\n"
    assert guarded.read("k").result == "fresh"


# A tree's commit, killed between any two of its statements


def commit_a_tree(url: URL, name: str, statements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commit a tree, but die before the statement after so many of them."""
    storage = PostgresStorage(url, name)
    store = ResultStore(result_storage=storage, lock_manager=storage.lock_manager())
    store.write(0, key="warm")
    plain, left = psycopg.Connection.wait, statements

    def wait(connection: Any, *arguments: Any, **options: Any) -> Any:
        nonlocal left
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return plain(connection, *arguments, **options)

    with transaction(store=store, isolation_level=IsolationLevel.SERIALIZABLE):
        for key, value in (("a", 1), ("b", bytes(2_500_000)), ("c", 3)):
            with transaction(key) as child:
                child.stage(value)
        monkeypatch.setattr(psycopg.Connection, "wait", wait)


def forked(work: Callable[[], None]) -> int:
    """How a child ends that does some work."""
    if (pid := os.fork()) == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_process_killed_between_any_two_statements_stores_all_or_nothing(
    fresh_url: URL, monkeypatch: pytest.MonkeyPatch, tell: Tell
) -> None:
    outcomes: list[tuple[int, int]] = []
    stuck = 0
    keys = "SELECT key FROM pgresults.result WHERE storage_id = %s AND key <> 'warm' ORDER BY key"
    payloads = "SELECT DISTINCT key FROM pgresults.payload WHERE storage_id = %s AND key <> 'warm' ORDER BY key"
    with psycopg.connect(psycopg_url(fresh_url), autocommit=True) as connection:
        while not outcomes or outcomes[-1][0] == -signal.SIGKILL:
            step = len(outcomes)
            storage = PostgresStorage(fresh_url, f"tree-{step}")
            code = forked(lambda: commit_a_tree(fresh_url, storage.name, step, monkeypatch))  # noqa: B023 (run at once)
            locks = storage.lock_manager()
            stuck += sum(not locks.acquire_lock(key, "next", 30) for key in "abc")
            found = connection.execute(keys, [storage.id]).fetchall()
            assert connection.execute(payloads, [storage.id]).fetchall() == found
            assert found in ([], [("a",), ("b",), ("c",)])
            storage.close()
            outcomes.append((code, len(found)))
    assert outcomes[-1] == (0, 3)
    counts = [count for _, count in outcomes]
    assert counts == sorted(counts)
    assert counts.count(0) > 5
    assert counts.count(3) > 2
    known = sum(code == 0 for code, _ in outcomes)
    tell("a process is killed in a tree's commit", rounds=len(outcomes), acknowledged=known, lost=0, stuck=stuck)


# The server's death


def test_locks_die_with_the_server_and_fences_go_on(server: EmbeddedPostgres) -> None:
    storage = PostgresStorage(server.path)
    store = ResultStore(result_storage=storage, lock_manager=storage.lock_manager())
    fences = []
    for round_ in range(4):
        for n in range(round_ * 7 + 1):
            store.acquire_lock(f"k{n}", "holder")
        fences.append(store.lock_manager._grant("k0", "holder").fence)
        store.write(round_, key="k0", holder="holder")
        crash(server)
        with pytest.raises(LockLostError):
            rewrite(store, round_)
        assert store.read("k0").result == round_
        assert store.is_locked("k0") is False
    with psycopg.connect(psycopg_url(storage.database.url())) as connection:
        written = connection.execute("SELECT fence FROM pgresults.history ORDER BY seq").fetchall()
    assert [fence for (fence,) in written] == fences == sorted(set(fences))
    storage.close()


def crash(server: EmbeddedPostgres) -> None:
    """Kill the server's processes, all of them: one that outlives the first may still finish a statement."""
    postmaster = server.status().pid
    children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    for pid in (postmaster, *map(int, children)):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def rewrite(store: ResultStore, value: Any) -> None:
    """Write as the holder, over and over until the server is back."""
    while True:
        try:
            store.write(f"stale {value}", key="k0", holder="holder")
        except StorageUnavailable:
            continue
        return


def test_a_transaction_whose_server_restarts_stores_nothing(server: EmbeddedPostgres) -> None:
    storage = PostgresStorage(server.path)
    store = ResultStore(result_storage=storage, lock_manager=storage.lock_manager())
    with (
        pytest.raises((LockLostError, StorageUnavailable)),
        transaction("k", store, isolation_level=IsolationLevel.SERIALIZABLE) as txn,
    ):
        txn.stage(1)
        crash(server)
        storage.database.url()
    assert txn.is_rolled_back()
    assert store.exists("k") is False
    storage.close()
