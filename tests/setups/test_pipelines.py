"""A psycopg connection of the caller's in pipeline mode: refused before anything is sent."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL

from pgresults import PostgresStorage, ResultStore, transaction
from pgresults.errors import ConfigurationError, StorageUnavailable
from tests.support.database import psycopg_url


@pytest.fixture
def store(fresh_url: URL) -> Iterator[ResultStore]:
    storage = PostgresStorage(fresh_url)
    yield ResultStore(result_storage=storage, lock_manager=storage.lock_manager())
    storage.close()


def refused_before(store: ResultStore, statements: Any) -> None:
    """Nothing was sent, stored or kept locked."""
    assert statements == [(1,)]
    assert not store.exists("k")
    assert not store.is_locked("k")


@pytest.mark.parametrize("value", [1, bytes(3_000_000)])
def test_a_pipeline_around_the_transaction(store: ResultStore, value: Any) -> None:
    with psycopg.connect(psycopg_url(store.result_storage.database.url())) as own:
        with (
            own.pipeline(),
            pytest.raises(ConfigurationError, match="pipeline"),
            transaction("k", store, connection=own, isolation_level="SERIALIZABLE") as txn,
        ):
            txn.stage(value)
        refused_before(store, own.execute("SELECT 1").fetchall())


def test_a_pipeline_that_begins_inside_of_it(store: ResultStore) -> None:
    with psycopg.connect(psycopg_url(store.result_storage.database.url())) as own:
        pipeline = own.pipeline()
        with (
            pytest.raises(ConfigurationError, match="pipeline"),
            transaction("k", store, connection=own, isolation_level="SERIALIZABLE") as txn,
        ):
            txn.stage(1, on_commit_hooks=[lambda _: pipeline.__enter__()])
        pipeline.__exit__(None, None, None)
        refused_before(store, own.execute("SELECT 1").fetchall())


async def test_an_async_one(store: ResultStore) -> None:
    async with await psycopg.AsyncConnection.connect(psycopg_url(store.result_storage.database.url())) as own:
        async with own.pipeline():
            with pytest.raises(ConfigurationError, match="pipeline"):
                async with transaction("k", store, connection=own, isolation_level="SERIALIZABLE") as txn:
                    txn.stage(1)
        refused_before(store, await (await own.execute("SELECT 1")).fetchall())


def test_one_that_is_over_is_none(store: ResultStore) -> None:
    with psycopg.connect(psycopg_url(store.result_storage.database.url())) as own:
        with own.pipeline():
            own.execute("SELECT 1")
        with transaction("k", store, connection=own) as txn:
            txn.stage(1)
    assert store.read("k").result == 1


def test_a_connection_that_is_closed_is_no_puzzle(store: ResultStore) -> None:
    own = psycopg.connect(psycopg_url(store.result_storage.database.url()))
    own.close()
    with pytest.raises(StorageUnavailable), transaction("k", store, connection=own) as txn:
        txn.stage(1)
    assert not store.exists("k")
