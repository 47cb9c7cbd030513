"""Results of many small calls that are stored together: when nothing but time is at stake, and never by half."""

import os
import random
import signal
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL

from pgresults import PostgresStorage, ResultStore, task
from pgresults.cache_policies import INPUTS
from pgresults.errors import InvalidArgument, LockedError, StorageUnavailable
from pgresults.tasks import Task, explain
from pgresults.transactions import IsolationLevel, gathering
from tests.faults.test_faults import wait_for_backends
from tests.support.calls import Call
from tests.support.chains import HALVES
from tests.support.database import psycopg_url
from tests.support.listing import page
from tests.support.work import called, calls

LONG = timedelta(hours=1)


def transactions(connection: psycopg.Connection[Any], storage: PostgresStorage) -> int:
    """How many transactions of the database stored something."""
    row = connection.execute(
        "SELECT count(DISTINCT xid) FROM pgresults.history WHERE storage_id = %s AND action = 'write'", [storage.id]
    ).fetchone()
    assert row is not None
    return int(row[0])


@pytest.fixture
def square(storage: PostgresStorage) -> Task[[int], Any]:
    """A small task."""

    @task(result_storage=storage, cache_policy=INPUTS)
    def square(x: int) -> Any:
        return called(x) ** 2

    return square


async def test_they_are_stored_together(
    square: Task[[int], Any], storage: PostgresStorage, connection: psycopg.Connection[Any], call: Call
) -> None:
    assert await call(square, "map", range(60), store_within=LONG) == [x**2 for x in range(60)]
    assert len(page(storage)) == 60
    assert transactions(connection, storage) == 1
    holders = "SELECT count(DISTINCT holder) FROM pgresults.result WHERE storage_id = %s"
    assert connection.execute(holders, [storage.id]).fetchone() == (60,)  # each its own, as ever
    assert await call(square, "map", range(-3, 61), store_within=0.001) == [x**2 for x in range(-3, 61)]
    assert sorted(calls) == list(range(-3, 61))
    await call(square, "map", [100, 101])
    assert transactions(connection, storage) >= 4  # without it each is stored at once
    assert ResultStore(result_storage=storage).verify().intact


async def test_calls_of_an_async_task_are_stored_together(
    storage: PostgresStorage, connection: psycopg.Connection[Any]
) -> None:
    @task(result_storage=storage, cache_policy=INPUTS)
    async def square(x: int) -> int:
        return int(called(x)) ** 2

    assert await square.amap(range(60), store_within=60) == [x**2 for x in range(60)]
    assert (len(page(storage)), transactions(connection, storage)) == (60, 1)
    await storage.aclose()


async def test_many_do_not_wait(
    square: Task[[int], Any],
    storage: PostgresStorage,
    connection: psycopg.Connection[Any],
    call: Call,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gathering, "_MOST_ITEMS", 10)
    await call(square, "map", range(35), store_within=LONG)
    assert (len(page(storage)), transactions(connection, storage)) == (35, 4)


async def test_nobody_waits_longer_than_that(storage: PostgresStorage, call: Call) -> None:
    """The last call ends only when the others are stored, which they are while it runs."""
    store = ResultStore(result_storage=storage)

    @task(result_storage=storage, cache_policy=INPUTS)
    def work(x: int) -> int:
        while x == 7 and len(store.find()) < 7:
            pass
        return x

    assert await call(work, "map", range(8), store_within=0.01) == list(range(8))


async def test_what_belongs_together_waits_together(
    storage: PostgresStorage, connection: psycopg.Connection[Any], call: Call
) -> None:
    @task(result_storage=storage, cache_policy=INPUTS)
    def inner(x: int) -> int:
        return x

    @task(result_storage=storage, cache_policy=INPUTS)
    def outer(x: int) -> int:
        return inner(x) + inner(-1)  # the same key for all

    assert await call(outer, "map", range(5), store_within=LONG) == [x - 1 for x in range(5)]
    assert (len(page(storage)), transactions(connection, storage)) == (11, 1)
    assert ResultStore(result_storage=storage).verify().intact


async def test_with_more_at_stake_each_is_stored_at_once(
    storage: PostgresStorage, connection: psycopg.Connection[Any], call: Call
) -> None:
    def work(x: int) -> int:
        return x

    policy = INPUTS.configure(lock_manager=storage.lock_manager(), isolation_level=IsolationLevel.SERIALIZABLE)
    locking = task(work, result_storage=storage, cache_policy=policy)  # type: ignore[call-overload]
    assert await call(locking, "map", range(3), store_within=LONG) == [0, 1, 2]
    assert transactions(connection, storage) == 3
    for hook in ("on_commit", "on_rollback"):
        telling = task(work, name=hook, result_storage=storage, cache_policy=INPUTS)  # type: ignore[call-overload]
        getattr(telling, hook)(lambda _: None)
        before = transactions(connection, storage)
        assert await call(telling, "map", range(10, 13), store_within=LONG) == [10, 11, 12]
        assert transactions(connection, storage) == before + 3
        await call(telling, "invalidate")


