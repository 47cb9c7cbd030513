"""Connections: made lazily, per process and per event loop, replaced when lost, and never waited on for ever."""

import asyncio
import gc
import logging
import os
import pickle
import random
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import cloudpickle
import psycopg
import pytest
from sqlalchemy import URL, Engine, create_engine, event, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from pgresults.errors import ConfigurationError, MissingResult, StorageUnavailable
from pgresults.settings import Settings
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.chains import HALVES
from tests.support.database import psycopg_url
from tests.support.listing import page
from tests.support.proxy import Proxy

NEVER = datetime.max.replace(tzinfo=UTC)
METHODS = {"exists": ["k"], "read": ["k"], "write": [1, "k"], "delete": ["k"]}


def backends(connection: psycopg.Connection[Any]) -> list[int]:
    rows = connection.execute(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() ORDER BY 1"
    )
    return [pid for (pid,) in rows.fetchall()]


def terminate_all(connection: psycopg.Connection[Any]) -> int:
    """End all other sessions in the database, and wait until they are gone."""
    ended = connection.execute(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    return len(ended.fetchall())


@pytest.fixture
def storage(fresh_url: URL) -> Iterator[PostgresStorage]:
    """A storage in a database of the test's own, whose sessions can be ended."""
    storage = PostgresStorage(fresh_url)
    yield storage
    storage.close()


@pytest.fixture
async def narrow(fresh_url: URL) -> AsyncIterator[ResultStore]:
    """A store with one connection."""
    settings = Settings(pool_size=1, pool_overflow=0, connect_timeout=1)
    storage = PostgresStorage(fresh_url, settings=settings)
    yield ResultStore(result_storage=storage)
    await storage.aclose()


@pytest.fixture
def proxy(fresh_url: URL) -> Iterator[Proxy]:
    with Proxy(fresh_url) as proxy:
        yield proxy


@pytest.fixture
async def proxied(proxy: Proxy) -> AsyncIterator[ResultStore]:
    storage = PostgresStorage(proxy.url, settings=Settings(connect_timeout=5, response_timeout=5))
    yield ResultStore(result_storage=storage, cache_result_in_memory=False)
    await storage.aclose()


# Processes and event loops


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


# Engines of the caller's


@pytest.fixture
def engine(fresh_url: URL) -> Iterator[Engine]:
    engine = create_engine(fresh_url.set(drivername="postgresql+psycopg"), pool_size=3, max_overflow=0)
    yield engine
    engine.dispose()


@pytest.fixture
async def async_engine(fresh_url: URL) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(fresh_url.set(drivername="postgresql+psycopg"), pool_size=3, max_overflow=0)
    yield engine
    await engine.dispose()


@pytest.mark.parametrize("size", [10, 3_000_000])
def test_an_engine_comes_back_as_it_was(engine: Engine, connection: Any, size: int) -> None:
    with engine.connect() as before:
        session = before.scalar(text("SELECT pg_backend_pid()"))
    storage = PostgresStorage(engine)
    store = ResultStore(result_storage=storage)
    store.write(bytes(size), key="k")
    assert len(store.read("k").result) == size
    storage.close()
    assert engine.pool.checkedout() == 0
    with engine.connect() as after:
        assert after.scalar(text("SELECT pg_backend_pid()")) == session
        assert after.connection.driver_connection.autocommit is False
        assert after.scalar(text("SHOW application_name")) != "pgresults"
        after.execute(text("CREATE TABLE scratch ()"))
        after.rollback()
        assert after.scalar(text("SELECT to_regclass('scratch')")) is None


async def test_an_async_engine_comes_back_as_it_was(async_engine: AsyncEngine) -> None:
    async with async_engine.connect() as before:
        session = await before.scalar(text("SELECT pg_backend_pid()"))
    storage = PostgresStorage(async_engine)
    store = ResultStore(result_storage=storage)
    for size in (10, 3_000_000):
        await store.awrite(bytes(size), key="k")
        assert len((await store.aread("k")).result) == size
    await storage.aclose()
    async with async_engine.connect() as after:
        assert await after.scalar(text("SELECT pg_backend_pid()")) == session
        await after.execute(text("CREATE TABLE scratch ()"))
        await after.rollback()
        assert await after.scalar(text("SELECT to_regclass('scratch')")) is None


async def test_an_engine_of_one_kind_serves_both_kinds_of_calls(engine: Engine, async_engine: AsyncEngine) -> None:
    for given in (engine, async_engine):
        storage = PostgresStorage(given)
        store = ResultStore(result_storage=storage)
        store.write(1, key="k")
        assert (await store.aread("k")).result == 1
        await storage.aclose()


ODD_ENGINES = {
    "time zone": {"connect_args": {"options": "-c TimeZone=Pacific/Kiritimati -c DateStyle=German"}},
    "autocommit": {"isolation_level": "AUTOCOMMIT"},
    "serializable": {"isolation_level": "SERIALIZABLE"},
    "literals in the text": {"connect_args": {"cursor_factory": psycopg.ClientCursor}},
    "no prepared statements": {"connect_args": {"prepare_threshold": None}},
    "ping": {"pool_pre_ping": True},
    "search path": {"connect_args": {"options": "-c search_path=nowhere"}},
    "old byte texts": {"connect_args": {"options": "-c bytea_output=escape -c standard_conforming_strings=off"}},
}


@pytest.mark.parametrize("options", ODD_ENGINES.values(), ids=ODD_ENGINES)
def test_an_engine_may_have_its_own_ways(fresh_url: URL, options: dict[str, Any]) -> None:
    url = fresh_url.set(drivername="postgresql+psycopg")
    engine = create_engine(url, **options)
    storage = PostgresStorage(engine)
    store = ResultStore(result_storage=storage)
    plain = ResultStore(result_storage=PostgresStorage(url))
    for size in (10, 2_000_000):
        stored = store.write(bytes(size), key="%s'", tags=["a"], provenance={"n": 1}, expiration=NEVER)
        assert [listed.expires_at for listed in page(storage)] == [NEVER]
        assert stored.created_at.utcoffset().total_seconds() == 0
        assert store.read("%s'") == plain.read("%s'")
        assert store.read("%s'").metadata.model_dump() == stored.model_dump()
    assert store.delete("%s'")
    with pytest.raises(MissingResult, match="deleted"):
        store.read("%s'")
    assert engine.pool.checkedout() == 0
    plain.result_storage.close()
    engine.dispose()


def test_a_hook_may_leave_its_transaction_open(engine: Engine) -> None:
    """A hook that sets a connection up often forgets to commit; SQLAlchemy does not mind."""

    @event.listens_for(engine, "checkout")
    def set_up(connection: Any, *_: object) -> None:
        connection.cursor().execute("SET application_name = 'theirs'")

    store = ResultStore(result_storage=PostgresStorage(engine))
    for n in range(3):
        store.write(n, key="k")
    assert store.read("k").metadata.version == 3
    with engine.connect() as after:
        assert after.scalar(text("SHOW application_name")) == "theirs"


# Lost connections


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


def test_dropped_connections_of_an_engine_are_replaced(engine: Engine, connection: Any) -> None:
    store = ResultStore(result_storage=PostgresStorage(engine))
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda n: store.write(n, key=str(n)), range(30)))
    held = [engine.connect() for _ in range(3)]
    for one in held:
        one.close()
    assert terminate_all(connection) == 3
    assert store.exists("0")
    assert terminate_all(connection) == 1
    store.write("new", key="0")


