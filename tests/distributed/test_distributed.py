"""A schema that is spread over the servers of a Citus cluster; the other tests run there as well."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import URL

from pgresults.database import distribution, migrations
from pgresults.errors import ConfigurationError, LockLostError
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from pgresults.transactions import transaction
from tests.support import citus
from tests.support.database import guard_again, psycopg_url

pytestmark = pytest.mark.citus

Program = Callable[..., "subprocess.CompletedProcess[str]"]
KEYS = [f"k{number}" for number in range(12)]


@pytest.fixture
def program() -> Program:
    """Runs the command line."""

    def run(url: URL, *arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "pgresults", "--database-url", psycopg_url(url), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    return run


def a_store(url: URL, name: str = "one") -> ResultStore:
    storage = PostgresStorage(url, name=name)
    return ResultStore(result_storage=storage, lock_manager=storage.lock_manager())


def on_shards(connection: psycopg.Connection[Any], command: str) -> set[str]:
    """What a command says of every shard of the history, on the server that has it."""
    rows = connection.execute("SELECT result FROM run_command_on_shards('pgresults.history', %s)", (command,))
    return {result for (result,) in rows.fetchall()}


def test_a_new_schema_is_spread(empty_url: URL, program: Program) -> None:
    assert program(empty_url, "db", "upgrade", "--distributed", "--shards", "4").returncode == 0
    current = program(empty_url, "db", "current")
    assert current.stdout.split() == [migrations.REVISION]
    assert "result, history, payload" not in current.stdout
    for part in ("spread by key in 4 shards over 2 servers", "storage on every server", "locks on this one"):
        assert part in " ".join(current.stderr.split())
        assert part in " ".join(program(empty_url, "db", "check").stdout.split())
    assert program(empty_url, "db", "upgrade").returncode == 0
    store = a_store(empty_url)
    assert store.write(1, key="k").version == 1
    assert store.verify().intact


def test_tables_in_use_are_spread_and_keep_what_they_have(empty_url: URL, program: Program) -> None:
    assert program(empty_url, "db", "upgrade").returncode == 0
    assert program(empty_url, "db", "current").stderr == ""
    before = a_store(empty_url)
    for key in KEYS:
        before.write(key, key=key)
    before.write("x" * 3_000_000, key="large")
    before.delete("k1")
    with psycopg.connect(psycopg_url(empty_url), autocommit=True) as connection:
        connection.execute("SELECT pgresults.project_documents()")
    entries = {key: [entry.digest for entry in before.history(key)] for key in KEYS}
    spread = program(empty_url, "db", "distribute", "--shards", "4")
    assert spread.returncode == 0
    assert "spreading history" in spread.stderr
    after = a_store(empty_url)
    assert {key: [entry.digest for entry in after.history(key)] for key in KEYS} == entries
    assert after.read("large").result == "x" * 3_000_000
    assert after.write("again", key="k1").version == 2
    assert after.verify().intact
    with psycopg.connect(psycopg_url(empty_url), autocommit=True) as connection:
        assert connection.execute("SELECT count(*) FROM pgresults.json_results").fetchone() == (0,)
        with pytest.raises(psycopg.errors.FeatureNotSupported):
            connection.execute("SELECT pgresults.project_documents()")
    assert program(empty_url, "db", "distribute").returncode == 0


def test_a_program_from_before_is_refused_once(empty_url: URL) -> None:
    migrations.upgrade(empty_url.set(drivername="postgresql+psycopg"))
    before = a_store(empty_url)
    before.write(1, key="k")
    distribution.distribute(empty_url.set(drivername="postgresql+psycopg"), shards=4)
    with pytest.raises(ConfigurationError):
        before.write(2, key="k")
    assert before.read("k").result == 1
    assert before.write(3, key="k").version == 2  # it has looked again
    assert before.verify().intact


def test_no_shard_of_the_history_can_be_changed(store: ResultStore, connection: psycopg.Connection[Any]) -> None:
    for key in KEYS:
        store.write(1, key=key)
    for change in ("DELETE FROM {}", "UPDATE {} SET actor = 'nobody'", "TRUNCATE {}"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(change.format("pgresults.history"))
    for change in ("DELETE FROM %s", "UPDATE %s SET actor = 'nobody'"):
        assert all("append-only" in said for said in on_shards(connection, change))
    assert store.verify().intact


def test_what_cannot_be_done_is_refused_in_our_words(
    store: ResultStore, connection: psycopg.Connection[Any], program: Program
) -> None:
    for call in ("maintenance('why')", "project_documents()"):
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="spread over several servers"):
            connection.execute(f"SELECT pgresults.{call}")
    store.write(1, key="k")
    with pytest.raises(ConfigurationError, match="spread over several servers"):
        store.hold(key="k", reason="why")
    refused = program(store.result_storage.database.url(), "hold", "k", "--reason", "why")
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert store.retain(versions=1) == 0
    assert store.verify().intact


def test_what_was_changed_on_a_shard_is_found(store: ResultStore, connection: psycopg.Connection[Any]) -> None:
    for key in KEYS:
        store.write(1, key=key)
    storage = store.result_storage.id
    connection.execute("ALTER TABLE pgresults.history DISABLE TRIGGER append_only")
    try:
        assert {finding.kind for finding in store.verify().findings} == {"storage"}
        on_shards(connection, f"DELETE FROM %s WHERE storage_id = '{storage}' AND key = 'k3'")
        on_shards(connection, f"UPDATE %s SET actor = 'x' WHERE storage_id = '{storage}' AND key = 'k4'")
        found = store.verify().findings
    finally:
        guard_again(connection)
    assert {key for finding in found for key in finding.keys} == {"k3", "k4"}


def test_a_tree_over_several_shards_is_stored_whole_or_not_at_all(store: ResultStore) -> None:
    with transaction(store=store):
        for key in KEYS:
            with transaction(key=key, store=store) as inner:
                inner.stage(key)
    assert [store.read(key).result for key in KEYS] == KEYS
    with pytest.raises(ZeroDivisionError), transaction(store=store):  # noqa: PT012 (a tree)
        for key in KEYS:
            with transaction(key=key, store=store, overwrite=True) as inner:
                inner.stage("lost")
        raise ZeroDivisionError
    assert [store.read(key).metadata.version for key in KEYS] == [1] * len(KEYS)
    assert store.verify().intact


def test_a_tree_that_has_lost_one_lock_stores_nothing(guarded: ResultStore, connection: Any) -> None:
    with pytest.raises(LockLostError), transaction(store=guarded):  # noqa: PT012 (a tree)
        for key in KEYS:
            with transaction(key=key, store=guarded, isolation_level="SERIALIZABLE") as inner:
                inner.stage(key)
        connection.execute("UPDATE pgresults.lock SET token = %s WHERE key = 'k7'", (uuid4(),))
    assert not any(guarded.exists(key) for key in KEYS)


def test_a_database_without_the_extension_cannot_be_spread(server_url: URL) -> None:
    name = f"pgresults_plain_{uuid4().hex[:12]}"
    with psycopg.connect(psycopg_url(server_url), autocommit=True) as connection:
        connection.execute("SET citus.enable_create_database_propagation = off")
        connection.execute(f"CREATE DATABASE {name}")
        try:
            url = server_url.set(database=name, drivername="postgresql+psycopg")
            migrations.upgrade(url)
            with pytest.raises(ConfigurationError, match="citus"):
                distribution.distribute(url)
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_every_server_has_the_functions(server_url: URL, shared_url: URL) -> None:
    for server in citus.servers(server_url)[1:]:
        with psycopg.connect(psycopg_url(server.set(database=shared_url.database))) as connection:
            rows = connection.execute(
                "SELECT count(*) FROM pg_proc WHERE pronamespace = 'pgresults'::regnamespace"
                " AND proname IN ('write_version', 'change_head', 'lock_head', 'first_chunk')"
            ).fetchone()
            assert rows == (4,)
