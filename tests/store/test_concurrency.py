"""Writers of one key at once, from threads, tasks and processes: no version is lost, given twice or left out."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import URL

from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.chains import are_intact, entries
from tests.support.database import psycopg_url


def versions(connection: psycopg.Connection[Any], store: ResultStore, action: str = "write") -> list[int]:
    return [entry["version"] for entry in entries(connection, store) if entry["action"] == action]


def at_once(*works: Callable[[], Any]) -> list[Any]:
    """Run works in threads that start together."""
    barrier = threading.Barrier(len(works))

    def start(work: Callable[[], Any]) -> Any:
        barrier.wait()
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(start, works))


def test_threads_and_tasks_write_one_key(store: ResultStore, connection: Any) -> None:
    async def tasks() -> list[int]:
        written = await asyncio.gather(*(store.awrite(bytes(n), key="k") for n in range(20)))
        await store.result_storage.aclose()
        return [metadata.version for metadata in written]

    def thread(size: int) -> list[int]:
        return [store.write(bytes(size), key="k").version for _ in range(15)]

    works = [lambda size=size: thread(size) for size in (10, 10_000, 1_100_000)]
    given = at_once(lambda: asyncio.run(tasks()), *works)
    total = 20 + 3 * 15
    assert sorted(version for some in given for version in some) == list(range(1, total + 1))
    assert versions(connection, store) == list(range(1, total + 1))
    assert are_intact(entries(connection, store))
    assert store.read("k").metadata.version == total


def test_deletes_and_writes_of_one_key(store: ResultStore, connection: Any) -> None:
    def write() -> None:
        for n in range(25):
            store.write(n, key="k")

    def delete() -> int:
        return sum(store.delete("k") for _ in range(40))

    deleted = [count for count in at_once(write, delete, write, delete) if count is not None]
    chain = entries(connection, store)
    assert versions(connection, store) == list(range(1, 51))
    assert sum(deleted) == len(versions(connection, store, "delete"))
    pairs = pairwise(chain)
    assert not any(first["action"] == second["action"] == "delete" for first, second in pairs)
    assert are_intact(chain)
    assert store.exists("k") is (chain[-1]["action"] == "write")


def test_readers_see_whole_versions(store: ResultStore) -> None:
    reader = store.model_copy(update={"cache_result_in_memory": False})
    store.write((0, b"\0" * 10), key="k")

    def write() -> None:
        for n in range(1, 30):
            store.write((n, bytes([n]) * (10 if n % 2 else 1_200_000)), key="k")

    def read(source: ResultStore) -> None:
        last = 0
        while last < 29:
            record = source.read("k")
            number, content = record.result
            assert set(content) == {number}
            assert record.metadata.version == number + 1
            assert number >= last
            last = number

    at_once(write, lambda: read(reader), lambda: read(store), lambda: read(store))


WRITE = """
import sys
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
store = ResultStore(result_storage=PostgresStorage(sys.argv[1], sys.argv[2]))
store.exists("k")
print("ready", flush=True)
sys.stdin.readline()
for n in range(int(sys.argv[3])):
    print(store.write(bytes(n), key="k").version)
"""


def test_processes_write_one_key(store: ResultStore, connection: Any, shared_url: URL) -> None:
    command = [sys.executable, "-W", "error", "-c", WRITE, psycopg_url(shared_url), store.result_storage.name, "25"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    processes = [subprocess.Popen(command, text=True, **pipes) for _ in range(3)]
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * 3
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    given = [int(line) for process in processes for line in process.communicate(timeout=60)[0].split()]
    assert sorted(given) == versions(connection, store) == list(range(1, 76))
    assert are_intact(entries(connection, store))


async def test_new_storages_may_be_registered_at_once(shared_url: URL, connection: Any) -> None:
    name = f"test-{os.urandom(8).hex()}"
    storages = [PostgresStorage(shared_url, name) for _ in range(4)]
    await asyncio.gather(*(ResultStore(result_storage=storage).awrite(1, key="k") for storage in storages))
    rows = connection.execute("SELECT name FROM pgresults.storage WHERE name = %s", [name]).fetchall()
    assert rows == [(name,)]
    for storage in storages:
        await storage.aclose()


async def test_conflicts_under_a_strict_isolation_are_resolved(fresh_url: URL) -> None:
    with psycopg.connect(psycopg_url(fresh_url), autocommit=True) as connection:
        name = sql.Identifier(fresh_url.database or "")
        connection.execute(sql.SQL("ALTER DATABASE {} SET default_transaction_isolation = 'serializable'").format(name))
    store = ResultStore(result_storage=PostgresStorage(fresh_url))
    stored = await asyncio.gather(*(store.awrite(number, key="contended") for number in range(8)))
    assert sorted(metadata.version or 0 for metadata in stored) == list(range(1, 9))
    await store.result_storage.aclose()
