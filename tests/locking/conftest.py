"""Lock managers: each kind, and one of another process."""

import pickle
from collections.abc import Iterator
from uuid import uuid4

import pytest
from sqlalchemy import URL

from pgresults.locking import LockManager, MemoryLockManager, PostgresLockManager
from pgresults.store import ResultStore


@pytest.fixture
def postgres(shared_url: URL) -> Iterator[PostgresLockManager]:
    """A manager of locks that no other test takes."""
    manager = PostgresLockManager(shared_url, name=f"test-{uuid4().hex}")
    yield manager
    manager.close()
    manager.database.close()


@pytest.fixture(params=["postgres", "memory"])
def locks(request: pytest.FixtureRequest) -> LockManager:
    return request.getfixturevalue("postgres") if request.param == "postgres" else MemoryLockManager()


@pytest.fixture
def another(postgres: PostgresLockManager) -> Iterator[PostgresLockManager]:
    """What another process would have: the same locks, sessions of its own."""
    manager = pickle.loads(pickle.dumps(postgres))
    yield manager
    manager.close()
    manager.database.close()


@pytest.fixture(params=["postgres", "memory"])
def locking(request: pytest.FixtureRequest, guarded: ResultStore) -> ResultStore:
    """A store with locks of either kind."""
    manager = guarded.lock_manager if request.param == "postgres" else MemoryLockManager()
    return ResultStore(result_storage=guarded.result_storage, lock_manager=manager)