async def test_dropped_connections_of_an_async_engine_are_replaced(async_engine: AsyncEngine, connection: Any) -> None:
    store = ResultStore(result_storage=PostgresStorage(async_engine))
    await asyncio.gather(*(store.awrite(n, key=str(n)) for n in range(30)))
    assert terminate_all(connection) > 0
    assert await store.aexists("0")
    await store.result_storage.aclose()


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


# A database that is down


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
    assert failure.value.outcome_unknown or method == "delete"
    proxy.silent = False
    assert await call(store, "exists", "k")
    await storage.aclose()


async def test_a_long_statement_is_no_silence_while_data_flows(call: Any, fresh_url: URL) -> None:
    storage = PostgresStorage(fresh_url, settings=Settings(response_timeout=1))
    store = ResultStore(result_storage=storage)
    await call(store, "write", os.urandom(20_000_000), key="k")
    assert len((await call(store, "read", "k")).result) == 20_000_000
    await storage.aclose()


async def test_a_blocked_write_is_given_up_once_and_stored_at_most_once(
    call: Any, fresh_url: URL, connection: Any
) -> None:
    storage = PostgresStorage(fresh_url, settings=Settings(response_timeout=1))
    store = ResultStore(result_storage=storage)
    await call(store, "write", 1, key="k")
    with psycopg.connect(psycopg_url(fresh_url)) as blocker:
        blocker.execute("SELECT 1 FROM pgresults.result FOR UPDATE")
        with pytest.raises(StorageUnavailable, match="not answered") as failure:
            await call(store, "write", 2, key="k")
        blocked = "SELECT count(*) FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))"
        waiting = connection.execute(blocked, [blocker.info.backend_pid]).fetchone()
    assert failure.value.outcome_unknown
    assert waiting <= (1,)
    assert (await call(store, "write", 3, key="k")).version in (2, 3)
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


# Interruptions


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


# Secrets


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:geheim@127.0.0.1:1/db",
        "postgresql://user@127.0.0.1:1/db?password=geheim",
        "postgresql://user:geheim@127.0.0.1:geheim/db",
        "postgresql://user:gehe/im@127.0.0.1:1/db",
        "postgresql://user:of@geheim@127.0.0.1:1/db",
        "postgresql://user:geheim@127.0.0.1:1/db?nonsense=1",
        "postgresql://user:geheim@127.0.0.1:1/db?passfile=/geheim&sslpassword=geheim",
        "mysql://user:geheim@127.0.0.1/db",
        "user:geheim@127.0.0.1/db",
        "postgresql+asyncpg://user:geheim@127.0.0.1/db",
    ],
)
async def test_passwords_are_never_shown(call: Any, url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    shown = []
    try:
        storage = PostgresStorage(url)
        store = ResultStore(result_storage=storage)
        shown += [repr(storage), repr(storage.database), repr(store), str(store), str(storage.__dict__)]
        await call(store, "exists", "k")
    except (ConfigurationError, StorageUnavailable) as error:
        shown += [repr(error), str(error), str(vars(error)), "".join(traceback.format_exception(error))]
    shown = [*shown, caplog.text]
    assert len(shown) > 3
    assert "gehe" not in "\n".join(line for text in shown for line in text.splitlines() if not _is_source(line))


def _is_source(line: str) -> bool:
    """Whether a line of a traceback quotes this file or another."""
    return line.startswith("    ") or 'File "' in line


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
