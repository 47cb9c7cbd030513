"""Behind PgBouncer in transaction mode, where no session is anybody's own."""

import asyncio
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import URL

from pgresults.errors import DeadlockDetected, LockLostError
from pgresults.locking import PostgresLockManager
from pgresults.settings import Settings
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from pgresults.transactions import IsolationLevel, transaction
from tests.support.calls import Call
from tests.support.proxy import Proxy

BINARY = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
pytestmark = pytest.mark.skipif(BINARY is None, reason="pgbouncer is not installed (Debian package pgbouncer)")

CONFIG = """
[databases]
* = {server}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 3
ignore_startup_parameters = extra_float_digits
logfile = {directory}/log
"""


def libpq(url: URL) -> str:
    """Where a server is and who connects, as PgBouncer says it."""
    given = {
        "host": url.host,
        "port": url.port,
        "user": url.username,
        "password": url.password,
        "dbname": url.database,
    }
    return " ".join(f"{name}={value}" for name, value in given.items() if value is not None)


def reachable(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@pytest.fixture(scope="module")
def pooler(shared_url: URL) -> Iterator[URL]:
    """The URL of a database behind PgBouncer, with a few connections of the server for all clients."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    # Not root itself, it may not reach the socket of a server in root's directories: the proxy may.
    with Proxy(shared_url) as server, tempfile.TemporaryDirectory(prefix="pgresults-pgbouncer-") as name:
        directory, user = Path(name), []
        config = directory / "pgbouncer.ini"
        config.write_text(CONFIG.format(server=libpq(server.url), port=port, directory=directory))
        if os.geteuid() == 0:  # it refuses to run as root
            owner = pwd.getpwnam("nobody")
            user = ["-u", owner.pw_name]
            for path in (directory, config):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        process = subprocess.Popen([BINARY, "-q", *user, str(config)])
        try:
            while not reachable(port):
                assert process.poll() is None
                time.sleep(0.01)
            yield shared_url.set(host="127.0.0.1", port=port, query={}, password=None)
        finally:
            process.terminate()
            process.wait(timeout=10)


SETTINGS = Settings(prepare_statements=False, lease=1.0)


@pytest.fixture
def pooled(pooler: URL) -> Iterator[ResultStore]:
    """A store behind the pooler, with locks."""
    storage = PostgresStorage(pooler, f"test-{uuid4().hex}", settings=SETTINGS)
    yield ResultStore(result_storage=storage, lock_manager=storage.lock_manager())
    storage.close()


def another(store: ResultStore, settings: Settings = SETTINGS) -> PostgresLockManager:
    return PostgresLockManager(store.result_storage.database.url(), store.result_storage.name, settings=settings)


async def test_the_store_works_with_one_setting(call: Call, pooler: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGRESULTS_PREPARE_STATEMENTS", "false")
    storage = PostgresStorage(pooler, f"test-{uuid4().hex}")
    store = ResultStore(result_storage=storage, cache_result_in_memory=False)
    for n in range(1, 9):
        assert (await call(store, "write", n, key="k")).version == n
        assert (await call(store, "read", "k")).result == n
    await call(store, "write", bytes(3_000_000), key="large")
    assert (await call(store, "read", "large")).result == bytes(3_000_000)
    assert await call(store, "delete", "k") is True
    await asyncio.gather(*(store.awrite(n, key=f"many/{n}") for n in range(30)))
    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(lambda n: store.read(f"many/{n}").result, range(30))) == list(range(30))
    await storage.aclose()


async def test_locks_become_leases(call: Call, pooled: ResultStore, connection: Any) -> None:
    assert await call(pooled, "acquire_lock", "k", "a")
    query = "SELECT beacon, expires_at > now() FROM pgresults.lock WHERE storage_id = %s"
    assert connection.execute(query, [pooled.result_storage.id]).fetchall() == [(None, True)]
    beacons = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database d "
    assert connection.execute(beacons + "WHERE datname = current_database())").fetchall() == []
    assert await call(pooled, "is_lock_holder", "k", "a")
    await call(pooled, "release_lock", "k", "a")
    assert not await call(pooled, "is_locked", "k")
    await pooled.result_storage.aclose()


async def test_a_direct_connection_has_no_leases(call: Call, storage: PostgresStorage) -> None:
    locks = storage.lock_manager()
    await call(locks, "acquire_lock", "k", "a")
    assert locks._grant("k", "a").beacon is not None
    await storage.aclose()


@pytest.mark.timeout(60)
def test_there_is_one_holder_at_a_time(pooled: ResultStore) -> None:
    managers = [another(pooled) for _ in range(6)]
    inside: list[int] = []

    def work(number: int) -> None:
        for _ in range(5):
            assert managers[number].acquire_lock("k", f"h{number}")
            inside.append(number)
            assert inside == [number]
            assert managers[number].is_lock_holder("k", f"h{number}")
            inside.clear()
            managers[number].release_lock("k", f"h{number}")

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    for manager in managers:
        manager.close()
        manager.database.close()


@pytest.mark.timeout(60)
def test_direct_and_pooled_clients_exclude_each_other(pooled: ResultStore, storage: PostgresStorage) -> None:
    direct = PostgresLockManager(storage.database, pooled.result_storage.name)
    for first, second in ((direct, pooled.lock_manager), (pooled.lock_manager, direct)):
        assert first.acquire_lock("k", "first")
        assert second.acquire_lock("k", "second", 0.1) is False
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(second.acquire_lock, "k", "second")
            first.release_lock("k", "first")
            assert waiting.result() is True
        second.release_lock("k", "second")
    direct.close()


@pytest.mark.timeout(30)
def test_a_lease_is_renewed_while_its_process_lives(pooled: ResultStore) -> None:
    locks, other = pooled.lock_manager, another(pooled)
    assert locks.acquire_lock("k", "a")
    assert other.acquire_lock("k", "b", 2 * SETTINGS.lease) is False
    pooled.write("mine", key="k", holder="a")
    locks._renewal.stop()  # what a death does
    assert other.acquire_lock("k", "b") is True
    assert locks.is_lock_holder("k", "a") is False
    other.close()
    other.database.close()


@pytest.mark.timeout(30)
async def test_a_lost_lease_is_no_proof(call: Call, pooled: ResultStore, connection: Any) -> None:
    locks = pooled.lock_manager
    assert await call(pooled, "acquire_lock", "k", "late")
    connection.execute("UPDATE pgresults.lock SET released = true WHERE storage_id = %s", [pooled.result_storage.id])
    while locks._grants.leases():
        await asyncio.sleep(0)
    with pytest.raises(LockLostError):
        await call(pooled, "write", "stale", key="k", holder="late")
    assert not await call(pooled, "exists", "k")
    assert await call(pooled, "acquire_lock", "k", "late")
    await call(pooled, "write", "new", key="k", holder="late")
    await call(pooled, "release_lock", "k", "late")
    await pooled.result_storage.aclose()


@pytest.mark.timeout(30)
def test_a_hold_is_not_renewed(pooled: ResultStore) -> None:
    locks, other = pooled.lock_manager, another(pooled)
    assert locks.acquire_lock("k", "a", hold_timeout=0.5)
    assert other.acquire_lock("k", "b") is True
    other.close()
    other.database.close()


async def test_transactions_lock(pooled: ResultStore) -> None:
    async def increment(_: int) -> None:
        options = {"isolation_level": IsolationLevel.SERIALIZABLE, "overwrite": True}
        async with transaction("k", pooled, **options) as txn:
            txn.stage((await txn.aread()).result + 1)

    await pooled.awrite(0, key="k")
    await asyncio.gather(*map(increment, range(10)))
    assert (await pooled.aread("k")).result == 10
    await pooled.result_storage.aclose()


def test_nothing_is_set_for_the_poolers_other_clients(pooled: ResultStore, pooler: URL, connection: Any) -> None:
    names = ["synchronous_commit", "statement_timeout", "idle_session_timeout", "lock_timeout"]
    pooled.lock_manager.acquire_lock("k", "a")
    direct = another(pooled)
    assert direct.acquire_lock("k", "b", 0.1) is False
    url = pooler.set(drivername="postgresql").render_as_string(hide_password=False)
    clients = [psycopg.connect(url, prepare_threshold=None) for _ in range(3)]
    for client in clients:  # each in a transaction, so that each has another connection of the server
        for name in names:
            ours, plain = (one.execute(f"SHOW {name}").fetchone() for one in (client, connection))
            assert ours == plain
    for client in clients:
        client.close()
    direct.close()
    direct.database.close()


@pytest.mark.timeout(30)
def test_who_waits_for_each_other_is_found(pooled: ResultStore, connection: Any) -> None:
    both = threading.Barrier(2)
    options = {"isolation_level": IsolationLevel.SERIALIZABLE}

    def work(first: str, second: str) -> str:
        try:
            with transaction(first, pooled, **options) as outer:
                both.wait()
                with transaction(second, pooled, **options) as inner:
                    inner.stage(second)
                outer.stage(first)
        except DeadlockDetected:
            return "deadlock"
        return "stored"

    with ThreadPoolExecutor(2) as threads:
        works = [threads.submit(work, *keys) for keys in ("ab", "ba")]
        assert sorted(work.result() for work in works) == ["deadlock", "stored"]
    query = "SELECT FROM pgresults.waiting WHERE storage_id = %s"
    while connection.execute(query, [pooled.result_storage.id]).fetchall():
        pass
