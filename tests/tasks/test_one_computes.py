"""Of many threads, coroutines or processes that want one result, one computes it."""

import asyncio
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import URL, make_url

from pgresults import EmbeddedPostgres, PostgresStorage, ResultStore, task, transaction
from pgresults.cache_policies import INPUTS
from pgresults.context import carried
from pgresults.database import migrations
from pgresults.errors import ConfigurationError
from tests.support.database import psycopg_url
from tests.support.work import called, calls


def test_one_of_many_threads_computes(storage: PostgresStorage) -> None:
    policy = INPUTS.configure(isolation_level="SERIALIZABLE", lock_manager=storage.lock_manager())

    @task(result_storage=storage, cache_policy=policy)
    def work(x: int) -> int:
        return int(called(x))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(carried(work), [1] * 8)) == [1] * 8
    assert calls == [1]


async def test_one_of_many_coroutines_computes(storage: PostgresStorage) -> None:
    policy = INPUTS.configure(isolation_level="SERIALIZABLE", lock_manager=storage.lock_manager())

    @task(result_storage=storage, cache_policy=policy)
    async def work(x: int) -> int:
        return int(called(x))

    assert await asyncio.gather(*(work(1) for _ in range(8))) == [1] * 8
    assert calls == [1]
    await storage.aclose()


def test_serializable_needs_locks(storage: PostgresStorage) -> None:
    policy = INPUTS.configure(isolation_level="SERIALIZABLE")

    @task(result_storage=storage, cache_policy=policy)
    def work() -> int:
        return 1

    with pytest.raises(ConfigurationError, match="lock_manager"):
        work()
    with transaction(
        "outer", ResultStore(result_storage=storage, lock_manager=storage.lock_manager()), write_on_commit=False
    ):
        assert work() == 1


def _count(url: str, name: str) -> int:
    """Call a task that leaves a row wherever it runs."""
    storage = PostgresStorage(url, name)
    policy = INPUTS.configure(isolation_level="SERIALIZABLE", lock_manager=storage.lock_manager())

    @task(result_storage=storage, cache_policy=policy)
    def work(x: int) -> int:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("INSERT INTO ran VALUES (1)")
            connection.execute("SELECT pg_sleep(0.5)")  # the others come meanwhile
        return x

    try:
        return work(42)
    finally:
        storage.close()


def _one_computes(url: str, processes: int, start: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE ran (x int)")
        name = f"test-{uuid4().hex}"
        with ProcessPoolExecutor(processes, mp_context=get_context(start)) as pool:
            outcomes = [pool.submit(_count, url, name) for _ in range(processes)]
            assert [outcome.result() for outcome in outcomes] == [42] * processes
        (ran,) = connection.execute("SELECT count(*) FROM ran").fetchone() or (None,)
    assert ran == 1


def test_one_of_four_processes_computes(fresh_url: URL) -> None:
    _one_computes(psycopg_url(fresh_url), 4, "spawn")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_one_of_a_hundred_processes_computes(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path)
    try:
        migrations.upgrade(make_url(server.ensure_running()).set(drivername="postgresql+psycopg"))
        _one_computes(server.url, 100, "fork")
    finally:
        server.stop()
