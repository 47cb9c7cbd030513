"""An ephemeral Prefect server and blocks on it, for the tests that need an installed Prefect."""

import importlib
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import URL

from pgresults.store import ResultStore
from tests.support.database import psycopg_url

SQL = Callable[[str], list[tuple[Any, ...]]]

MARKS = [
    pytest.mark.prefect,
    pytest.mark.filterwarnings("default"),  # Prefect and its server have warnings of their own
]


def require_prefect() -> Any:
    """Import Prefect, or skip the module; an older version uses what newer ones of its requirements deprecate."""
    pytest.importorskip("prefect", reason="needs an installed Prefect")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("prefect.testing.utilities")
        importlib.import_module("prefect.main")
        return importlib.import_module("prefect")


@contextmanager
def harness() -> Iterator[None]:
    """A server of Prefect's own; one that never answers, as it happens on a busy machine, is replaced once."""
    start = importlib.import_module("prefect.testing.utilities").prefect_test_harness
    with ExitStack() as stack:
        try:
            stack.enter_context(start(40))
        except RuntimeError:
            stack.enter_context(start(60))
        yield


@pytest.fixture(scope="module")
def prefect_server() -> Iterator[None]:
    """A server of the module's own."""
    with harness():
        yield


@pytest.fixture
def block(prefect_server: None, shared_url: URL) -> Iterator[Any]:
    """A saved block on a storage of the test's own."""
    name = f"test-{uuid4().hex}"
    block_class = importlib.import_module("pgresults.integrations.prefect").PostgresResultStorage
    block = block_class(url=psycopg_url(shared_url), name=name)
    block.save(name)
    yield block
    block.lock_manager().close()
    block.storage.close()


@pytest.fixture
def sql(block: Any) -> SQL:
    """Asks the tables of the block's storage; ``%(storage)s`` is its id."""

    def ask(query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(psycopg_url(block.storage.database.url())) as connection:
            connection.execute("SET search_path TO pgresults")
            return connection.execute(query, {"storage": block.storage.id}).fetchall()

    return ask


@pytest.fixture
def ours(block: Any) -> ResultStore:
    """The same results, as pgresults sees them."""
    return ResultStore(result_storage=block.storage)
