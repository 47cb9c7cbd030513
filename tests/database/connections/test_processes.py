"""Connections of processes, threads and event loops: nobody uses another's, and none is left."""

import asyncio
import gc
import os
import pickle
import subprocess
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cloudpickle
import psycopg
import pytest
from sqlalchemy import URL, create_engine

from pgresults.settings import Settings
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.database import backends, psycopg_url


def test_stores_survive_pickling_and_connect_anew(store: ResultStore) -> None:
    store.write(1, key="k")
    for library in (pickle, cloudpickle):
        copy = library.loads(library.dumps(store))
        assert copy.read("k").result == 1
        assert copy.result_storage == store.result_storage
        copy.result_storage.close()


def in_child(work: Any) -> None:
    """Run a function in a forked child, which then ends as Python does; its failure is ours."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            work()
            gc.collect()
            os._exit(0)
        except BaseException:
            os.write(writer, traceback.format_exc().encode()[-4000:])
            os._exit(1)
    os.close(writer)
    with os.fdopen(reader) as output:
        message = output.read()
    assert os.waitpid(pid, 0)[1] == 0, message


@pytest.mark.parametrize("given", ["url", "engine"])
def test_a_forked_child_leaves_its_parents_connections_alone(
    store: ResultStore, connection: Any, given: str, fresh_url: URL
) -> None:
    if given == "engine":
        engine = create_engine(fresh_url.set(drivername="postgresql+psycopg"), pool_size=1, max_overflow=0)
        store = ResultStore(result_storage=PostgresStorage(engine))
    store.write("parent", key="k")
    before = [connection.info.backend_pid, *backends(connection)]

    def work() -> None:
        assert store.read("k").result == "parent"
        store.write("child", key="k")
        with psycopg.connect(psycopg_url(fresh_url)) as own:
            assert set(backends(own)) - set(before)
        asyncio.run(store.aread("k"))

    for _ in range(2):
        in_child(work)
        assert store.read("k").result == "child"
        store.write("parent", key="k")
    assert set(before[1:]) <= set(backends(connection))
    if given == "engine":
        engine.dispose()


LOOPS = """
import asyncio, sys, threading
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
store = ResultStore(result_storage=PostgresStorage(sys.argv[1], "loops"))
async def work(name):
    for n in range(5):
        await asyncio.gather(*(store.awrite((name, n), key=f"{name}-{i}") for i in range(4)))
    return [(await store.aread(f"{name}-{i}")).result for i in range(4)]
for name in "ab":
    assert asyncio.run(work(name)) == [(name, 4)] * 4
threads = [threading.Thread(target=lambda name=name: asyncio.run(work(name))) for name in "cd"]
for thread in threads: thread.start()
for thread in threads: thread.join()
store.write(1, key="sync")
print(len(store.find()))
"""


@pytest.mark.parametrize("end", ["", "store.result_storage.close()", "asyncio.run(store.result_storage.aclose())"])
def test_event_loops_after_one_another_and_at_once(fresh_url: URL, end: str) -> None:
    command = [sys.executable, "-W", "error", "-c", LOOPS + end, psycopg_url(fresh_url)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("17\n", "")


@pytest.mark.timeout(30)
def test_connections_of_a_loop_that_ended_are_closed(storage: PostgresStorage, connection: Any) -> None:
    store = ResultStore(result_storage=storage)

    async def work() -> None:
        await asyncio.gather(*(store.awrite(n, key=str(n)) for n in range(4)))

    for _ in range(4):
        asyncio.run(work())
    storage.close()
    gc.collect()
    with psycopg.connect(psycopg_url(storage.database.url()), autocommit=True) as last:
        while len(backends(last)) > 1:  # ends of sessions take a moment, leaks do not end
            pass


async def test_a_closed_storage_opens_again(call: Any, store: ResultStore) -> None:
    await call(store, "write", 1, key="k")
    for _ in range(2):
        await call(store.result_storage, "close")
        assert (await call(store, "read", "k")).result == 1
    await store.result_storage.aclose()


def test_more_threads_than_connections_wait_for_their_turn(fresh_url: URL) -> None:
    storage = PostgresStorage(fresh_url, settings=Settings(pool_size=2, pool_overflow=1))
    store = ResultStore(result_storage=storage)

    def work(n: int) -> int:
        store.write(n, key=f"k{n % 5}")
        return store.read(f"k{n % 5}").metadata.version

    with ThreadPoolExecutor(16) as pool:
        assert max(pool.map(work, range(100))) == 20
    storage.close()


async def test_more_tasks_than_connections_wait_for_their_turn(fresh_url: URL) -> None:
    storage = PostgresStorage(fresh_url, settings=Settings(pool_size=2, pool_overflow=0))
    store = ResultStore(result_storage=storage)
    await asyncio.gather(*(store.awrite(n, key=f"k{n % 5}") for n in range(100)))
    assert (await store.aread("k0")).metadata.version == 20
    await storage.aclose()


async def test_closing_while_calls_are_under_way_lets_them_end(store: ResultStore) -> None:
    await store.awrite(bytes(2_000_000), key="k")

    async def read() -> None:
        for _ in range(30):
            await store.aread("k")

    readers = [asyncio.create_task(read()) for _ in range(6)]
    while not all(reader.done() for reader in readers):
        await store.result_storage.aclose()
    await asyncio.gather(*readers)
    await store.result_storage.aclose()


def test_closing_from_another_thread_than_the_loops(store: ResultStore) -> None:
    store.write(bytes(2_000_000), key="k")
    done = threading.Event()

    async def read() -> None:
        for _ in range(60):
            await store.aread("k")

    def run() -> None:
        asyncio.run(read())
        done.set()

    reader = threading.Thread(target=run)
    reader.start()
    while not done.is_set():
        store.result_storage.close()
    reader.join()


def test_client_encoding_of_the_environment_changes_nothing(
    storage: PostgresStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    store = ResultStore(result_storage=storage)
    store.write(1, key="price in €")
    assert store.read("price in €").metadata.storage_key == "price in €"
