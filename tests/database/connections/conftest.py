"""Storages in databases of the tests' own, whose sessions can be ended."""

from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy import URL

from pgresults.settings import Settings
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.proxy import Proxy


@pytest.fixture
def storage(fresh_url: URL) -> Iterator[PostgresStorage]:
    """A storage in a database of the test's own, whose sessions can be ended."""
    storage = PostgresStorage(fresh_url)
    yield storage
    storage.close()


@pytest.fixture
async def narrow(fresh_url: URL) -> AsyncIterator[ResultStore]:
    """A store with one connection."""
    settings = Settings(pool_size=1, pool_overflow=0, connect_timeout=1)
    storage = PostgresStorage(fresh_url, settings=settings)
    yield ResultStore(result_storage=storage)
    await storage.aclose()


@pytest.fixture
def proxy(fresh_url: URL) -> Iterator[Proxy]:
    with Proxy(fresh_url) as proxy:
        yield proxy


@pytest.fixture
async def proxied(proxy: Proxy) -> AsyncIterator[ResultStore]:
    storage = PostgresStorage(proxy.url, settings=Settings(connect_timeout=5, response_timeout=5))
    yield ResultStore(result_storage=storage, cache_result_in_memory=False)
    await storage.aclose()
