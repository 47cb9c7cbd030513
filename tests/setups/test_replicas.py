"""Reads that go to a standby: as new as they have to be, and the primary answers wherever that is not shown."""

import os
import pickle
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from typer.testing import CliRunner

from pgresults import PostgresStorage, ResultStore
from pgresults.cli.app import app
from pgresults.database import following, migrations, standbys
from pgresults.database.following import Wanted
from pgresults.errors import ConfigurationError, InvalidArgument, MissingResult, StorageUnavailable
from pgresults.operations.standbys import place
from pgresults.server import binaries
from pgresults.server.embedded import EmbeddedPostgres
from pgresults.sql.grants import Kind, granting
from tests.support.calls import Call
from tests.support.standbys import caught_up, own_server, standby_of, url_of

pytestmark = pytest.mark.slow

HOUR = timedelta(hours=1)
WARNING = "does not serve reads"


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[EmbeddedPostgres, EmbeddedPostgres]]:
    """A primary and its standby."""
    try:
        binaries.bin_directory()
    except ConfigurationError:
        pytest.skip("the extra 'embedded' is not installed: there is no server that could have a standby")
    with own_server() as primary:
        migrations.upgrade(url_of(primary))
        with standby_of(primary) as standby:
            yield primary, standby


def on(server: EmbeddedPostgres, statement: str) -> Any:
    with psycopg.connect(server.url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchone() if cursor.description else None


def follow(standby: EmbeddedPostgres, primary: str) -> None:
    """Have a standby follow a server."""
    with psycopg.connect(standby.url, autocommit=True) as connection:
        connection.execute(sql.SQL("ALTER SYSTEM SET primary_conninfo = {}").format(primary))
        connection.execute("SELECT pg_reload_conf()")


class Pair:
    """A primary with a standby, and stores that read there."""

    def __init__(self, primary: EmbeddedPostgres, standby: EmbeddedPostgres) -> None:
        self.primary, self.standby = primary, standby
        self.name = f"test-{uuid4().hex}"
        self.opened: list[PostgresStorage] = []
        self.other = self.store(read_url=None)
        """Who writes in another process, and reads at the primary."""

    def store(self, read_url: str | None = "", **options: Any) -> ResultStore:
        read_url = self.standby.url if read_url == "" else read_url
        storage = PostgresStorage(self.primary.url, self.name, read_url=read_url)
        self.opened.append(storage)
        locks = storage.lock_manager() if options.pop("locks", False) else None
        return ResultStore(result_storage=storage, lock_manager=locks, **options)

    def meet(self) -> None:
        """Let the standby repeat everything."""
        on(self.primary, "SELECT pg_logical_emit_message(true, 'test', '')")  # writes what waits to be written
        caught_up(self.primary, self.standby)

    def pause(self) -> None:
        on(self.standby, "SELECT pg_wal_replay_pause()")
        while on(self.standby, "SELECT pg_get_wal_replay_pause_state()") != ("paused",):
            pass

    def resume(self) -> None:
        on(self.standby, "SELECT pg_wal_replay_resume()")

    def behind(self, key: str = "k") -> ResultStore:
        """A store that knows the standby to be good, which lacks what was written since: version 2 of a key."""
        self.other.write("old", key=key, tags=["t"])
        self.meet()
        store = self.store()
        assert store.read(key, stale_ok=HOUR).result == "old"
        self.pause()
        self.other.write("new", key=key, tags=["u"])
        return store

    def close(self) -> None:
        for storage in self.opened:
            storage.close()


@pytest.fixture
def pair(servers: Any) -> Iterator[Pair]:
    pair = Pair(*servers)
    yield pair
    pair.resume()
    pair.close()


async def test_what_may_be_old_comes_from_the_standby(call: Call, pair: Pair) -> None:
    store = pair.behind()
    assert (await call(store, "read", "k", stale_ok=HOUR)).result == "old"
    assert (await call(store, "read", "k")).result == "new"
    assert {key: one.result for key, one in (await call(store, "read_many", ["k"], stale_ok=HOUR)).items()} == {
        "k": "old"
    }
    assert [one.version for one in await call(store, "history", "k", stale_ok=HOUR)][-1] == 1
    assert [one.tags for one in await call(store, "find", prefix="k", stale_ok=HOUR)] == [["t"]]
    assert await call(store, "exists", "k", stale_ok=HOUR)
    assert await call(store, "exists_many", ["k"], stale_ok=HOUR) == {"k"}
    await store.aclose()


async def test_what_must_be_newer_comes_from_the_primary(call: Call, pair: Pair) -> None:
    store = pair.behind()
    for stale_ok in (timedelta(0), timedelta(microseconds=1)):
        assert (await call(store, "read", "k", stale_ok=stale_ok)).result == "new"
        assert [one.version for one in await call(store, "history", "k", stale_ok=stale_ok)] == [1, 2]
        assert [one.tags for one in await call(store, "find", prefix="k", stale_ok=stale_ok)] == [["u"]]
    await store.aclose()


async def test_nobody_takes_a_standby_for_new_enough_before_it_is_shown(call: Call, pair: Pair) -> None:
    pair.behind()
    fresh = pair.store()
    assert (await call(fresh, "read", "k", stale_ok=HOUR)).result == "new"
    assert [one.version for one in await call(fresh, "history", "k")] == [1, 2]
    await fresh.aclose()


async def test_what_was_just_written_is_found(call: Call, pair: Pair) -> None:
    """A standby's word that something is missing is not believed, and what this process wrote shows in listings."""
    store = pair.behind()
    await call(pair.other, "write", 1, "theirs")
    assert (await call(store, "read", "k", version=2)).result == "new"
    assert (await call(store, "read", "theirs", stale_ok=HOUR)).result == 1
    assert await call(store, "exists", "theirs", stale_ok=HOUR)
    assert set(await call(store, "read_many", ["k", "theirs"], stale_ok=HOUR)) == {"k", "theirs"}
    assert await call(store, "exists_many", ["k", "theirs"], stale_ok=HOUR) == {"k", "theirs"}
    assert len(await call(store, "history", "theirs")) == 1
    with pytest.raises(MissingResult, match="never written"):
        await call(store, "read", "nobody's", stale_ok=HOUR)
    await call(store, "write", 3, "k")
    assert [one.version for one in await call(store, "history", "k")] == [1, 2, 3]
    assert [one.version for one in await call(store, "find", prefix="k")] == [3]
    await call(store, "delete", "k")
    assert await call(store, "find", prefix="k") == []
    await store.aclose()
    await pair.other.aclose()


async def test_what_was_redacted_is_given_no_more_to_who_redacted_it(call: Call, pair: Pair) -> None:
    store = pair.behind()
    assert (await call(store, "read", "k", version=1)).result == "old"
    await call(store, "redact", "k", "law")
    with pytest.raises(MissingResult, match="redacted"):
        await call(store, "read", "k", version=1)
    await store.aclose()


async def test_a_moment_that_the_standby_has_not_reached_is_asked_of_the_primary(call: Call, pair: Pair) -> None:
    before = datetime.now(UTC)
    store = pair.behind()
    at = pair.other.history("k")[-1].at
    assert (await call(store, "read", "k", as_of=at, stale_ok=HOUR)).result == "new"
    assert (await call(store, "read", "k", as_of=at - timedelta(microseconds=1), stale_ok=HOUR)).result == "old"
    assert await call(store, "exists", "k", as_of=at, stale_ok=HOUR)
    assert not await call(store, "exists", "k", as_of=before, stale_ok=HOUR)
    await store.aclose()


async def test_no_lock_is_waited_for(call: Call, pair: Pair) -> None:
    pair.other.write(1, key="k")
    holder = pair.store(locks=True)
    assert holder.acquire_lock("k", "another")
    pair.meet()
    assert (await call(pair.store(locks=True), "read", "k", stale_ok=HOUR)).result == 1
    assert (await call(pair.store(None, locks=True), "read", "k", stale_ok=HOUR)).result == 1
    holder.release_lock("k", "another")
    for storage in pair.opened:
        await storage.aclose()


def test_an_idle_primary_is_not_ahead(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Days after the last commit, the standby that has repeated it is as new as can be."""
    pair.other.write(1, key="k")
    assert pair.other.read("k").result == 1  # which may write hints that nobody hurries to make certain
    pair.meet()
    store, now = pair.store(), following.now
    database = store.result_storage.database
    for days in range(3):
        for module in (following, standbys):
            monkeypatch.setattr(module, "now", lambda days=days: now() + 86400 * days)
        store.read("k", stale_ok=timedelta(seconds=30))
        there = database.standby.run(lambda _: place())
        later = there._replace(at=there.at + timedelta(days=days))  # as all clocks would be
        marks = tuple(mark._replace(at=mark.at + timedelta(days=days)) for mark in database.following._marks[-2:])
        monkeypatch.setattr(database.following, "_marks", marks)
        assert database.following.proves(later, Wanted(30.0))


def test_one_that_hears_nothing_any_more_is_not_current(pair: Pair) -> None:
    pair.other.write("old", key="k")
    pair.meet()
    store = pair.store()
    assert store.read("k", stale_ok=HOUR).result == "old"
    (primary,) = on(pair.standby, "SHOW primary_conninfo")
    follow(pair.standby, "")
    while on(pair.standby, "SELECT count(*) FROM pg_stat_wal_receiver") != (0,):
        pass
    try:
        pair.other.write("new", key="k")
        store.result_storage.database.following._asked = float("-inf")
        assert pair.store().read("k", stale_ok=timedelta(minutes=1)).result == "new"
        assert store.read("k", stale_ok=HOUR).result == "old"  # shown to be less than an hour old
    finally:
        follow(pair.standby, primary)


def test_one_that_is_gone_is_said_once_and_tried_again(
    servers: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    primary, _ = servers
    monkeypatch.setattr(following, "AGAIN", 0.0)
    with standby_of(primary) as standby:
        pair = Pair(primary, standby)
        store = pair.behind("gone")
        pair.resume()
        os.kill(standby.status().pid or 0, signal.SIGKILL)
        while standby.is_running():
            pass
        for _ in range(2):
            assert store.read("gone", stale_ok=HOUR).result == "new"
        assert len(store.history("gone")) == 2
        assert caplog.text.count(WARNING) == 1
        standby.ensure_running()
        pair.meet()
        pair.pause()
        pair.other.write("newest", key="gone")
        assert store.read("gone", stale_ok=HOUR).result == "new"
        assert caplog.text.count(WARNING) == 1
        pair.resume()
        pair.close()


def test_one_that_was_promoted_answers_nothing(servers: Any, caplog: pytest.LogCaptureFixture) -> None:
    primary, _ = servers
    with standby_of(primary) as standby:
        pair = Pair(primary, standby)
        pair.other.write("right", key="promoted")
        pair.meet()
        store = pair.store()
        assert store.read("promoted", stale_ok=HOUR).result == "right"
        assert on(standby, "SELECT pg_promote()") == (True,)
        with_own_history = ResultStore(result_storage=PostgresStorage(standby.url, pair.name))
        with_own_history.write("wrong", key="promoted")
        for _ in range(2):
            assert store.read("promoted", stale_ok=HOUR).result == "right"
            assert store.read("promoted", version=1).result == "right"
            assert len(store.history("promoted")) == 1
        assert caplog.text.count(WARNING) == 1
        assert "promoted" in caplog.text
        with_own_history.close()
        pair.close()


def test_one_on_another_branch_of_the_history_answers_nothing(servers: Any) -> None:
    """After a failover, a standby that still follows the old primary may have come further than the new one has."""
    old, _ = servers
    with standby_of(old) as new:
        pair = Pair(old, new)
        pair.meet()
        assert on(new, "SELECT pg_promote()") == (True,)
        behind = Pair(old, servers[1])
        behind.other.write("lost", key="branch")
        behind.other.write(bytes(3_000_000), key="much")
        behind.meet()
        storage = PostgresStorage(new.url, behind.name, read_url=servers[1].url)
        store = ResultStore(result_storage=storage)
        store.write("right", key="branch")
        for _ in range(2):
            assert store.read("branch", stale_ok=HOUR).result == "right"
            assert len(store.history("branch", stale_ok=HOUR)) == 1
        for one in (storage, *pair.opened, *behind.opened):
            one.close()


@pytest.mark.parametrize("elsewhere", ["server", "database"])
def test_one_of_another_database_answers_nothing(pair: Pair, caplog: pytest.LogCaptureFixture, elsewhere: str) -> None:
    pair.other.write("right", key="k")
    pair.meet()
    if elsewhere == "database":
        on(pair.primary, "DROP DATABASE IF EXISTS staging")
        on(pair.primary, "CREATE DATABASE staging")
        url = pair.primary.url.replace("@/postgres", "@/staging")
        migrations.upgrade(url_of(pair.primary).set(database="staging"))
        _write_wrong(url, pair.name)
        pair.meet()
        _require_right(pair.store(pair.standby.url.replace("@/postgres", "@/staging")))
    else:
        with own_server() as other:
            migrations.upgrade(url_of(other))
            _write_wrong(other.url, pair.name)
            with standby_of(other) as standby:
                caught_up(other, standby)
                _require_right(pair.store(standby.url))
    assert caplog.text.count(WARNING) == 1
    assert "another" in caplog.text


def _write_wrong(url: str, name: str) -> None:
    storage = PostgresStorage(url, name)
    ResultStore(result_storage=storage).write("wrong", key="k")
    storage.close()


def _require_right(store: ResultStore) -> None:
    for _ in range(2):
        assert store.read("k", stale_ok=HOUR).result == "right"
    store.close()


def test_it_goes_on_without_the_primary_for_as_long_as_it_is_shown_to_be_new(servers: Any) -> None:
    with own_server() as primary:
        migrations.upgrade(url_of(primary))
        with standby_of(primary) as standby:
            pair = Pair(primary, standby)
            pair.other.write(1, key="k")
            pair.meet()
            store = pair.store()
            assert store.read("k", stale_ok=HOUR).result == 1
            primary.stop()
            assert store.read("k", stale_ok=HOUR).result == 1
            pair.close()


def test_who_only_reads_may_read_there(pair: Pair) -> None:
    pair.other.write("old", key="k")
    on(pair.primary, "DROP ROLE IF EXISTS a_reader")
    on(pair.primary, "CREATE ROLE a_reader LOGIN")
    with psycopg.connect(pair.primary.url, autocommit=True) as admin:
        admin.execute(granting("pgresults", "a_reader", Kind.READER))
    pair.meet()
    there, here = (server.url.replace("postgres@", "a_reader@") for server in (pair.primary, pair.standby))
    storage = PostgresStorage(there, pair.name, read_url=here)
    store = ResultStore(result_storage=storage)
    assert store.read("k", stale_ok=HOUR).result == "old"
    pair.pause()
    pair.other.write("new", key="k")
    assert store.read("k", stale_ok=HOUR).result == "old"
    storage.close()


def test_a_copy_from_another_process_reads_there_as_well(pair: Pair) -> None:
    store = pickle.loads(pickle.dumps(pair.behind()))
    assert store.result_storage.database.standby == pair.store().result_storage.database.standby
    assert store.read("k", stale_ok=HOUR).result == "new"  # what is known of the standby does not travel
    store.close()


def test_the_command_line_says_how_far_it_is_behind(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGRESULTS_DATABASE_URL", pair.primary.url)
    monkeypatch.setenv("PGRESULTS_READ_URL", pair.standby.url)
    pair.other.write(1, key="k")
    pair.meet()
    run = CliRunner().invoke
    assert _bytes_behind(run(app, ["db", "check"]).stdout) < 100_000
    pair.pause()
    pair.other.write(bytes(100_000), key="k")
    checked = run(app, ["db", "check"])
    assert checked.exit_code == 0
    assert _bytes_behind(checked.stdout) >= 100_000
    current = run(app, ["db", "current"])
    assert current.stdout.split() == [migrations.revisions()[-1]]
    assert "bytes behind" in current.stderr
    assert "bytes behind" not in run(app, ["--database-url", pair.primary.url, "db", "current"]).stderr
    monkeypatch.setenv("PGRESULTS_READ_URL", pair.primary.url)
    assert "serves no reads" in run(app, ["db", "check"]).stdout


def _bytes_behind(printed: str) -> int:
    (line,) = [line for line in printed.splitlines() if line.startswith("standby")]
    return int(line.split(" bytes behind")[0].split()[-1].replace(",", ""))


def test_the_command_line_reads_there(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGRESULTS_DATABASE_URL", pair.primary.url)
    monkeypatch.setenv("PGRESULTS_READ_URL", pair.standby.url)
    pair.other.write("a", key="k")
    pair.meet()
    before = _connections(pair.standby)
    for command in (["ls"], ["history", "k"], ["show", "k", "--version", "1"], ["log"]):
        done = CliRunner().invoke(app, ["--storage", pair.name, *command])
        assert done.exit_code == 0, done.output
        after = _connections(pair.standby)
        assert after > before, command
        before = after


def _connections(server: EmbeddedPostgres) -> int:
    return int(on(server, "SELECT sessions FROM pg_stat_database WHERE datname = 'postgres'")[0])


def test_what_is_no_time_is_refused(pair: Pair) -> None:
    for wrong in (5, timedelta(seconds=-1)):
        with pytest.raises(InvalidArgument, match="stale_ok"):
            pair.other.read("k", stale_ok=wrong)  # type: ignore[arg-type]


def test_an_outage_of_both_is_one(servers: Any) -> None:
    url = "postgresql://postgres@localhost:1/postgres"
    storage = PostgresStorage(url, read_url="postgresql://postgres@localhost:2/postgres")
    with pytest.raises(StorageUnavailable):
        ResultStore(result_storage=storage).read("k", stale_ok=HOUR)
