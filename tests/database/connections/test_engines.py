"""Engines of the caller's: they come back as they were, and may have their own ways."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL, Engine, create_engine, event, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from pgresults.errors import MissingResult
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.database import terminate_all
from tests.support.listing import page

NEVER = datetime.max.replace(tzinfo=UTC)


@pytest.fixture
def engine(fresh_url: URL) -> Iterator[Engine]:
    engine = create_engine(fresh_url.set(drivername="postgresql+psycopg"), pool_size=3, max_overflow=0)
    yield engine
    engine.dispose()


@pytest.fixture
async def async_engine(fresh_url: URL) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(fresh_url.set(drivername="postgresql+psycopg"), pool_size=3, max_overflow=0)
    yield engine
    await engine.dispose()


@pytest.mark.parametrize("size", [10, 3_000_000])
def test_an_engine_comes_back_as_it_was(engine: Engine, connection: Any, size: int) -> None:
    with engine.connect() as before:
        session = before.scalar(text("SELECT pg_backend_pid()"))
    storage = PostgresStorage(engine)
    store = ResultStore(result_storage=storage)
    store.write(bytes(size), key="k")
    assert len(store.read("k").result) == size
    storage.close()
    assert engine.pool.checkedout() == 0
    with engine.connect() as after:
        assert after.scalar(text("SELECT pg_backend_pid()")) == session
        assert after.connection.driver_connection.autocommit is False
        assert after.scalar(text("SHOW application_name")) != "pgresults"
        after.execute(text("CREATE TABLE scratch ()"))
        after.rollback()
        assert after.scalar(text("SELECT to_regclass('scratch')")) is None


async def test_an_async_engine_comes_back_as_it_was(async_engine: AsyncEngine) -> None:
    async with async_engine.connect() as before:
        session = await before.scalar(text("SELECT pg_backend_pid()"))
    storage = PostgresStorage(async_engine)
    store = ResultStore(result_storage=storage)
    for size in (10, 3_000_000):
        await store.awrite(bytes(size), key="k")
        assert len((await store.aread("k")).result) == size
    await storage.aclose()
    async with async_engine.connect() as after:
        assert await after.scalar(text("SELECT pg_backend_pid()")) == session
        await after.execute(text("CREATE TABLE scratch ()"))
        await after.rollback()
        assert await after.scalar(text("SELECT to_regclass('scratch')")) is None


async def test_an_engine_of_one_kind_serves_both_kinds_of_calls(engine: Engine, async_engine: AsyncEngine) -> None:
    for given in (engine, async_engine):
        storage = PostgresStorage(given)
        store = ResultStore(result_storage=storage)
        store.write(1, key="k")
        assert (await store.aread("k")).result == 1
        await storage.aclose()


ODD_ENGINES = {
    "time zone": {"connect_args": {"options": "-c TimeZone=Pacific/Kiritimati -c DateStyle=German"}},
    "autocommit": {"isolation_level": "AUTOCOMMIT"},
    "serializable": {"isolation_level": "SERIALIZABLE"},
    "literals in the text": {"connect_args": {"cursor_factory": psycopg.ClientCursor}},
    "no prepared statements": {"connect_args": {"prepare_threshold": None}},
    "ping": {"pool_pre_ping": True},
    "search path": {"connect_args": {"options": "-c search_path=nowhere"}},
    "old byte texts": {"connect_args": {"options": "-c bytea_output=escape -c standard_conforming_strings=off"}},
}


@pytest.mark.parametrize("options", ODD_ENGINES.values(), ids=ODD_ENGINES)
def test_an_engine_may_have_its_own_ways(fresh_url: URL, options: dict[str, Any]) -> None:
    url = fresh_url.set(drivername="postgresql+psycopg")
    engine = create_engine(url, **options)
    storage = PostgresStorage(engine)
    store = ResultStore(result_storage=storage)
    plain = ResultStore(result_storage=PostgresStorage(url))
    for size in (10, 2_000_000):
        stored = store.write(bytes(size), key="%s'", tags=["a"], provenance={"n": 1}, expiration=NEVER)
        assert [listed.expires_at for listed in page(storage)] == [NEVER]
        assert stored.created_at.utcoffset().total_seconds() == 0
        assert store.read("%s'") == plain.read("%s'")
        assert store.read("%s'").metadata.model_dump() == stored.model_dump()
    assert store.delete("%s'")
    with pytest.raises(MissingResult, match="deleted"):
        store.read("%s'")
    assert engine.pool.checkedout() == 0
    plain.result_storage.close()
    engine.dispose()


def test_a_hook_may_leave_its_transaction_open(engine: Engine) -> None:
    """A hook that sets a connection up often forgets to commit; SQLAlchemy does not mind."""

    @event.listens_for(engine, "checkout")
    def set_up(connection: Any, *_: object) -> None:
        connection.cursor().execute("SET application_name = 'theirs'")

    store = ResultStore(result_storage=PostgresStorage(engine))
    for n in range(3):
        store.write(n, key="k")
    assert store.read("k").metadata.version == 3
    with engine.connect() as after:
        assert after.scalar(text("SHOW application_name")) == "theirs"


def test_dropped_connections_of_an_engine_are_replaced(engine: Engine, connection: Any) -> None:
    store = ResultStore(result_storage=PostgresStorage(engine))
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda n: store.write(n, key=str(n)), range(30)))
    held = [engine.connect() for _ in range(3)]
    for one in held:
        one.close()
    assert terminate_all(connection) == 3
    assert store.exists("0")
    assert terminate_all(connection) == 1
    store.write("new", key="0")


async def test_dropped_connections_of_an_async_engine_are_replaced(async_engine: AsyncEngine, connection: Any) -> None:
    store = ResultStore(result_storage=PostgresStorage(async_engine))
    await asyncio.gather(*(store.awrite(n, key=str(n)) for n in range(30)))
    assert terminate_all(connection) > 0
    assert await store.aexists("0")
    await store.result_storage.aclose()
