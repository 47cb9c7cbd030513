"""Calls that are cancelled or interrupted leave the pool whole."""

import asyncio
import random
import signal
import threading
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL

from pgresults.settings import Settings
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.chains import HALVES
from tests.support.database import psycopg_url


async def test_cancelled_calls_leave_the_pool_whole(fresh_url: URL, connection: Any) -> None:
    storage = PostgresStorage(fresh_url, settings=Settings(pool_size=2, pool_overflow=0))
    store = ResultStore(result_storage=storage, cache_result_in_memory=False)
    chance = random.Random(7)
    await store.awrite(bytes(3_000_000), key="k")
    for n in range(60):
        method = chance.choice(["aread", "awrite", "aexists"])
        task = asyncio.create_task(getattr(store, method)(*([bytes(2_000_000)] if method == "awrite" else []), "k"))
        for _ in range(chance.randrange(12)):
            await asyncio.sleep(0 if n % 2 else 0.001)
        task.cancel()
        if n % 3 == 0:
            await asyncio.sleep(0)
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    record = await asyncio.gather(*(store.aread("k") for _ in range(6)))
    versions = connection.execute("SELECT version FROM pgresults.history WHERE key = 'k' ORDER BY seq").fetchall()
    assert [version for (version,) in versions] == list(range(1, record[0].metadata.version + 1))
    assert connection.execute(HALVES).fetchall() == []
    await storage.aclose()


def test_an_interrupt_leaves_the_pool_whole(fresh_url: URL, connection: Any) -> None:
    storage = PostgresStorage(fresh_url, settings=Settings(pool_size=1, pool_overflow=0))
    store = ResultStore(result_storage=storage)
    store.write(1, key="k")
    waiting = threading.Event()

    def interrupt() -> None:
        while not waiting.is_set():
            blocked = connection.execute(
                "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            ).fetchone()
            if blocked:
                waiting.set()
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    with psycopg.connect(psycopg_url(fresh_url)) as blocker:
        blocker.execute("SELECT 1 FROM pgresults.result WHERE key = 'k' FOR UPDATE")
        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            store.write(2, key="k")
        thread.join()
    assert store.read("k").metadata.version == 1
    assert store.write(3, key="k").version == 2
    storage.close()
