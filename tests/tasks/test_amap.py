"""Mapping on an event loop: awaited together, bounded, and ended as it should be."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pgresults import PostgresStorage, ResultStore, flow, task, transaction
from pgresults.cache_policies import INPUTS, RUN_ID
from pgresults.runtime.mapping import MapProgress
from tests.support.listing import page
from tests.support.transactions import Failure, stored
from tests.support.work import called, calls


@pytest.fixture(autouse=True)
async def _closed(storage: PostgresStorage) -> Any:
    yield
    await storage.aclose()


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_what_is_live_is_read_and_the_rest_called_once(kind: str, storage: PostgresStorage) -> None:
    def double(x: int, by: int) -> int:
        assert (threading.current_thread() is threading.main_thread()) == (kind == "async")
        return int(called(x)) * by

    async def adouble(x: int, by: int) -> int:
        await asyncio.sleep(0)
        return double(x, by)

    work = task(double if kind == "sync" else adouble, result_storage=storage, cache_policy=INPUTS)  # type: ignore[call-overload]
    seen: list[MapProgress] = []

    def tell(progress: MapProgress) -> None:
        assert threading.current_thread() is threading.main_thread()
        seen.append(progress)

    assert await work.amap([1], [2]) == [2]
    assert await work.amap([1, 3, 1, 3, 4], [2] * 5, progress=tell) == [2, 6, 2, 6, 8]
    assert sorted(calls) == [1, 3, 4]
    assert (seen[0], seen[-1]) == (MapProgress(5, 2, 0), MapProgress(5, 3, 2))
    assert work.cache_info() == (3, 3)


async def test_calls_are_awaited_together_but_not_all_at_once(storage: PostgresStorage) -> None:
    now, most = 0, 0

    @task(result_storage=storage, cache_policy=INPUTS)
    async def work(x: int) -> int:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.001)
        now -= 1
        return x

    assert await work.amap(range(100)) == list(range(100))
    assert 1 < most <= 32


async def test_the_runs_and_the_transaction_around_hold(storage: PostgresStorage, store: ResultStore) -> None:
    @task(cache_policy=RUN_ID + INPUTS)
    async def work(x: int) -> int:
        return int(called(x))

    @task(cache_policy=RUN_ID + INPUTS)
    def blocking(x: int) -> int:
        return int(called(x))

    @flow(result_storage=storage)
    async def run() -> None:
        for each in (work, blocking):
            await each(1) if each is work else each(1)
            assert await each.amap([1, 2]) == [1, 2]
        async with transaction():
            before = len(page(storage))
            await work.amap([3, 4])
            await blocking.amap([3, 4])
            assert len(page(storage)) == before

    await run()
    assert sorted(calls) == [1, 1, 2, 2, 3, 3, 4, 4]
    assert len(page(storage)) == 9


async def test_a_failure_lets_others_end_and_keeps_the_rest_from_beginning(storage: PostgresStorage) -> None:
    under_way, failed = asyncio.Event(), asyncio.Event()

    @task(result_storage=storage, result_storage_key="{parameters[x]}")
    async def work(x: int) -> int:
        called(x)
        if x == 1:
            await under_way.wait()
            failed.set()
            raise Failure
        under_way.set()
        await failed.wait()
        await asyncio.sleep(0.01)
        return x

    with pytest.raises(Failure):
        await work.amap(range(1, 100))
    assert sorted(calls) == list(range(1, 33))
    assert {row.key for row in page(storage)} == {str(number) for number in range(2, 33)}


async def test_a_failure_in_threads(storage: PostgresStorage) -> None:
    failed = threading.Event()

    @task(result_storage=storage, result_storage_key="{parameters[x]}")
    def work(x: int) -> int:
        called(x)
        if x > 2:
            failed.wait()
        return x // (x - 2)

    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(ZeroDivisionError):
            await work.amap(range(1, 100), executor=pool)
        failed.set()
    assert calls in ([1, 2], [1, 2, 3])


async def test_a_cancellation_ends_async_calls(storage: PostgresStorage, store: ResultStore) -> None:
    begun = asyncio.Event()

    @task(result_storage=storage, result_storage_key="{parameters[x]}")
    async def work(x: int) -> int:
        called(x)
        if x:
            begun.set()
            await asyncio.Event().wait()
        return x

    mapping = asyncio.create_task(work.amap(range(100)))
    await begun.wait()
    while not await store.aexists("0"):
        await asyncio.sleep(0)
    mapping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await mapping
    assert len(calls) <= 33
    assert stored(store, *map(str, range(100))) == {"0": 0}


async def test_a_cancellation_waits_for_threads_under_way(storage: PostgresStorage, store: ResultStore) -> None:
    begun, let_go = threading.Event(), threading.Event()

    @task(result_storage=storage, result_storage_key="{parameters[x]}")
    def work(x: int) -> int:
        called(x)
        begun.set()
        let_go.wait()
        return x

    with ThreadPoolExecutor(1) as pool:
        mapping = asyncio.create_task(work.amap(range(100), executor=pool))
        await asyncio.to_thread(begun.wait)
        mapping.cancel()
        await asyncio.sleep(0)
        let_go.set()
        with pytest.raises(asyncio.CancelledError):
            await mapping
    assert len(calls) < 100
    assert len(stored(store, *map(str, range(100)))) == len(calls)


async def test_the_failure_of_who_is_told_is_raised(storage: PostgresStorage) -> None:
    told = threading.Event()

    def tell(progress: MapProgress) -> None:
        if progress.done:
            told.set()
            raise Failure

    def blocking(x: int) -> int:
        assert x < 100 or told.wait(30)  # the others may be done before anybody is told
        return int(called(x))

    async def awaiting(x: int) -> int:
        while x >= 100 and not told.is_set():
            await asyncio.sleep(0)
        return int(called(x))

    for work in (task(blocking), task(awaiting)):
        with pytest.raises(Failure):
            await work.amap(range(1000), progress=tell)
        assert len(calls) < 1000
        calls.clear()
        told.clear()


@task
def elsewhere(x: int) -> int:
    """Do something in another process."""
    return x * 2


async def test_processes_work_beside_an_event_loop() -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.01)

    ticking = asyncio.create_task(tick())
    assert await elsewhere.amap([1, 2, 3], processes=1) == [2, 4, 6]
    ticking.cancel()
    assert ticks > 5
    assert elsewhere.cache_info() == (0, 3)
