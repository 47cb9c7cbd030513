"""What holds results back: a task that is itself stored, and a transaction of the user's; nothing else."""

import asyncio
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from pgresults import PostgresStorage, ResultStore, flow, get_transaction, task, transaction
from pgresults.cache_policies import INPUTS
from tests.support.transactions import Failure, stored
from tests.support.work import called, calls


@pytest.mark.parametrize("outer_kind", ["task", "task in task", "subflow", "uncached"])
def test_an_unstored_task_holds_nothing_back(outer_kind: str, storage: PostgresStorage, store: ResultStore) -> None:
    @task(result_storage=storage, result_storage_key="inner")
    def inner() -> int:
        return int(called(1))

    def outer() -> None:
        inner()
        inner()
        assert stored(store, "inner") == {"inner": 1}
        raise Failure

    runs = {"task": task(outer), "task in task": task(lambda: task(outer)()), "subflow": task(lambda: flow(outer)())}
    with pytest.raises(Failure):
        runs.get(outer_kind, task(outer, result_storage=storage, persist_result=False))()
    assert stored(store, "inner") == {"inner": 1}
    assert calls == [1]


async def test_concurrent_calls_within_it_compute_once(storage: PostgresStorage) -> None:
    policy = INPUTS.configure(isolation_level="SERIALIZABLE", lock_manager=storage.lock_manager())

    @task(result_storage=storage, cache_policy=policy)
    async def inner(x: int) -> int:
        await asyncio.sleep(0.01)
        return int(called(x))

    @task
    async def outer() -> list[int]:
        return await asyncio.gather(*map(inner, [7] * 8))

    assert await outer() == [7] * 8
    assert calls == [7]
    await storage.aclose()


KILLED = """
import sys, threading
from pgresults import PostgresStorage, task
storage = PostgresStorage(sys.argv[1], sys.argv[2])

@task(result_storage=storage, result_storage_key="{parameters[x]}")
def inner(x):
    return x

@task
def outer():
    inner("a")
    inner("b")
    print("computed", flush=True)
    threading.Event().wait()

outer()
"""


@pytest.mark.parametrize("death", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_what_was_done_survives_a_death(
    death: signal.Signals, tmp_path: Path, storage: PostgresStorage, store: ResultStore
) -> None:
    (tmp_path / "program.py").write_text(KILLED)
    url = storage.database.url().set(drivername="postgresql").render_as_string(hide_password=False)
    command = [sys.executable, "program.py", url, storage.name]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"computed\n"
        process.send_signal(death)
        process.wait(30)
    assert stored(store, "a", "b") == {"a": "a", "b": "b"}


def test_a_stored_task_is_stored_with_what_is_inside(storage: PostgresStorage, store: ResultStore) -> None:
    @task(result_storage=storage, result_storage_key="inner")
    def inner() -> int:
        return 1

    @task
    def between() -> int:
        return int(inner())

    @task(result_storage=storage, result_storage_key="outer")
    def outer(fail: bool) -> int:
        between()
        assert stored(store, "inner") == {}
        if fail:
            raise Failure
        return 2

    with pytest.raises(Failure):
        outer(True)
    assert stored(store, "inner", "outer") == {}
    outer(False)
    assert stored(store, "inner", "outer") == {"inner": 1, "outer": 2}


def test_its_own_transaction_is_there(storage: PostgresStorage, store: ResultStore) -> None:
    seen: list[Any] = []

    @task(result_storage=storage, result_storage_key="inner")
    def inner() -> None:
        txn = get_transaction()
        assert txn is not None
        seen.append((txn.get("name"), txn.get_parent()))

    @task
    def outer(fail: bool = False) -> None:
        txn = get_transaction()
        assert txn is not None
        assert (txn.key, txn.is_active()) == (None, True)
        txn.set("name", "Ada")
        inner.with_options(refresh_cache=True)()
        assert seen[-1] == ("Ada", txn)
        if fail:
            raise Failure

    outer.on_commit(lambda txn: seen.append(("commit", txn.get("name"))))
    outer.on_rollback(lambda txn: seen.append(("rollback", txn.get("name"))))
    outer()
    assert seen[1:] == [("commit", "Ada")]
    with suppress(Failure):
        outer(True)
    assert seen[3:] == [("rollback", "Ada")]
    with suppress(Failure), transaction():
        outer()
        assert seen[5:] == []
        raise Failure
    assert seen[5:] == [("rollback", "Ada")]
    with transaction():
        outer()
        assert seen[7:] == []
    assert seen[7:] == [("commit", "Ada")]


def test_locks_of_an_unstored_task_are_those_of_its_thread(guarded: ResultStore) -> None:
    @task
    def outer() -> None:
        guarded.acquire_lock("k")
        assert guarded.is_lock_holder("k")
        guarded.write(1, "k")
        guarded.release_lock("k")

    outer()
    with transaction("t", guarded) as txn:
        txn.stage(1)
        outer()
    assert stored(guarded, "k", "t") == {"k": 1, "t": 1}


@pytest.mark.parametrize("outer_fails", [False, True])
async def test_what_ends_after_a_stored_task_belongs_to_what_is_around_that(
    storage: PostgresStorage, store: ResultStore, outer_fails: bool
) -> None:
    began, ended = asyncio.Event(), asyncio.Event()
    strays: list[asyncio.Task[Any]] = []

    @task(result_storage=storage, result_storage_key="inner")
    async def inner() -> int:
        began.set()
        await ended.wait()
        return 1

    @task(result_storage=storage, result_storage_key="outer")
    async def outer() -> int:
        strays.append(asyncio.ensure_future(inner()))
        await began.wait()
        if outer_fails:
            raise Failure
        return 2

    @task
    async def around() -> None:
        with suppress(Failure):
            await outer()

    async with transaction():
        await around()
        ended.set()
        await strays[0]
        assert stored(store, "inner", "outer") == {}
    assert stored(store, "inner", "outer") == ({} if outer_fails else {"inner": 1, "outer": 2})
    await storage.aclose()


def test_a_commit_mode_reaches_through_it(storage: PostgresStorage, store: ResultStore) -> None:
    @task(result_storage=storage, result_storage_key="inner")
    def inner() -> int:
        return 1

    @task
    def outer() -> None:
        inner()
        seen.append(stored(store, "inner"))

    seen: list[Any] = []
    with suppress(Failure), transaction(commit_mode="EAGER"):  # type: ignore[arg-type]
        outer()
        raise Failure
    assert seen == [{"inner": 1}]
