"""Connections that are lost are replaced, and what was under way is done once or said to be unknown."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pgresults.errors import StorageUnavailable
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.database import terminate_all
from tests.support.proxy import Proxy


async def test_dropped_connections_are_replaced(call: Any, storage: PostgresStorage, connection: Any) -> None:
    store = ResultStore(result_storage=storage)
    await asyncio.gather(*(store.awrite(n, key=str(n)) for n in range(5)))
    with ThreadPoolExecutor(5) as pool:
        list(pool.map(store.exists, map(str, range(5))))
    for method, outcome in (("exists", True), ("write", None), ("read", None), ("delete", True)):
        assert terminate_all(connection) > 0
        answer = await call(store, method, *(["new", "0"] if method == "write" else ["0"]))
        assert outcome is None or answer is outcome
    rows = connection.execute("SELECT action FROM pgresults.history WHERE key = '0' ORDER BY seq").fetchall()
    assert [action for (action,) in rows] == ["write", "write", "delete"]
    await storage.aclose()


@pytest.mark.parametrize("size", [10, 3_000_000])
@pytest.mark.parametrize("times", [1, 2])
async def test_a_write_whose_answer_is_lost_is_stored_once(
    call: Any, proxied: ResultStore, proxy: Proxy, connection: Any, size: int, times: int
) -> None:
    await call(proxied, "write", b"", key="lost-key")
    proxy.lose(b"lost-key" if size == 10 else b"COMMIT", times)
    stored = await call(proxied, "write", bytes(size), key="lost-key")
    assert proxy.losses == 0
    assert stored.version == 2
    assert (await call(proxied, "read", "lost-key")).metadata.model_dump() == stored.model_dump()
    (entries,) = connection.execute("SELECT count(*) FROM pgresults.history WHERE key = 'lost-key'").fetchone()
    assert entries == 2


async def test_a_write_that_can_never_be_confirmed_says_so(
    call: Any, proxied: ResultStore, proxy: Proxy, connection: Any
) -> None:
    assert not await call(proxied, "exists", "lost-key")
    await call(proxied, "write", 0, key="other")
    proxy.lose(b"lost-key", 99)
    with pytest.raises(StorageUnavailable) as failure:
        await call(proxied, "write", 1, key="lost-key")
    assert failure.value.outcome_unknown
    proxy.losses = 0
    (entries,) = connection.execute("SELECT count(*) FROM pgresults.history WHERE key = 'lost-key'").fetchone()
    assert entries == 1


async def test_an_outage_after_a_lost_answer_still_says_that_the_outcome_is_unknown(
    call: Any, proxied: ResultStore, proxy: Proxy
) -> None:
    await call(proxied, "write", 0, key="other")
    proxy.lose(b"lost-key", 1)
    proxy.refuse()
    with pytest.raises(StorageUnavailable) as failure:
        await call(proxied, "write", 1, key="lost-key")
    assert failure.value.outcome_unknown


async def test_a_delete_is_not_repeated_blindly(call: Any, proxied: ResultStore, proxy: Proxy, connection: Any) -> None:
    await call(proxied, "write", 1, key="lost-key")
    proxy.lose(b"lost-key")
    with pytest.raises(StorageUnavailable) as failure:
        await call(proxied, "delete", "lost-key")
    assert failure.value.outcome_unknown
    assert proxy.losses == 0
    (entries,) = connection.execute("SELECT count(*) FROM pgresults.history WHERE key = 'lost-key'").fetchone()
    assert entries == 2
    assert not await call(proxied, "delete", "lost-key")


async def test_reads_are_repeated(call: Any, proxied: ResultStore, proxy: Proxy) -> None:
    await call(proxied, "write", bytes(3_000_000), key="lost-key")
    for times in (1, 2):
        proxy.lose(b"lost-key", times)
        assert len((await call(proxied, "read", "lost-key")).result) == 3_000_000
        proxy.lose(b"lost-key", times)
        assert await call(proxied, "exists", "lost-key")
    proxy.lose(b"lost-key", 99)
    for method in ("read", "exists"):
        with pytest.raises(StorageUnavailable):
            await call(proxied, method, "lost-key")
