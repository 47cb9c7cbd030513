"""Tables that are changed while programs use them: what sessions had prepared for the old ones is prepared anew."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import URL, create_engine
from sqlalchemy.ext.asyncio import create_async_engine

from pgresults import PostgresStorage, ResultStore
from tests.support.calls import Call

CHANGE = "ALTER TABLE pgresults.result ALTER COLUMN pgresults_version TYPE varchar({})"


@pytest.fixture
def store(fresh_url: URL) -> Iterator[ResultStore]:
    storage = PostgresStorage(fresh_url)
    store = ResultStore(result_storage=storage, lock_manager=storage.lock_manager(), cache_result_in_memory=False)
    yield store
    store.lock_manager.close()
    storage.close()


async def use(call: Call, store: ResultStore) -> None:
    """Everything often enough to be prepared."""
    for number in range(8):
        await call(store, "write", number, "k")
        assert (await call(store, "read", "k")).result == number
        assert await call(store, "exists", "k")
        assert len(await call(store, "read_many", ["k"])) == 1
        await call(store, "write_many", {"a": 1, "b": 2})
        await call(store, "touch", "k", None)
        await call(store, "acquire_lock", "k", "me")
        await call(store, "release_lock", "k", "me")


async def test_everything_goes_on(call: Call, store: ResultStore, admin: Any) -> None:
    await use(call, store)
    for length in (40, 41):
        admin.execute(CHANGE.format(length))
        await use(call, store)
    assert (await call(store, "verify")).intact
    await store.result_storage.aclose()


def test_so_it_does_with_a_lent_engine(fresh_url: URL, admin: Any) -> None:
    engine = create_engine(fresh_url.set(drivername="postgresql+psycopg"), pool_size=1, max_overflow=0)
    store = ResultStore(result_storage=PostgresStorage(engine), cache_result_in_memory=False)
    for length in (40, 41, 42):
        for number in range(8):
            store.write(number, key="k")
            assert store.read("k").result == number
        admin.execute(CHANGE.format(length))
    assert store.read("k").result == 7
    engine.dispose()


def test_so_it_does_with_a_lent_async_engine(fresh_url: URL, admin: Any) -> None:
    async def work() -> None:
        engine = create_async_engine(fresh_url.set(drivername="postgresql+psycopg"), pool_size=1, max_overflow=0)
        store = ResultStore(result_storage=PostgresStorage(engine), cache_result_in_memory=False)
        for length in (40, 41, 42):
            for number in range(8):
                await store.awrite(number, key="k")
                assert (await store.aread("k")).result == number
            await asyncio.to_thread(admin.execute, CHANGE.format(length))
        assert (await store.aread("k")).result == 7
        await engine.dispose()

    asyncio.run(work())
