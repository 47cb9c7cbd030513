"""Real deaths: writers and servers are killed at any moment, and what was acknowledged is there, whole."""

import asyncio
import os
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL

from pgresults.errors import StorageUnavailable
from pgresults.server.embedded import EmbeddedPostgres
from pgresults.settings import Settings
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.faults.conftest import Tell
from tests.support.chains import HALVES, are_intact, entries
from tests.support.database import psycopg_url

SIZES = (10, 1_300_000, 200_000, 3_400_000)


def write_until_killed(url: URL, acknowledge: int) -> None:
    """Write versions of three keys for ever, and say of each when it is stored."""
    store = ResultStore(result_storage=PostgresStorage(url))
    for n in range(1_000_000):
        key, size = f"k{n % 3}", SIZES[n % len(SIZES)]
        stored = store.write(os.urandom(size), key=key)
        os.write(acknowledge, f"{key} {stored.version}\n".encode())


def killed_writer(url: URL, delay: float) -> list[tuple[str, int]]:
    """What a writer acknowledged that was killed so many seconds after its first write."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            write_until_killed(url, writer)
        finally:
            os._exit(1)
    os.close(writer)
    with os.fdopen(reader) as output:
        first = output.readline()
        time.sleep(delay)  # the moment of death is meant to be any
        os.kill(pid, signal.SIGKILL)
        lines = [first, *output]
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    return [(key, int(version)) for key, version in map(str.split, lines)]


def check_whole(url: URL, acknowledged: list[tuple[str, int]]) -> int:
    """Nothing is there by half, and the chains verify; says how many are missing that were acknowledged."""
    storage = PostgresStorage(url)
    store = ResultStore(result_storage=storage)
    with psycopg.connect(psycopg_url(url), autocommit=True) as connection:
        assert connection.execute(HALVES).fetchall() == []
        history = entries(connection, store)
    assert are_intact(history)
    lost = set(acknowledged) - {(entry["key"], entry["version"]) for entry in history}
    for key in {key for key, _ in acknowledged}:
        assert store.read(key).metadata.version == max(e["version"] for e in history if e["key"] == key)
    storage.close()
    return len(lost)


def wait_for_backends(connection: psycopg.Connection[Any]) -> None:
    """A backend may finish its statement after its client died."""
    query = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'pgresults'"
    while connection.execute(query).fetchone() is not None:
        pass


def kill_writers(url: URL, times: int, seed: int, tell: Tell) -> None:
    chance = random.Random(seed)
    acknowledged: list[tuple[str, int]] = []
    with psycopg.connect(psycopg_url(url), autocommit=True) as connection:
        for _ in range(times):
            acknowledged += killed_writer(url, chance.uniform(0, 0.15))
            wait_for_backends(connection)
            assert connection.execute(HALVES).fetchall() == []
    assert len(acknowledged) >= times  # each one acknowledged its first write
    lost = check_whole(url, acknowledged)
    tell("a writer is killed", rounds=times, acknowledged=len(acknowledged), lost=lost, stuck=0)


def test_a_killed_writer_leaves_whole_versions(fresh_url: URL, tell: Tell) -> None:
    kill_writers(fresh_url, 12, 1, tell)


@pytest.mark.slow
def test_many_killed_writers_leave_whole_versions(fresh_url: URL, tell: Tell) -> None:
    kill_writers(fresh_url, 150, 2, tell)


def test_half_a_write_would_be_seen(fresh_url: URL) -> None:
    storage = PostgresStorage(fresh_url)
    ResultStore(result_storage=storage).write(1, key="k0")
    with psycopg.connect(psycopg_url(fresh_url), autocommit=True) as connection:
        for tampering in ("DELETE FROM pgresults.payload", "DELETE FROM pgresults.history"):
            with connection.transaction(force_rollback=True):
                connection.execute("ALTER TABLE pgresults.history DISABLE TRIGGER append_only")
                connection.execute(tampering)
                assert connection.execute(HALVES).fetchall() != []
    assert check_whole(fresh_url, [("k0", 1), ("k0", 2)]) == 1
    storage.close()


# The server's deaths, on a server of the test's own


def processes(server: EmbeddedPostgres) -> list[int]:
    """The postmaster and its children."""
    postmaster = server.status().pid
    children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    return [postmaster, *map(int, children)]


def load(server: EmbeddedPostgres, kills: int) -> list[tuple[str, int]]:
    """What writers acknowledged under which the server was killed so many times."""
    acknowledged: list[tuple[str, int]] = []
    grown = threading.Condition()
    done = threading.Event()

    def write(number: int) -> None:
        storage = PostgresStorage(server.path)
        store = ResultStore(result_storage=storage)
        n = 0
        while not done.is_set():
            n += 1
            try:
                stored = store.write(os.urandom(SIZES[n % 3]), key=f"k{number % 2}")
            except StorageUnavailable:
                continue
            with grown:
                acknowledged.append((stored.storage_key, stored.version))
                grown.notify_all()
        storage.close()

    with ThreadPoolExecutor(4) as pool:
        writers = [pool.submit(write, number) for number in range(4)]
        try:
            for _ in range(kills):
                with grown:
                    enough = len(acknowledged) + 15
                    assert grown.wait_for(lambda enough=enough: len(acknowledged) >= enough, timeout=15)
                os.kill(server.status().pid, signal.SIGKILL)
        finally:
            done.set()
        for writer in writers:
            writer.result()
    return acknowledged


def kill_server(server: EmbeddedPostgres, kills: int, tell: Tell) -> None:
    acknowledged = load(server, kills)
    storage = PostgresStorage(server.path)
    lost = check_whole(storage.database.url(), acknowledged)
    storage.close()
    tell("the server is killed under load", rounds=kills, acknowledged=len(acknowledged), lost=lost, stuck=0)


def test_a_server_killed_under_load_keeps_what_it_acknowledged(server: EmbeddedPostgres, tell: Tell) -> None:
    kill_server(server, 2, tell)


@pytest.mark.slow
def test_a_server_killed_many_times_keeps_what_it_acknowledged(server: EmbeddedPostgres, tell: Tell) -> None:
    kill_server(server, 15, tell)


@pytest.mark.timeout(60)
async def test_a_stopped_server_is_given_up_and_answers_again(call: Any, server: EmbeddedPostgres) -> None:
    settings = Settings(connect_timeout=1, response_timeout=1)
    storage = PostgresStorage(server.path, settings=settings)
    store = ResultStore(result_storage=storage)
    await call(store, "write", 1, key="k")
    stopped = processes(server)
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        for method, arguments in (("exists", ["k"]), ("read", ["k"]), ("write", [2, "k"]), ("delete", ["k"])):
            with pytest.raises(StorageUnavailable):
                await call(store, method, *arguments)
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    assert (await call(store, "read", "k")).metadata.version in (1, 2)
    await storage.aclose()


async def test_the_event_loop_runs_on_while_a_server_is_silent(server: EmbeddedPostgres) -> None:
    storage = PostgresStorage(server.path, settings=Settings(connect_timeout=1, response_timeout=1))
    store = ResultStore(result_storage=storage)
    await store.awrite(1, key="k")
    stopped = processes(server)
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        reading = asyncio.create_task(store.aread("k"))
        turns = 0
        while not reading.done():
            await asyncio.sleep(0)
            turns += 1
        assert isinstance(reading.exception(), StorageUnavailable)
        assert turns > 100
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    await storage.aclose()
