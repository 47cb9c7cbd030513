"""Work that a lock's holder starts elsewhere and waits for, and that asks for the lock as somebody else."""

import asyncio
import contextvars
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from pgresults.cache_policies import INPUTS, CacheKeyFnPolicy
from pgresults.errors import DeadlockDetected, LockedError
from pgresults.store import ResultStore
from pgresults.tasks import explain, task
from pgresults.transactions import transaction
from tests.support.database import psycopg_url
from tests.support.transactions import SERIALIZABLE

pytestmark = pytest.mark.timeout(60)


def some_slow(starts: tuple[Callable[..., Any], ...]) -> list[Any]:
    """The ways to start, all but two of them slow: each takes as long as a circle stays unseen."""
    return [*starts[:2], *(pytest.param(start, marks=pytest.mark.slow) for start in starts[2:])]


def join(work: Callable[[], Any]) -> None:
    errors = []

    def caught() -> None:
        try:
            work()
        except DeadlockDetected as error:
            errors.append(error)

    thread = threading.Thread(target=caught)
    thread.start()
    thread.join()
    raise errors[0]


def result(work: Callable[[], Any]) -> None:
    with ThreadPoolExecutor(2) as pool:
        pool.submit(work).result()


def exception(work: Callable[[], Any]) -> None:
    with ThreadPoolExecutor(2) as pool:
        raise pool.submit(work).exception()


def shutdown(work: Callable[[], Any]) -> None:
    with ThreadPoolExecutor(2) as pool:
        pool.submit(int)
        future = pool.submit(work)
    raise future.exception()


def completed(work: Callable[[], Any]) -> None:
    with ThreadPoolExecutor(2) as pool:
        for future in as_completed([pool.submit(int), pool.submit(work)]):
            future.result()


def waited(work: Callable[[], Any]) -> None:
    with ThreadPoolExecutor(2) as pool:
        done, _ = wait([pool.submit(int), pool.submit(work)])
        for future in done:
            future.result()


def mapped(work: Callable[[], Any]) -> None:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda number: number or work(), (1, 0)))


def twice(work: Callable[[], Any]) -> None:
    """A pool in a pool."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(result, work).result()


def on_a_loop(work: Callable[[], Any]) -> None:
    """A loop of the holder's own, whose executor does the work."""

    async def main() -> None:
        await asyncio.get_running_loop().run_in_executor(None, work)

    asyncio.run(main())


def in_place(work: Callable[[], Any]) -> None:
    """Not even elsewhere, but without the context."""
    contextvars.Context().run(work)


STARTS = (join, result, exception, shutdown, completed, waited, mapped, twice, on_a_loop, in_place)


@pytest.mark.parametrize("start", some_slow(STARTS), ids=lambda start: start.__name__)
def test_of_threads(locking: ResultStore, start: Callable[..., Any]) -> None:
    def work() -> None:
        with transaction("k", locking, isolation_level=SERIALIZABLE):
            pytest.fail("it is locked")

    with (
        pytest.raises(DeadlockDetected, match="with the context") as caught,
        transaction("k", locking, isolation_level=SERIALIZABLE) as outer,
    ):
        start(work)
    assert (caught.value.keys, caught.value.holder) == (("k",), outer.holder)
    assert not locking.is_locked("k")
    with transaction("k", locking, isolation_level=SERIALIZABLE) as again:
        again.stage(1)
    assert locking.read("k").result == 1


async def executor(work: Callable[[], Any]) -> None:
    await asyncio.get_running_loop().run_in_executor(None, work)


async def gathered(work: Callable[[], Any]) -> None:
    await asyncio.gather(asyncio.sleep(0), executor(work))


async def grouped(work: Callable[[], Any]) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(executor(work))


async def all_of_them(work: Callable[[], Any]) -> None:
    done, _ = await asyncio.wait([asyncio.create_task(executor(work))])
    done.pop().result()


async def shielded(work: Callable[[], Any]) -> None:
    await asyncio.shield(asyncio.create_task(executor(work)))


async def blocking(work: Callable[[], Any]) -> None:
    result(work)


ASYNC_STARTS = (executor, gathered, grouped, all_of_them, shielded, blocking)


@pytest.mark.parametrize("start", some_slow(ASYNC_STARTS), ids=lambda start: start.__name__)
async def test_of_coroutines(locking: ResultStore, start: Callable[..., Any]) -> None:
    def work() -> None:
        with transaction("k", locking, isolation_level=SERIALIZABLE):
            pytest.fail("it is locked")

    error: BaseException
    try:
        async with transaction("k", locking, isolation_level=SERIALIZABLE) as outer:
            await start(work)
        pytest.fail("it waits for itself")
    except* DeadlockDetected as group:
        [error] = group.exceptions
        while isinstance(error, ExceptionGroup):
            [error] = error.exceptions
    assert error.holder == outer.holder
    assert not locking.is_locked("k")
    await locking.result_storage.aclose()


async def test_of_a_task_that_blocks_the_loop_of_the_holder(locking: ResultStore) -> None:
    async def hold(inside: asyncio.Event, leave: asyncio.Event) -> None:
        async with transaction("k", locking, isolation_level=SERIALIZABLE) as txn:
            inside.set()
            await leave.wait()
            txn.stage("held")

    inside, leave = asyncio.Event(), asyncio.Event()
    holding = asyncio.create_task(hold(inside, leave))
    await inside.wait()
    with pytest.raises(DeadlockDetected), transaction("k", locking, isolation_level=SERIALIZABLE):
        pytest.fail("it is locked")
    leave.set()
    await holding
    assert (await locking.aread("k")).result == "held"
    await locking.result_storage.aclose()


