"""What a person expects of a cached function: its counts, whether a call is cached, and forgetting."""

import asyncio
import pickle
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import URL

from pgresults import PostgresStorage, ResultStore, flow, task
from pgresults.cache_policies import INPUTS, NO_CACHE
from pgresults.errors import LockedError
from pgresults.tasks import CacheInfo, Task
from tests.support.calls import Call
from tests.support.listing import page
from tests.support.work import called, calls


@pytest.fixture(autouse=True)
async def _closed(storage: PostgresStorage) -> Any:
    yield
    await storage.aclose()


def _task(storage: PostgresStorage, **options: Any) -> Task[[int], int]:
    return task(lambda x: int(called(x)), result_storage=storage, **{"cache_policy": INPUTS, "name": "work", **options})


def test_counts(storage: PostgresStorage) -> None:
    work = _task(storage)
    assert work.cache_info() == CacheInfo(hits=0, misses=0)
    work(1), work(1), work(2)
    assert work.cache_info() == (1, 2)
    assert work.map([1, 2, 3, 3]) == [1, 2, 3, 3]
    assert work.cache_info() == (4, 3)
    refreshing = work.with_options(refresh_cache=True)
    refreshing(1)
    assert (refreshing.cache_info(), work.cache_info()) == ((0, 1), (4, 3))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [1] * 200))
    assert work.cache_info() == (204, 3)
    assert pickle.loads(pickle.dumps(work)).cache_info() == (0, 0)


def test_what_is_not_stored_counts_as_missed(storage: PostgresStorage) -> None:
    for work in (task(called), _task(storage, cache_policy=NO_CACHE)):
        work(1), work(1)
        assert work.cache_info() == (0, 2)


def test_one_that_waited_for_another_counts_as_hit(storage: PostgresStorage) -> None:
    policy = INPUTS.configure(isolation_level="SERIALIZABLE", lock_manager=storage.lock_manager())
    work = _task(storage, cache_policy=policy)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [1] * 8))
    assert work.cache_info() == (7, 1)


async def test_whether_a_call_is_cached(call: Call, storage: PostgresStorage, store: ResultStore) -> None:
    work = _task(storage)
    assert await call(work, "is_cached", 1) is False
    work(1)
    assert await call(work, "is_cached", 1) is True
    assert await call(work, "is_cached", x=1) is True
    assert await call(work, "is_cached", 2) is False
    assert await call(work.with_options(refresh_cache=True), "is_cached", 1) is False
    assert await call(task(called), "is_cached", 1) is False
    store.delete(page(storage)[0].key)
    assert await call(work, "is_cached", 1) is False
    with pytest.raises(TypeError, match="missing"):
        await call(work, "is_cached")
    assert calls == [1]


def test_whether_a_call_is_cached_in_a_flow(storage: PostgresStorage) -> None:
    work = task(called)

    @flow(result_storage=storage)
    def run() -> list[bool]:
        before = work.is_cached(1)
        work(1)
        return [before, work.is_cached(1)]

    assert run() == [False, True]


async def test_forgetting(call: Call, storage: PostgresStorage) -> None:
    work, other = _task(storage), _module("other", storage)
    renamed = work.with_options(name="renamed")
    work(1), renamed(2), other(1)
    assert await call(renamed, "invalidate") == 2
    assert [work.is_cached(1), work.is_cached(2), other.is_cached(1)] == [False, False, True]
    assert await call(work, "invalidate") == 0
    work(1)
    assert calls == [1, 2, 1]


def _module(name: str, storage: PostgresStorage) -> Task[[int], str]:
    module = ModuleType(name)
    exec(f"def load(x): return '{name}'", vars(module))  # another module with a function of the same name
    found: Task[[int], str] = task(module.load, result_storage=storage, cache_policy=INPUTS)
    return found


async def test_forgetting_leaves_others_of_the_name(call: Call, storage: PostgresStorage) -> None:
    sales, stock = _module("sales", storage), _module("stock", storage)
    assert (sales(1), stock(1)) == ("sales", "stock")
    assert await call(sales, "invalidate") == 1
    assert (sales.is_cached(1), stock.is_cached(1)) == (False, True)


async def test_forgetting_where_keys_lie_apart(call: Call, storage: PostgresStorage, shared_url: URL) -> None:
    keys = PostgresStorage(shared_url, f"keys-{uuid4().hex}")
    work = _task(storage, cache_policy=INPUTS.configure(key_storage=keys))
    work(1)
    assert await call(work, "invalidate") == 1
    assert not work.is_cached(1)
    await keys.aclose()


async def test_what_somebody_locked_is_not_forgotten(call: Call, storage: PostgresStorage) -> None:
    locks = storage.lock_manager()
    work = _task(storage, cache_policy=INPUTS.configure(lock_manager=locks))
    work(1)
    locks.acquire_lock(page(storage)[0].key, "somebody")
    with pytest.raises(LockedError):
        await call(work, "invalidate")
    assert work.is_cached(1)


async def test_async_tasks(storage: PostgresStorage) -> None:
    @task(result_storage=storage, cache_policy=INPUTS)
    async def work(x: int) -> int:
        await asyncio.sleep(0)
        return int(called(x))

    assert [await work(1), await work(1)] == [1, 1]
    assert work.cache_info() == (1, 1)
    assert await work.ais_cached(1)
    assert await work.ainvalidate() == 1
    assert not await work.ais_cached(1)
