"""A store that keeps metadata apart."""

from collections.abc import Iterator
from uuid import uuid4

import pytest
from sqlalchemy import URL

from pgresults import PostgresStorage, ResultStore


@pytest.fixture
def keys(shared_url: URL) -> Iterator[PostgresStorage]:
    """Another storage of the same database, for metadata."""
    storage = PostgresStorage(shared_url, f"keys-{uuid4().hex}")
    yield storage
    storage.close()


@pytest.fixture
def apart(storage: PostgresStorage, keys: PostgresStorage) -> ResultStore:
    """A store that keeps metadata apart."""
    return ResultStore(result_storage=storage, metadata_storage=keys)