class TestLeftAlone:
    """Who may go on after all is not ended."""

    @pytest.mark.parametrize("timeout", [1.7, None])
    def test_a_wait_with_an_end(self, locking: ResultStore, timeout: float | None) -> None:
        go_on = threading.Event()
        with ThreadPoolExecutor(2) as pool:
            with transaction("k", locking, isolation_level=SERIALIZABLE):
                future = pool.submit(locking.acquire_lock, "k", "other", 20)
                if timeout is None:
                    pool.submit(go_on.wait, 1.7).result()  # another's work
                else:
                    with pytest.raises(TimeoutError):
                        future.result(timeout)
            assert future.result() is True
        locking.release_lock("k", "other")

    def test_a_holder_with_a_name_may_let_go_anywhere(self, locking: ResultStore) -> None:
        locking.acquire_lock("k", "named")
        with ThreadPoolExecutor(2) as pool:
            future = pool.submit(locking.acquire_lock, "k", "other", 20)
            letting_go = threading.Timer(1.7, locking.release_lock, ("k", "named"))
            letting_go.start()
            assert future.result() is True
        letting_go.join()
        locking.release_lock("k", "other")

    def test_what_carries_the_context_is_the_same_holder(self, locking: ResultStore) -> None:
        with ThreadPoolExecutor(1) as pool, transaction("k", locking, isolation_level=SERIALIZABLE):
            context = contextvars.copy_context()
            assert pool.submit(context.run, locking.acquire_lock, "k", timeout=0).result() is True


def test_over_another_holder(guarded: ResultStore) -> None:
    """What the holder has started waits for another's lock, who waits for the holder's."""

    def other(both_hold: threading.Barrier) -> None:
        with transaction("b", guarded, isolation_level=SERIALIZABLE) as txn:
            both_hold.wait()
            with transaction("a", guarded) as inner:
                inner.stage("other")
            txn.stage("other")

    def work() -> None:
        with transaction("b", guarded, isolation_level=SERIALIZABLE) as txn:
            txn.stage("work")

    def hold(both_hold: threading.Barrier) -> None:
        with transaction("a", guarded, isolation_level=SERIALIZABLE) as txn:
            both_hold.wait()
            result(work)
            txn.stage("holder")

    both_hold = threading.Barrier(2)
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(hold, both_hold), pool.submit(other, both_hold)]
        errors = [future.exception() for future in futures]
    assert [type(error) for error in errors].count(DeadlockDetected) == 1
    assert guarded.exists("a")
    assert guarded.exists("b")


PROGRAM = """
from pgresults import task
from pgresults.cache_policies import INPUTS
from pgresults.errors import DeadlockDetected
from pgresults.storage import PostgresStorage
import sys

storage = PostgresStorage(sys.argv[1], sys.argv[2])
policy = INPUTS.configure(lock_manager=storage.lock_manager(), isolation_level="SERIALIZABLE")

@task(cache_policy=policy, result_storage=storage)
def part(n):
    return n

@task(cache_policy=policy, result_storage=storage)
def report():
    part(1)
    return part.with_options(refresh_cache=True).map([1, 2], processes=1)

if __name__ == "__main__":
    try:
        report()
    except DeadlockDetected as error:
        print("deadlock", len(error.keys))
"""


@pytest.mark.slow
def test_of_mapped_processes(tmp_path: Path, shared_url: URL, guarded: ResultStore) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, str(program), psycopg_url(shared_url), guarded.result_storage.name]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (ran.stdout, ran.returncode) == ("deadlock 1\n", 0), ran.stderr


def test_of_tasks(guarded: ResultStore) -> None:
    # What the functions close over changes while they run, or cannot be told from others: it has no part in the key.
    policy = CacheKeyFnPolicy(cache_key_fn=lambda context, inputs: f"{context.task.name} {inputs}").configure(
        lock_manager=guarded.lock_manager, isolation_level="SERIALIZABLE"
    )
    storage = guarded.result_storage
    both = threading.Barrier(2)
    runs: list[int] = []

    @task(cache_policy=policy, result_storage=storage)
    def part(n: int) -> int:
        runs.append(n)
        return n

    @task(cache_policy=policy, result_storage=storage)
    def report(order: tuple[int, int]) -> int:
        first, second = order
        taken = part(first)
        both.wait()
        return taken + part(second)

    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(report, order) for order in ((0, 1), (1, 0))]
        errors = [error for future in futures if (error := future.exception())]
        results = [future.result() for future in futures if not future.exception()]
    assert [type(error) for error in errors] == [DeadlockDetected]
    assert results == [1]
    assert len(errors[0].keys) == 2


def test_a_task_waits_as_long_as_its_policy_says(guarded: ResultStore) -> None:
    manager = guarded.lock_manager
    policy = INPUTS.configure(lock_manager=manager, isolation_level="SERIALIZABLE", lock_timeout=0.05)
    assert (policy + INPUTS).lock_timeout == 0.05

    @task(cache_policy=policy, result_storage=guarded.result_storage)
    def part(n: int) -> int:
        raise AssertionError

    key = explain(part, 1).key
    assert key is not None
    manager.acquire_lock(key, "somebody")
    with pytest.raises(LockedError, match="somebody has it"):
        part(1)
    manager.release_lock(key, "somebody")
