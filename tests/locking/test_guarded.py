"""Nobody takes, releases or alters the lock of somebody who lives, but by breaking it, which leaves an entry."""

from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import URL

from pgresults.errors import ConfigurationError
from pgresults.locking import PostgresLockManager
from pgresults.sql.grants import Kind, granting
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from pgresults.transactions import transaction
from tests.support.calls import Call
from tests.support.database import psycopg_url

Say = Callable[..., Any]


@pytest.fixture(scope="module")
def urls(create_database: Callable[[], URL]) -> Iterator[dict[str, URL]]:
    """The same database as different users see it."""
    database = create_database()
    kinds = {"holder": Kind.WRITER, "other": Kind.WRITER, "sweeper": Kind.SWEEPER}
    names = {who: sql.Identifier(f"pgresults_{who}_{uuid4().hex[:8]}") for who in kinds}
    with psycopg.connect(psycopg_url(database), autocommit=True) as admin:
        for who, kind in kinds.items():
            admin.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'x'").format(names[who]))
            admin.execute(granting("pgresults", names[who].as_string(None).strip('"'), kind))
        found = {
            who: database.set(username=name.as_string(None).strip('"'), password="x") for who, name in names.items()
        }
        yield {**found, "admin": database}
        for name in names.values():
            admin.execute(sql.SQL("DROP OWNED BY {0} CASCADE; DROP ROLE {0}").format(name))


@pytest.fixture
def storage(urls: dict[str, URL]) -> Iterator[PostgresStorage]:
    storage = PostgresStorage(urls["holder"], f"test-{uuid4().hex}")
    yield storage
    storage.close()


@pytest.fixture
def manager(storage: PostgresStorage) -> PostgresLockManager:
    """Its user has the lock of k."""
    manager = storage.lock_manager()
    assert manager.acquire_lock("k", "me", 0)
    return manager


@pytest.fixture
def say(urls: dict[str, URL], storage: PostgresStorage) -> Iterator[Say]:
    """Says something by SQL as one of the users, in a session that is no holder's."""
    made = {who: psycopg.connect(psycopg_url(url), autocommit=True) for who, url in urls.items()}
    yield lambda who, statement: made[who].execute(statement, {"id": storage.id})
    for connection in made.values():
        connection.close()


MINE = "WHERE storage_id = %(id)s AND key = 'k'"
TAKEN = (
    "INSERT INTO pgresults.lock (storage_id, key, holder, fence, token, session, actor, pid, acquired_at, released)"
    " VALUES (%(id)s, 'k', 'another', nextval('pgresults.fence'), gen_random_uuid(), gen_random_uuid(), 'me', 1, now(),"
    " false) ON CONFLICT (storage_id, key) DO UPDATE SET holder = excluded.holder, fence = excluded.fence,"
    " token = excluded.token, beacon = NULL"
)
SILENT = {
    "release": f"UPDATE pgresults.lock SET released = true {MINE}",
    "release of all": "UPDATE pgresults.lock SET released = true",
    "take": TAKEN,
    "another holder": f"UPDATE pgresults.lock SET holder = 'another' {MINE}",
    "another token": f"UPDATE pgresults.lock SET token = gen_random_uuid() {MINE}",
    "a lower fence": f"UPDATE pgresults.lock SET fence = 0 {MINE}",
    "no beacon": f"UPDATE pgresults.lock SET beacon = NULL {MINE}",
    "another process": f"UPDATE pgresults.lock SET backend = 1 {MINE}",
    "an end": f"UPDATE pgresults.lock SET expires_at = now() {MINE}",
    "another user": f"UPDATE pgresults.lock SET db_user = session_user {MINE}",
    "another key": f"UPDATE pgresults.lock SET key = 'other' {MINE}",
    "delete": f"DELETE FROM pgresults.lock {MINE}",
    "a token that is none": "SELECT set_config('pgresults.token', gen_random_uuid()::text, false);"
    "UPDATE pgresults.lock SET released = true",
}


@pytest.mark.parametrize("way", SILENT)
@pytest.mark.parametrize("who", ["holder", "other", "sweeper"])
@pytest.mark.parametrize("lease", [False, True], ids=["held", "leased"])
def test_a_held_lock_stays_its_holders(manager: PostgresLockManager, say: Say, who: str, way: str, lease: bool) -> None:
    if lease:
        say("admin", f"UPDATE pgresults.lock SET beacon = NULL, expires_at = now() + interval '1 minute' {MINE}")
    before = say("admin", f"SELECT * FROM pgresults.lock {MINE}").fetchall()
    *prepared, silent = SILENT[way].split(";")
    for statement in prepared:
        say(who, statement)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        say(who, silent)
    assert say("admin", f"SELECT * FROM pgresults.lock {MINE}").fetchall() == before
    assert manager.is_lock_holder("k", "me")
    manager.release_lock("k", "me")


