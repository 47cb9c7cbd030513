"""Servers, databases and roles that only let one read: the next try may find another server, or it never works."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import URL, create_engine

from pgresults import PostgresStorage, ResultStore, transaction
from pgresults.database import migrations
from pgresults.errors import ConfigurationError
from pgresults.locking import PostgresLockManager
from pgresults.server.embedded import EmbeddedPostgres
from tests.support.calls import Call
from tests.support.database import psycopg_url
from tests.support.standbys import url_of


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EmbeddedPostgres, EmbeddedPostgres]]:
    """Two servers with our tables; the second takes over."""
    servers = [EmbeddedPostgres(tmp_path_factory.mktemp("servers") / name) for name in "ab"]
    for server in servers:
        try:
            server.ensure_running()
        except ConfigurationError:
            pytest.skip("the extra 'embedded' is not installed: there is no server that could take over")
        migrations.upgrade(url_of(server))
    yield servers[0], servers[1]
    for server in servers:
        server.stop()


def turn(server: EmbeddedPostgres, setting: str) -> None:
    """Let a server's sessions write, or only read; the ones that are there, too."""
    with (
        psycopg.connect(server.url, autocommit=True) as admin,
        psycopg.connect(server.url, autocommit=True) as watching,
    ):
        admin.execute(f"ALTER SYSTEM SET default_transaction_read_only = {setting}")
        admin.execute("SELECT pg_reload_conf()")
        while watching.execute("SHOW default_transaction_read_only").fetchone() != (setting,):
            pass


@pytest.fixture
def turned(pair: tuple[EmbeddedPostgres, EmbeddedPostgres]) -> Iterator[ResultStore]:
    """A store that has connections and a lock on the first of two servers, which takes no changes any more."""
    first, second = pair
    hosts = ",".join(str(server._socket_directory()) for server in pair)
    url = f"postgresql://postgres@/postgres?host={hosts}&port=5432,5432&target_session_attrs=read-write"
    storage = PostgresStorage(url, f"test-{uuid4().hex}")
    store = ResultStore(result_storage=storage, lock_manager=storage.lock_manager(), cache_result_in_memory=False)
    follower = PostgresStorage(second.url, storage.name)
    for one in (store, ResultStore(result_storage=follower)):  # as if it had followed
        one.write("there", key="k")
    follower.close()
    assert store.acquire_lock("before", "me")
    turn(first, "on")
    yield store
    turn(first, "off")
    store.lock_manager.close()
    storage.close()


@pytest.mark.slow
async def test_the_next_try_finds_the_server_that_writes(call: Call, turned: ResultStore) -> None:
    await call(turned, "write", "here", "k")
    assert (await call(turned, "read", "k")).result == "here"
    assert [entry.version for entry in await call(turned, "history", "k")] == [1, 2]
    assert await call(turned, "delete", "k")
    assert await call(turned, "acquire_lock", "k", "me")
    await call(turned, "write", bytes(3_000_000), "k", holder="me")
    await call(turned, "release_lock", "k", "me")
    with transaction("tree", turned, isolation_level="SERIALIZABLE") as txn:
        txn.stage(1)
    assert turned.verify().intact
    await turned.result_storage.aclose()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("delete", ("k",)),
        ("write", (bytes(3_000_000), "k")),
        ("write_many", ({"k": 1, "l": 2},)),
        ("acquire_lock", ("k", "me")),
        ("sweep", ()),
        ("redact", ("k", "law")),
    ],
)
async def test_whatever_comes_first(call: Call, turned: ResultStore, name: str, arguments: tuple[Any, ...]) -> None:
    await call(turned, name, *arguments)
    await turned.result_storage.aclose()


@pytest.fixture
def reading(fresh_url: URL) -> Iterator[ResultStore]:
    """A store of a role that only reads, as all its sessions are set."""
    role, password = f"pgresults_reading_{uuid4().hex[:8]}", uuid4().hex
    name = sql.Identifier(role)
    with psycopg.connect(psycopg_url(fresh_url), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE ROLE {} SUPERUSER LOGIN PASSWORD {}").format(name, sql.Literal(password)))
        admin.execute(sql.SQL("ALTER ROLE {} SET default_transaction_read_only = on").format(name))
        owned = PostgresStorage(fresh_url)
        ResultStore(result_storage=owned).write(1, key="k")
        owned.close()
        storage = PostgresStorage(fresh_url.set(username=role, password=password))
        yield ResultStore(result_storage=storage, lock_manager=storage.lock_manager())
        storage.close()
        admin.execute(sql.SQL("DROP ROLE {}").format(name))


async def test_what_never_works_is_no_outage(call: Call, reading: ResultStore) -> None:
    assert (await call(reading, "read", "k")).result == 1
    for name, *arguments in [
        ("write", 2, "k"),
        ("delete", "k"),
        ("acquire_lock", "k", "me"),
        ("write_many", {"a": 1}),
        ("sweep",),
    ]:
        with pytest.raises(ConfigurationError, match="default_transaction_read_only") as refusal:
            await call(reading, name, *arguments)
        assert refusal.value.setting == "database_url"
    assert (await call(reading, "read", "k")).result == 1
    await reading.lock_manager.aclose()
    await reading.result_storage.aclose()


def test_a_connection_of_the_callers_that_only_reads(fresh_url: URL, reading: ResultStore) -> None:
    store = ResultStore(result_storage=reading.result_storage)
    with (
        psycopg.connect(psycopg_url(fresh_url), options="-cdefault_transaction_read_only=on") as own,
        pytest.raises(ConfigurationError, match="only lets this session read"),
        transaction("new", store, connection=own) as txn,
    ):
        txn.stage(1)


@pytest.mark.slow
def test_a_lent_engine_finds_the_server_that_writes_as_well(pair: Any, tmp_path: Path) -> None:
    first, _ = pair
    hosts = ",".join(str(server._socket_directory()) for server in pair)
    engine = create_engine(
        "postgresql+psycopg://postgres@/postgres",
        connect_args={"host": hosts, "port": "5432,5432", "target_session_attrs": "read-write"},
    )
    storage = PostgresStorage(engine, f"test-{uuid4().hex}")
    store = ResultStore(result_storage=storage)
    store.write("there", key="k")
    turn(first, "on")
    store.write("here", key="k")
    assert len(store.history("k")) == 1
    turn(first, "off")
    storage.close()
    engine.dispose()


def test_a_server_that_writes_again_serves_again(server: EmbeddedPostgres) -> None:
    migrations.upgrade(url_of(server))
    storage = PostgresStorage(server.url)
    store = ResultStore(result_storage=storage, lock_manager=storage.lock_manager())
    assert isinstance(store.lock_manager, PostgresLockManager)
    store.write(1, key="k")
    turn(server, "on")
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="only lets this session read"):
            store.write(2, key="k")
        with pytest.raises(ConfigurationError, match="only lets this session read"):
            store.acquire_lock("k", "me")
    turn(server, "off")
    store.write(2, key="k")
    assert store.acquire_lock("k", "me")
    store.release_lock("k", "me")
    storage.close()
