"""A sealed history, and what tampers with it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import URL

from pgresults.audit.seals import Seal
from pgresults.settings import Settings
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.database import guard_again
from tests.support.sealing import TOMORROW, Sql, seal_over


@pytest.fixture
def sealing_storage(shared_url: URL, tmp_path: Path) -> Iterator[PostgresStorage]:
    """An empty storage of the test's own, with a key for its seals."""
    settings = Settings(seal_key=tmp_path / "keys" / "seal.pem")
    storage = PostgresStorage(shared_url, name=f"test-{uuid4().hex}", settings=settings)
    yield storage
    storage.close()


@pytest.fixture
def sealed(store: ResultStore) -> Seal:
    """A storage of three keys with four entries each, and a seal over them."""
    for key in ("k1", "k2", "k3"):
        for n in range(3):
            store.write(f"{key} {n}", key=key, tags=["a"], provenance={"n": n})
        store.touch(key, TOMORROW)
    return seal_over(store, 12)


@pytest.fixture
def tamper(connection: Any, store: ResultStore) -> Sql:
    """Runs a statement on the history of ``k2``, as a superuser who gets all guards out of the way."""

    def run(statement: str, **parameters: Any) -> None:
        with connection.transaction():
            connection.execute("ALTER TABLE pgresults.history DISABLE TRIGGER append_only")
            for part in statement.split(";"):
                assert connection.execute(
                    part.replace("OF_K2", "storage_id = %(id)s AND key = 'k2'"),
                    {"id": store.result_storage.id, **parameters},
                ).rowcount
            guard_again(connection)

    return run
