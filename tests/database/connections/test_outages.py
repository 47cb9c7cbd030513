"""A database that is down, silent or busy is given up in time, and the error says what helps."""

import asyncio
import os
import socket
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL

from pgresults.errors import StorageUnavailable
from pgresults.settings import Settings
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.database import psycopg_url
from tests.support.proxy import Proxy

METHODS = {"exists": ["k"], "read": ["k"], "write": [1, "k"], "delete": ["k"]}


@pytest.mark.parametrize("method", METHODS)
async def test_a_refused_connection_is_no_answer(call: Any, fresh_url: URL, method: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    storage = PostgresStorage(fresh_url.set(host="127.0.0.1", port=port, query={}))
    with pytest.raises(StorageUnavailable, match=r"cannot be reached: .* Check that the server runs") as failure:
        await call(ResultStore(result_storage=storage), method, *METHODS[method])
    assert not failure.value.outcome_unknown


async def each_in_its_thread(call: Any, store: ResultStore) -> list[BaseException]:
    """What comes of all methods, called at once."""
    calls = (asyncio.to_thread(asyncio.run, call(store, method, *arguments)) for method, arguments in METHODS.items())
    return await asyncio.gather(*calls, return_exceptions=True)


@pytest.mark.timeout(30)
async def test_a_server_that_never_greets_is_given_up(call: Any) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=16) as silent:
        url = f"postgresql://user:geheim@127.0.0.1:{silent.getsockname()[1]}/db"
        storage = PostgresStorage(url, settings=Settings(connect_timeout=1))
        failures = await each_in_its_thread(call, ResultStore(result_storage=storage))
    assert [type(failure) for failure in failures] == [StorageUnavailable] * 4
    storage.close()


@pytest.mark.timeout(30)
@pytest.mark.parametrize("method", METHODS)
async def test_a_server_that_falls_silent_is_given_up(call: Any, proxy: Proxy, method: str) -> None:
    storage = PostgresStorage(proxy.url, settings=Settings(connect_timeout=1, response_timeout=1))
    store = ResultStore(result_storage=storage)
    await call(store, "write", 1, key="k")
    proxy.silent = True
    with pytest.raises(StorageUnavailable) as failure:
        await call(store, method, *METHODS[method])
    assert failure.value.outcome_unknown is (method in ("write", "persist_result_record"))
    proxy.silent = False
    assert await call(store, "exists", "k")
    await storage.aclose()


async def test_a_long_statement_is_no_silence_while_data_flows(call: Any, fresh_url: URL) -> None:
    storage = PostgresStorage(fresh_url, settings=Settings(response_timeout=1))
    store = ResultStore(result_storage=storage)
    await call(store, "write", os.urandom(20_000_000), key="k")
    assert len((await call(store, "read", "k")).result) == 20_000_000
    await storage.aclose()


async def test_a_blocked_write_is_given_up_and_not_stored(call: Any, fresh_url: URL, connection: Any) -> None:
    storage = PostgresStorage(fresh_url, settings=Settings(response_timeout=1))
    store = ResultStore(result_storage=storage)
    await call(store, "write", 1, key="k")
    with psycopg.connect(psycopg_url(fresh_url)) as blocker:
        blocker.execute("SELECT 1 FROM pgresults.result FOR UPDATE")
        with pytest.raises(StorageUnavailable, match="nothing of it was carried out") as failure:
            await call(store, "write", 2, key="k")
        blocked = "SELECT count(*) FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))"
        waiting = connection.execute(blocked, [blocker.info.backend_pid]).fetchone()
    assert not failure.value.outcome_unknown
    assert waiting == (0,)
    assert (await call(store, "write", 3, key="k")).version == 2
    await storage.aclose()


def test_no_free_connection_says_which_setting_helps(narrow: ResultStore) -> None:
    narrow.write(1, key="k")
    expected = pytest.raises(StorageUnavailable, match="PGRESULTS_POOL_SIZE")
    with narrow.result_storage.database._pools.connection(), expected:
        narrow.exists("k")
    assert narrow.exists("k")


async def test_no_free_async_connection_says_which_setting_helps(narrow: ResultStore) -> None:
    await narrow.awrite(1, key="k")
    async with narrow.result_storage.database._pools.aconnection():
        with pytest.raises(StorageUnavailable, match="PGRESULTS_POOL_SIZE"):
            await narrow.aexists("k")
    assert await narrow.aexists("k")