@pytest.mark.parametrize(("who", "released"), [("holder", True), ("other", False), ("sweeper", False)])
def test_a_token_counts_for_its_own_user(manager: PostgresLockManager, say: Say, who: str, released: bool) -> None:
    say(who, f"SELECT set_config('pgresults.token', token::text, false) FROM pgresults.lock {MINE}")
    try:
        say(who, SILENT["release"])
    except psycopg.errors.InsufficientPrivilege:
        assert not released
    assert manager.is_locked("k") is not released


def test_what_is_free_is_not_put_back(manager: PostgresLockManager, say: Say) -> None:
    manager.release_lock("k", "me")
    for who in ("holder", "other"):
        for change in ("released = false", "holder = 'another'", "expires_at = now() + interval '1 day'"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                say(who, f"UPDATE pgresults.lock SET {change} {MINE}")
    assert not manager.is_locked("k")


async def test_anybody_takes_what_is_free(
    call: Call, manager: PostgresLockManager, urls: dict[str, URL], say: Say
) -> None:
    """By release, by expiry and by its holder's death; the row says whose user has it now."""
    others = PostgresStorage(urls["other"], manager.name)
    other, whose = others.lock_manager(), f"SELECT db_user FROM pgresults.lock {MINE}"
    manager.release_lock("k", "me")
    assert await call(other, "acquire_lock", "k", "other", 0)
    assert say("admin", whose).fetchall() == [(urls["other"].username,)]
    await call(other, "release_lock", "k", "other")
    assert manager.acquire_lock("k", "me", 0, hold_timeout=0.001)
    assert await call(other, "acquire_lock", "k", "other", 5)
    assert not await call(manager, "is_lock_holder", "k", "me")
    say(
        "admin",
        f"SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = '{urls['other'].username}'",
    )
    assert await call(manager, "acquire_lock", "k", "me", 5)
    await others.aclose()


async def test_breaking_is_for_writers_and_leaves_an_entry(
    call: Call, manager: PostgresLockManager, urls: dict[str, URL], storage: PostgresStorage
) -> None:
    others = PostgresStorage(urls["other"], storage.name)
    assert (await call(others.lock_manager(), "break_lock", "k", "the test says so")).holder == "me"
    assert not await call(manager, "is_locked", "k")
    (entry,) = await call(ResultStore(result_storage=storage), "history", "k")
    assert (entry.action, entry.db_user, entry.holder) == ("break", urls["other"].username, "me")
    assert await call(manager, "acquire_lock", "k", "again", 0)
    with pytest.raises(ConfigurationError, match="permission denied"):
        await call(PostgresStorage(urls["sweeper"], storage.name).lock_manager(), "break_lock", "k", "no writer")
    assert await call(manager, "is_lock_holder", "k", "again")
    await others.aclose()


def test_the_entry_of_one_break_breaks_no_other_lock(manager: PostgresLockManager, say: Say) -> None:
    manager.break_lock("k", "once")
    assert manager.acquire_lock("k", "again", 0)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        say("holder", SILENT["release"])
    assert manager.is_lock_holder("k", "again")


async def test_a_holder_releases_from_elsewhere(
    call: Call, manager: PostgresLockManager, storage: PostgresStorage
) -> None:
    """In another process of its user's that says its name, and on a connection that is its user's."""
    elsewhere = PostgresStorage(storage.database.url(), storage.name)
    await call(elsewhere.lock_manager(), "release_lock", "k", "me")
    assert not await call(manager, "is_locked", "k")
    store = ResultStore(result_storage=storage, lock_manager=manager)
    with psycopg.connect(psycopg_url(storage.database.url())) as connection:
        with transaction("k", store=store, isolation_level="SERIALIZABLE", connection=connection) as tree:
            tree.stage(1)
        assert connection.info.transaction_status.name == "INTRANS"
    assert not manager.is_locked("k")
    assert store.read("k").result == 1
    await elsewhere.aclose()


async def test_a_number_that_is_taken_already_is_no_beacon(
    call: Call, manager: PostgresLockManager, say: Say, storage: PostgresStorage
) -> None:
    """The grant is given back, and asked for again under another number."""
    ((fence, beacon),) = say("admin", f"SELECT fence, beacon FROM pgresults.lock {MINE}").fetchall()
    ((last,),) = say("admin", "SELECT last_value FROM pgresults.fence").fetchall()
    for number in range(last + 1, last + 4):
        say("other", f"SELECT pg_advisory_lock({beacon - fence + number})")
    assert await call(manager, "acquire_lock", "another", "me", 5)
    ((taken,),) = say(
        "admin", "SELECT fence FROM pgresults.lock WHERE storage_id = %(id)s AND key = 'another'"
    ).fetchall()
    assert taken > last + 3
    await call(manager, "release_lock", "another", "me")
