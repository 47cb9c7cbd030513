"""A task may handle the failure of what it calls, which takes back only its own."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from pgresults import PostgresStorage, ResultStore, flow, task, transaction
from pgresults.context import carried
from pgresults.errors import RolledBackError
from pgresults.tasks import Task
from tests.support.transactions import Failure, stored
from tests.support.work import called, calls

Make = Callable[..., Task[..., Any]]


@pytest.fixture
def stored_task(storage: PostgresStorage) -> Make:
    """Makes a task whose results are stored under the name of its function."""
    return lambda fn, **options: task(fn, result_storage=storage, result_storage_key=fn.__name__, **options)


@pytest.fixture(params=["stored", "unstored"])
def outer_task(request: pytest.FixtureRequest, stored_task: Make) -> Make:
    """Makes a task around others, itself stored or not."""
    return stored_task if request.param == "stored" else task


def test_a_fallback_without_any_persistence() -> None:
    @task
    def fetch() -> str:
        raise OSError

    @task
    def report() -> str:
        try:
            return fetch()
        except OSError:
            return "fallback"

    assert report() == "fallback"


def test_the_task_and_its_other_children_are_stored(outer_task: Make, stored_task: Make, store: ResultStore) -> None:
    @stored_task
    def good() -> int:
        return 1

    @stored_task
    def bad() -> int:
        below()
        raise Failure

    @stored_task
    def below() -> int:
        return 2

    @stored_task
    def after() -> int:
        return 3

    def outer() -> int:
        good()
        with suppress(Failure):
            bad()
        return after()

    assert outer_task(outer)() == 3
    found = stored(store, "outer", "good", "bad", "below", "after")
    assert found.pop("outer", 3) == 3
    assert found == {"good": 1, "after": 3}


def test_a_retry_loop(outer_task: Make, stored_task: Make, store: ResultStore) -> None:
    @stored_task
    def flaky() -> int:
        if len(calls) < 3:
            raise Failure(called(1))
        return len(calls)

    def outer() -> int:
        for _ in range(5):
            with suppress(Failure):
                return int(flaky())
        raise AssertionError

    assert outer_task(outer)() == 3
    assert store.read("flaky").result == 3


@pytest.mark.parametrize("kind", ["subflow", "transaction", "map", "thread", "KeyboardInterrupt"])
def test_whatever_is_called(kind: str, outer_task: Make, stored_task: Make, store: ResultStore) -> None:
    @stored_task
    def bad(_: int = 0) -> int:
        raise KeyboardInterrupt if kind == "KeyboardInterrupt" else Failure

    @flow
    def subflow() -> None:
        bad()

    def call() -> None:
        match kind:
            case "subflow":
                subflow()
            case "transaction":
                with transaction("inner", store) as txn:
                    txn.stage(1)
                    bad()
            case "map":
                bad.map([1, 2])
            case "thread":
                with ThreadPoolExecutor() as pool:
                    pool.submit(carried(bad)).result()
            case _:
                bad()

    @stored_task
    def good() -> int:
        return 1

    def outer() -> str:
        good()
        with pytest.raises((Failure, KeyboardInterrupt)):
            call()
        return "went on"

    assert outer_task(outer)() == "went on"
    found = stored(store, "outer", "good", "inner", "bad")
    assert found.pop("outer", "went on") == "went on"
    assert found == {"good": 1}


async def test_gather_and_wait_for(outer_task: Make, stored_task: Make, store: ResultStore) -> None:
    @stored_task
    async def good() -> int:
        await asyncio.sleep(0)
        return 1

    @stored_task
    async def bad() -> int:
        await asyncio.sleep(0)
        raise Failure

    @stored_task
    async def endless() -> int:
        await asyncio.Event().wait()
        return 1

    async def outer() -> Any:
        _, failure = await asyncio.gather(good(), bad(), return_exceptions=True)
        assert isinstance(failure, Failure)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(endless(), 0.01)
        return 3

    assert await outer_task(outer)() == 3
    found = stored(store, "outer", "good", "bad", "endless")
    assert found.pop("outer", 3) == 3
    assert found == {"good": 1}
    await store.result_storage.aclose()


def test_the_hooks_of_what_failed_run_and_no_others(outer_task: Make, stored_task: Make) -> None:
    seen: list[str] = []

    def hooked(work: Task[..., Any]) -> Task[..., Any]:
        work.on_commit(lambda _: seen.append(f"commit {work.name}"))
        work.on_rollback(lambda _: seen.append(f"rollback {work.name}"))
        return work

    def bad() -> None:
        inside()
        raise Failure

    def good() -> int:
        return 1

    inside = hooked(stored_task(lambda: 1, name="inside"))
    bad_task, good_task = hooked(stored_task(bad)), hooked(stored_task(good))

    def outer() -> int:
        good_task()
        with suppress(Failure):
            bad_task()
        return 1

    hooked(outer_task(outer))()
    assert sorted(seen) == ["commit good", "commit outer", "rollback bad", "rollback inside"]


def test_in_a_transaction_a_task_that_handles_a_failure_stores(stored_task: Make, store: ResultStore) -> None:
    @stored_task
    def good() -> int:
        return 1

    @stored_task
    def bad() -> None:
        raise Failure

    @task
    def careful() -> int:
        with suppress(Failure):
            bad()
        return int(good())

    with transaction():
        assert careful() == 1
        assert stored(store, "good") == {}
    assert stored(store, "good", "bad") == {"good": 1}


@pytest.mark.parametrize("is_stored", [True, False])
def test_in_a_transaction_a_failed_task_takes_all_with_it(
    stored_task: Make, store: ResultStore, is_stored: bool
) -> None:
    @stored_task
    def good() -> int:
        return 1

    def bad() -> None:
        raise Failure

    failing = stored_task(bad) if is_stored else task(bad)
    with pytest.raises(RolledBackError):  # noqa: PT012, SIM117 (what fails is the end of the block)
        with transaction():
            good()
            with suppress(Failure):
                failing()
    assert stored(store, "good") == {}


def test_a_failure_of_another_thread_is_that_threads(stored_task: Make, store: ResultStore) -> None:
    failed = threading.Event()

    @stored_task
    def bad() -> None:
        try:
            raise Failure
        finally:
            failed.set()

    @stored_task
    def outer() -> int:
        with ThreadPoolExecutor() as pool:
            future = pool.submit(carried(bad))
            failed.wait()
            assert isinstance(future.exception(), Failure)
        return 1

    assert outer() == 1
    assert stored(store, "outer") == {"outer": 1}
