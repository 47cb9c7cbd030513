"""A store that is closed, by itself or by the block that it was made for, and one that brings its locks."""

# ruff: noqa: PT012 (what fails is the end of a block)

import asyncio
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import URL

from pgresults.errors import ConfigurationError
from pgresults.locking import MemoryLockManager
from pgresults.settings import temporary_settings
from pgresults.storage import NullStorage, PostgresStorage
from pgresults.store import ResultStore
from pgresults.transactions import IsolationLevel, transaction
from tests.support.database import psycopg_url


@pytest.fixture
def named(shared_url: URL) -> URL:
    """A URL whose connections can be told from others'."""
    return shared_url.update_query_dict({"application_name": f"test {uuid4().hex}"})


def _require_closed(named: URL) -> None:
    """Wait until the server has no connection of a name any more; the test's time-out ends it."""
    query = "SELECT FROM pg_stat_activity WHERE application_name = %s"
    with psycopg.connect(psycopg_url(named.set(query={**named.query, "application_name": "the test"}))) as connection:
        while connection.execute(query, [named.query["application_name"]]).fetchone():
            connection.rollback()


def test_a_block_closes_connections_and_locks(named: URL) -> None:
    with ResultStore(result_storage=PostgresStorage(named, name=uuid4().hex), locks=True) as store:
        store.write(1, key="key")
        assert store.acquire_lock("key")
    _require_closed(named)
    assert not store.is_locked("key")  # what is used again opens new ones
    assert store.read("key").result == 1
    store.close()
    _require_closed(named)


def test_an_async_block_closes_them(named: URL) -> None:
    async def use() -> None:
        async with ResultStore(result_storage=PostgresStorage(named, name=uuid4().hex), locks=True) as store:
            await store.awrite(1, key="key")
            assert await store.aacquire_lock("key")
        await asyncio.to_thread(_require_closed, named)

    asyncio.run(use())


def test_a_failing_block_closes_them_and_says_why_it_failed(named: URL) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        ResultStore(result_storage=PostgresStorage(named), metadata_storage=NullStorage()) as store,
    ):
        store.exists("key")
        raise ZeroDivisionError
    _require_closed(named)


def test_a_store_that_never_opened_anything_can_be_closed() -> None:
    with ResultStore() as store:
        pass
    store.close()
    asyncio.run(store.aclose())


def test_locks_are_those_of_the_storage(storage: PostgresStorage) -> None:
    store = ResultStore(result_storage=storage, locks=True)
    assert store.lock_manager is storage.lock_manager()
    with transaction(key="key", store=store, isolation_level=IsolationLevel.SERIALIZABLE) as txn:
        assert store.is_locked("key")
        txn.stage(1)
    assert store.read("key").result == 1
    assert "locks" not in store.model_dump()


def test_locks_of_a_storage_that_is_named_or_the_default(shared_url: URL) -> None:
    with temporary_settings({"database_url": psycopg_url(shared_url)}):
        for spec, name in ((None, "default"), ("reports", "reports")):
            store = ResultStore(result_storage=spec, locks=True)
            assert store.acquire_lock("key")
            assert PostgresStorage(shared_url, name=name).lock_manager().is_locked("key")
            store.release_lock("key")
        with temporary_settings({"results.default_storage": "reports"}):
            assert ResultStore(locks=True).lock_manager == store.lock_manager


def test_locks_that_cannot_be_meant_are_refused(storage: PostgresStorage) -> None:
    with pytest.raises(ConfigurationError, match="not both"):
        ResultStore(result_storage=storage, locks=True, lock_manager=MemoryLockManager())
    with pytest.raises(ConfigurationError, match="which one an id is of"):
        ResultStore(result_storage=uuid4(), locks=True)