async def test_a_locked_key_holds_no_other_one_back(storage: PostgresStorage, call: Call) -> None:
    locks = storage.lock_manager()

    @task(result_storage=storage, cache_policy=INPUTS.configure(lock_manager=locks))
    def work(x: int) -> int:
        return x

    key = explain(work, 3).key
    locks.acquire_lock(key, "another")
    with pytest.raises(LockedError) as refusal:
        await call(work, "map", range(6), store_within=LONG)
    assert refusal.value.key == key
    assert len(page(storage)) == 5
    locks.release_lock(key, "another")


async def test_after_a_failure_what_is_done_is_stored(storage: PostgresStorage, call: Call) -> None:
    done = threading.Semaphore(0)

    @task(result_storage=storage, cache_key_fn=lambda _, given: f"{given['x']}")
    def work(x: int) -> int:
        if x == 2:
            done.acquire()
            done.acquire()
            raise ZeroDivisionError
        done.release()
        return x

    with pytest.raises(ZeroDivisionError):
        await call(work, "map", range(3), store_within=LONG)
    assert [work.is_cached(x) for x in range(3)] == [True, True, False]


async def test_an_outage_is_told(
    square: Task[[int], Any], storage: PostgresStorage, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any, **__: Any) -> Any:
        raise StorageUnavailable("it is away")

    await call(square, "map", [0])
    monkeypatch.setattr(gathering, "write_runs", failing)
    for window in (LONG, 0.0001):
        with pytest.raises(StorageUnavailable):
            await call(square, "map", range(1, 50), store_within=window)
    assert len(page(storage)) == 1


@pytest.mark.parametrize("window", [0, -1, timedelta(0), True, "1s", float("nan"), float("inf")])
async def test_what_is_no_time_is_refused(square: Task[[int], Any], call: Call, window: Any) -> None:
    with pytest.raises(InvalidArgument, match="store_within"):
        await call(square, "map", [1], store_within=window)
    assert calls == []


async def test_processes_do_not_wait_together(square: Task[[int], Any], call: Call) -> None:
    with ProcessPoolExecutor(1) as executor:
        for options in ({"processes": 2}, {"executor": executor}):
            with pytest.raises(InvalidArgument, match="in one process"):
                await call(square, "map", [1], store_within=1, **options)


PROGRAM = """
import os, sys
from pgresults import PostgresStorage, task

storage = PostgresStorage(sys.argv[1], sys.argv[2])

@task(result_storage=storage, result_storage_key="inner/{parameters[x]}")
def inner(x):
    return os.urandom(2000)

@task(result_storage=storage, result_storage_key="outer/{parameters[x]}")
def outer(x):
    return inner(x)

def tell(progress):
    os.write(1, f"{progress.reused} {progress.computed}\\n".encode())

outer.map(range(int(sys.argv[3])), store_within=0.02, progress=tell)
"""


@pytest.mark.parametrize("rounds", [2, pytest.param(30, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
def test_a_killed_process_leaves_no_half(fresh_url: URL, tmp_path: Path, rounds: int) -> None:
    """Each round stores some more; what a round found was there when the one before was killed."""
    (tmp_path / "program.py").write_text(PROGRAM)
    url, store = psycopg_url(fresh_url), ResultStore(result_storage=PostgresStorage(fresh_url))
    command = [sys.executable, tmp_path / "program.py", url, "default", "5000"]
    chance, before = random.Random(rounds), 0
    for _ in range(rounds):
        with Popen(command, stdout=PIPE, text=True, env=os.environ | {"PYTHONHASHSEED": "0"}) as process:
            assert process.stdout is not None
            said = [process.stdout.readline() for _ in range(chance.randrange(300, 1500))]
            process.send_signal(signal.SIGKILL)
            said += process.stdout
        assert process.returncode == -signal.SIGKILL
        reused, acknowledged = map(int, said[-1].split())
        with psycopg.connect(url, autocommit=True) as connection:
            wait_for_backends(connection)
            assert connection.execute(HALVES).fetchall() == []
        there = [
            {found.key.partition("/")[2] for found in store.find(prefix=prefix)} for prefix in ("outer/", "inner/")
        ]
        assert there[0] == there[1]  # both or neither
        stored = len(there[0])
        assert before <= stored <= before + acknowledged + 32  # some were stored before they were told of
        assert reused == before
        before = stored
        store.close()
    assert store.verify().intact
    store.close()
