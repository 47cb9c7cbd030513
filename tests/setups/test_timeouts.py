"""A server, a role or a URL that bounds statements: a wait for a lock is as long as its caller says all the same."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import URL

from pgresults import PostgresStorage, ResultStore, task, transaction
from pgresults.cache_policies import CacheKeyFnPolicy
from tests.support.database import psycopg_url

LIMITS = ["statement_timeout", "lock_timeout", "statement_timeout=100 -clock_timeout"]


@pytest.fixture(params=LIMITS)
def bounded(request: pytest.FixtureRequest, fresh_url: URL) -> ResultStore:
    """A store whose statements may take a tenth of a second."""
    url = psycopg_url(fresh_url)
    storage = PostgresStorage(f"{url}{'&' if '?' in url else '?'}options=-c{request.param}%3D100".replace(" ", "%20"))
    return ResultStore(result_storage=storage, lock_manager=storage.lock_manager())


def read(store: ResultStore) -> Any:
    return store.read("k").result


def acquire(store: ResultStore) -> Any:
    return store.acquire_lock("k", "another") and store.release_lock("k", "another")


def wait(store: ResultStore) -> Any:
    return store.wait_for_lock("k")


def transact(store: ResultStore) -> Any:
    with transaction("k", store, isolation_level="SERIALIZABLE", overwrite=True) as txn:
        txn.stage(2)


def aread(store: ResultStore) -> Any:
    asyncio.run(store.aread("k"))


def aacquire(store: ResultStore) -> Any:
    async def work() -> None:
        await store.aacquire_lock("k", "another")
        await store.arelease_lock("k", "another")

    asyncio.run(work())


def compute(store: ResultStore) -> Any:
    policy = CacheKeyFnPolicy(cache_key_fn=lambda *_: "k")
    policy = policy.configure(lock_manager=store.lock_manager, isolation_level="SERIALIZABLE")
    task(lambda: 2, cache_policy=policy, result_storage=store.result_storage, refresh_cache=True)()


@pytest.mark.parametrize(
    "work", [read, acquire, wait, transact, aread, aacquire, compute], ids=lambda one: one.__name__
)
def test_a_wait_outlasts_the_limits(bounded: ResultStore, work: Callable[[ResultStore], Any]) -> None:
    bounded.write(1, key="k")
    assert bounded.acquire_lock("k", "holder")
    begun, over = threading.Event(), threading.Event()

    def waiting() -> None:
        begun.set()
        work(bounded)
        over.set()

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(waiting)
        begun.wait()
        assert not over.wait(0.5)  # five times as long as a statement may take
        assert not done.done(), done.exception()
        bounded.release_lock("k", "holder")
        done.result(timeout=10)
    assert bounded.verify().intact
    bounded.result_storage.close()
