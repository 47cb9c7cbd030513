"""What a client gives up, the server gives up; what nobody uses is closed; who finds no place waits for one."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import URL

from pgresults.errors import StorageUnavailable
from pgresults.operations.requests import Copy, Execute, Operation, Stream
from pgresults.settings import Settings
from pgresults.sql import results as statements
from pgresults.sql.compiled import Query
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.calls import Call
from tests.support.database import psycopg_url

LIMITS = (
    *("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout"),
    *("client_connection_check_interval", "tcp_keepalives_idle", "tcp_user_timeout"),
)


class Asking:
    """A statement as a test says it."""

    changes = False

    def __init__(self, text: str) -> None:
        self._query = Query(text.encode())

    def query(self, _: str) -> Query:
        return self._query


def ask(text: str) -> Any:
    def start(_: bool) -> Operation[Any]:
        return (yield Execute(Asking(text), {}))[0][0]  # type: ignore[arg-type]

    return start


def impatient(url: URL, **settings: Any) -> PostgresStorage:
    return PostgresStorage(url, f"test-{uuid4().hex}", settings=Settings(**{"response_timeout": 1.0, **settings}))


@pytest.fixture
def watcher(fresh_url: URL) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(psycopg_url(fresh_url), autocommit=True) as connection:
        yield connection


def sessions(watcher: psycopg.Connection[Any]) -> int:
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'pgresults'"
    )
    ((count,),) = watcher.execute(query).fetchall()
    return int(count)


async def test_every_session_is_bounded(call: Call, storage: PostgresStorage) -> None:
    shown = {name: await call(storage.database, "run", ask(f"SHOW {name}")) for name in LIMITS[:5]}
    assert shown == {
        "statement_timeout": "54s",
        "lock_timeout": "54s",
        "idle_in_transaction_session_timeout": "1min",
        "idle_session_timeout": "10min",
        "client_connection_check_interval": "5s",
    }


async def test_what_a_user_has_set_to_less_stays(call: Call, fresh_url: URL) -> None:
    url = fresh_url.update_query_dict({"options": "-c statement_timeout=7s -c lock_timeout=70min"})
    storage = PostgresStorage(url)
    assert await call(storage.database, "run", ask("SHOW statement_timeout")) == "7s"
    assert await call(storage.database, "run", ask("SHOW lock_timeout")) == "54s"
    await storage.aclose()


async def test_the_server_gives_a_statement_up_first_and_says_so(call: Call, fresh_url: URL) -> None:
    storage = impatient(fresh_url)
    with pytest.raises(StorageUnavailable) as failure:
        await call(storage.database, "run", ask("SELECT pg_sleep(30)"))
    assert (failure.value.sqlstate, failure.value.outcome_unknown) == ("57014", False)
    await storage.aclose()


async def test_a_transaction_whose_client_vanished_holds_nobody_up(
    call: Call, fresh_url: URL, watcher: psycopg.Connection[Any]
) -> None:
    gone = impatient(fresh_url)
    store = ResultStore(result_storage=PostgresStorage(fresh_url, gone.name))
    await call(store, "write", 1, key="k")
    vanished = gone.database.connect()
    vanished.execute("BEGIN")
    vanished.execute("UPDATE pgresults.result SET holder = 'nobody' WHERE key = 'k'")
    assert (await call(store, "write", 2, key="k")).version == 2  # it waited for the server to end that session
    vanished.close()
    assert [entry.version for entry in store.history("k")] == [1, 2]
    assert store.verify().intact
    await store.result_storage.aclose()
    await gone.aclose()


async def test_who_waits_in_vain_for_a_row_knows_that_nothing_happened(
    call: Call, fresh_url: URL, watcher: psycopg.Connection[Any]
) -> None:
    storage = impatient(fresh_url)
    store = ResultStore(result_storage=storage)
    await call(store, "write", 1, key="k")
    with watcher.transaction():
        watcher.execute("UPDATE pgresults.result SET holder = 'slow' WHERE key = 'k'")
        with pytest.raises(StorageUnavailable) as failure:
            await call(store, "write", 2, key="k")
    assert failure.value.outcome_unknown is False
    assert (await call(store, "write", 3, key="k")).version == 2
    await storage.aclose()


async def test_what_is_copied_or_streamed_takes_its_time(call: Call, fresh_url: URL) -> None:
    storage = impatient(fresh_url, response_timeout=0.5)
    waited = threading.Event()
    row = (uuid4(), "k", uuid4(), 0, b"data", None, None)

    def rows() -> Iterator[Any]:
        waited.wait(0.7)  # longer than a statement may take
        yield row

    def copying(_: bool) -> Operation[None]:
        yield Copy(statements.UPLOAD, rows())

    seen: list[Any] = []

    def streaming(_: bool) -> Operation[None]:
        text = "SELECT n, pg_sleep(0.1)::text || repeat('x', 10000) FROM generate_series(1, 8) n"
        yield Stream(Asking(text), {}, seen.append)  # type: ignore[arg-type]

    await call(storage.database, "run", copying, atomic=True)
    await call(storage.database, "run", streaming)
    assert len(seen) == 8
    assert await call(storage.database, "run", ask("SHOW statement_timeout")) == "450ms"
    await storage.aclose()


async def test_what_nobody_uses_is_closed(call: Call, fresh_url: URL, watcher: psycopg.Connection[Any]) -> None:
    storage = PostgresStorage(fresh_url, settings=Settings(pool_max_idle=1e-9))
    backends = {await call(storage.database, "run", ask("SELECT pg_backend_pid()")) for _ in range(5)}
    assert len(backends) == 5
    storage.close()
    aged = PostgresStorage(fresh_url, settings=Settings(pool_max_lifetime=1e-9))
    backends = {await call(aged.database, "run", ask("SELECT pg_backend_pid()")) for _ in range(5)}
    assert len(backends) == 5
    await aged.aclose()


def test_the_connections_of_a_loop_end_with_it(
    fresh_url: URL, watcher: psycopg.Connection[Any], storage: PostgresStorage
) -> None:
    store = ResultStore(result_storage=storage)

    async def work(name: str) -> None:
        await asyncio.gather(*(store.awrite(n, key=f"{name}-{n}") for n in range(4)))

    asyncio.run(work("first"))
    asyncio.run(work("second"))
    with ThreadPoolExecutor(10) as threads:
        list(threads.map(lambda name: asyncio.run(work(str(name))), range(10)))
    for _ in range(100):  # a server process takes a moment to end
        if sessions(watcher) == 0:
            break
        watcher.execute("SELECT pg_sleep(0.05)")
    assert sessions(watcher) == 0


@pytest.fixture
def limited(fresh_url: URL, watcher: psycopg.Connection[Any]) -> Iterator[URL]:
    """A user who may have two connections."""
    name = f"pgresults_two_{uuid4().hex[:8]}"
    role = sql.Identifier(name)
    watcher.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'x' CONNECTION LIMIT 2").format(role))
    watcher.execute(sql.SQL("GRANT ALL ON SCHEMA pgresults TO {}").format(role))
    watcher.execute(sql.SQL("GRANT ALL ON ALL TABLES IN SCHEMA pgresults TO {}").format(role))
    yield fresh_url.set(username=name, password="x")
    watcher.execute(sql.SQL("DROP OWNED BY {0} CASCADE; DROP ROLE {0}").format(role))


def test_who_finds_the_server_full_waits_for_a_connection_of_its_own(limited: URL) -> None:
    store = ResultStore(result_storage=PostgresStorage(limited, settings=Settings(pool_size=5)))
    store.write(0, key="first")
    start = threading.Barrier(8)

    def write(number: int) -> int:
        start.wait()
        versions = [store.write(n, key=f"{number}-{n}").version for n in range(20)]
        return max(version or 0 for version in versions)

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(write, range(8))) == [1] * 8
    store.result_storage.close()


def test_coroutines_that_find_the_server_full_wait_for_a_connection_of_their_loop(limited: URL) -> None:
    store = ResultStore(result_storage=PostgresStorage(limited, settings=Settings(pool_size=5)))

    async def together() -> list[Any]:
        return await asyncio.gather(*(store.awrite(n, key=f"async-{n}") for n in range(30)))

    assert [stored.version for stored in asyncio.run(together())] == [1] * 30
    store.result_storage.close()


def test_a_server_that_is_full_of_others_is_said_at_once(limited: URL) -> None:
    with psycopg.connect(psycopg_url(limited)), psycopg.connect(psycopg_url(limited)):
        store = ResultStore(result_storage=PostgresStorage(limited, settings=Settings(connect_timeout=30)))
        with pytest.raises(StorageUnavailable, match="too many connections"):
            store.write(1, key="k")
