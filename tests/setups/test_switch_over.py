"""After a logical switch-over, which takes no sequences along: fences go on where they were."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest
from psycopg import sql
from sqlalchemy import URL

from pgresults import PostgresStorage, ResultStore
from pgresults.database import migrations
from pgresults.errors import SchemaVersionError
from pgresults.sql.grants import Kind, granting

NEW = "SELECT setval('pgresults.fence', 1, false), setval('pgresults.forgotten', 0)"


@pytest.fixture
def store(fresh_url: URL) -> Iterator[ResultStore]:
    storage = PostgresStorage(fresh_url)
    yield ResultStore(result_storage=storage, lock_manager=storage.lock_manager())
    storage.close()


def fence_of(store: ResultStore, key: str) -> int:
    """The fence that a write under a new lock has."""
    store.acquire_lock(key, "me")
    store.write(1, key=key, holder="me")
    store.release_lock(key, "me")
    return store.history(key)[-1].fence or 0


def test_a_sequence_that_began_anew_is_found_and_mended(fresh_url: URL, store: ResultStore, admin: Any) -> None:
    for _ in range(3):
        fence_of(store, "k")
    admin.execute(f"DELETE FROM pgresults.lock; {NEW}")
    with pytest.raises(SchemaVersionError, match="the next fence would be 1, but one of 3 was given before") as refusal:
        migrations.require_sound(fresh_url)
    assert refusal.value.command == "pgresults db upgrade"
    migrations.upgrade(fresh_url)
    assert migrations.require_sound(fresh_url) == []
    assert fence_of(store, "k") == 4
    migrations.upgrade(fresh_url)
    assert fence_of(store, "k") == 5


def test_the_documented_statement_mends_it_as_well(fresh_url: URL, store: ResultStore, admin: Any) -> None:
    fence_of(store, "k")
    fence_of(store, "k")
    admin.execute(NEW)
    newest = "greatest((SELECT max(fence) FROM pgresults.history), f.last_value)"
    admin.execute(f"SELECT setval('pgresults.fence', {newest}) FROM pgresults.fence f")
    assert migrations.require_sound(fresh_url) == []
    assert fence_of(store, "k") == 3


def test_one_that_is_behind_what_was_forgotten_is_found(fresh_url: URL, store: ResultStore, admin: Any) -> None:
    """With such fences no lock could be had before they have come up to it."""
    admin.execute("SELECT setval('pgresults.forgotten', 1000000)")
    with pytest.raises(SchemaVersionError, match="1000000"):
        migrations.require_sound(fresh_url)
    migrations.upgrade(fresh_url)
    assert fence_of(store, "k") == 1_000_001


def test_where_no_lock_was_ever_taken_nothing_is_behind(fresh_url: URL, store: ResultStore) -> None:
    """Sweeping forgets up to the newest fence, and a sequence stands at its first number before that was given."""
    store.write(1, key="k")
    store.sweep()
    assert migrations.require_sound(fresh_url) == []
    for number in (1, 2):
        fence_of(store, "k")
        store.sweep()
        assert migrations.require_sound(fresh_url) == [], number


def test_the_first_fence_is_missed_as_well(fresh_url: URL, store: ResultStore, admin: Any) -> None:
    assert fence_of(store, "k") == 1
    admin.execute(f"DELETE FROM pgresults.lock; {NEW}")
    with pytest.raises(SchemaVersionError, match="the next fence would be 1, but one of 1 was given before"):
        migrations.require_sound(fresh_url)


def test_what_is_ahead_stays_ahead(fresh_url: URL, store: ResultStore, admin: Any) -> None:
    admin.execute("SELECT setval('pgresults.fence', 1000)")
    fence_of(store, "k")
    fence_of(store, "l")
    admin.execute("UPDATE pgresults.lock SET released = true")
    migrations.upgrade(fresh_url)
    assert fence_of(store, "k") == 1003


def test_no_fence_goes_back_while_it_is_mended(fresh_url: URL, store: ResultStore, admin: Any) -> None:
    for _ in range(20):
        fence_of(store, "k")
    admin.execute(NEW)
    fences = []

    def work(number: int) -> None:
        fences.extend((number, fence_of(store, f"k{number}")) for _ in range(20))

    with ThreadPoolExecutor(3) as pool:
        working = [pool.submit(work, number) for number in range(2)]
        upgraded = pool.submit(migrations.upgrade, fresh_url)
        for one in (*working, upgraded):
            one.result(timeout=60)
    for number in range(2):
        of_one = [fence for by, fence in fences if by == number]
        assert of_one == sorted(set(of_one))
    assert len({fence for _, fence in fences}) == len(fences)


def test_who_may_not_see_it_is_not_refused(fresh_url: URL, store: ResultStore, admin: Any) -> None:
    fence_of(store, "k")
    admin.execute(NEW)
    role = f"pgresults_reader_{uuid4().hex[:8]}"
    name = sql.Identifier(role)
    admin.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'x'").format(name))
    admin.execute(granting("pgresults", role, Kind.READER))
    assert migrations.require_sound(fresh_url.set(username=role, password="x")) == []
    admin.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(name))
