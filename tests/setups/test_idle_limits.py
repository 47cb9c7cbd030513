"""A server that ends sessions and transactions which are idle: what it undid is done again."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import URL

from pgresults import PostgresStorage, ResultStore
from pgresults.operations.registry import ping
from pgresults.operations.requests import Operation
from tests.support.calls import Call
from tests.support.database import psycopg_url

LIMITS = ["idle_session_timeout", "idle_in_transaction_session_timeout", "transaction_timeout"]


@pytest.fixture(params=LIMITS)
def store(request: pytest.FixtureRequest, fresh_url: URL) -> Iterator[ResultStore]:
    """A store whose sessions may be idle for a twentieth of a second."""
    text = psycopg_url(fresh_url)
    options = quote(f"-c{request.param}=50")
    storage = PostgresStorage(f"{text}{'&' if '?' in text else '?'}options={options}")
    store = ResultStore(result_storage=storage, lock_manager=storage.lock_manager(), cache_result_in_memory=False)
    if request.param == "transaction_timeout":
        try:
            store.exists("k")
        except Exception:
            pytest.skip("this server knows no such setting")
    yield store
    storage.close()


async def test_whatever_was_idle_too_long_goes_on(call: Call, store: ResultStore) -> None:
    for name, *given in [
        ("write", 1, "k"),
        ("read", "k"),
        ("delete", "k"),
        ("acquire_lock", "k", "me"),
        ("write_many", {"a": 1}),
        ("sweep",),
        ("release_lock", "k", "me"),
    ]:
        await call(store, name, *given)
        await asyncio.sleep(0.12)  # twice as long as a session may be idle
    assert [entry.action for entry in await call(store, "history", "k")] == ["write", "delete"]


def test_a_transaction_that_was_undone_is_done_again(store: ResultStore, request: pytest.FixtureRequest) -> None:
    tries = []

    def slow(repeated: bool) -> Operation[Any]:
        tries.append(repeated)
        yield from ping()
        if len(tries) < 3:
            time.sleep(0.12)
        yield from ping()
        return len(tries)

    database = store.result_storage.database
    if "idle_session" in request.node.name:
        pytest.skip("a session in a transaction is not idle in this sense")
    assert database.run(slow, atomic=True, repeatable=False) == 3
    assert tries == [False] * 3
