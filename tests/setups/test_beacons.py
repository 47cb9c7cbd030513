"""Several schemas in one database, and other applications' advisory locks: a sign of life is its holder's."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import URL

from pgresults import PostgresStorage, ResultStore
from pgresults.database import migrations
from pgresults.locking import PostgresLockManager
from pgresults.sql.grants import Kind, granting
from pgresults.sql.schema import lock
from tests.support.calls import Call
from tests.support.database import psycopg_url

HOLDER = """
import os, sys
from pgresults import PostgresStorage
locks = PostgresStorage(sys.argv[1], schema=sys.argv[2]).lock_manager()
assert locks.acquire_lock("k", "the dead")
print(locks._grant("k", "the dead").beacon, flush=True)
os._exit(0)
"""
ENDED = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND (classid::bigint << 32 | objid::bigint) = %s"


def store_in(url: URL, schema: str = "pgresults") -> ResultStore:
    storage = PostgresStorage(url, schema=schema)
    return ResultStore(result_storage=storage, lock_manager=storage.lock_manager())


def dead_holder(url: URL, admin: psycopg.Connection[Any], schema: str = "pgresults") -> int:
    """Have a process take the lock of "k" and die; gives its beacon, when it is out."""
    command = [sys.executable, "-c", HOLDER, psycopg_url(url), schema]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    beacon = int(ended.stdout)
    while admin.execute(ENDED, [beacon]).fetchone() != (0,):
        pass
    return beacon


@pytest.mark.parametrize("other", ["team28", "anything"])
async def test_a_holder_in_another_schema_is_no_sign_of_life(
    call: Call, fresh_url: URL, admin: Any, other: str
) -> None:
    migrations.upgrade(fresh_url, other)
    for schema in ("pgresults", other):
        admin.execute(f"SELECT setval('{schema}.fence', 41)")
    dead_holder(fresh_url, admin)
    living, store = store_in(fresh_url, other), store_in(fresh_url)
    assert await call(living, "acquire_lock", "k", "the living")
    fences = [admin.execute(f"SELECT fence FROM {schema}.lock").fetchone() for schema in ("pgresults", other)]
    assert fences == [(42,), (42,)]
    assert not await call(store, "is_locked", "k")
    assert await call(store.lock_manager, "held_locks") == []
    assert await call(store, "acquire_lock", "k", "the next", 0)
    assert await call(living, "is_lock_holder", "k", "the living")
    for one in (living, store):
        await one.lock_manager.aclose()
        await one.result_storage.aclose()


@pytest.mark.parametrize("way", ["pg_advisory_lock(%s)", "pg_advisory_lock_shared(%s)"])
async def test_somebody_elses_lock_of_a_dead_holders_number_is_noticed(
    call: Call, fresh_url: URL, admin: Any, way: str
) -> None:
    store = store_in(fresh_url)
    store.write(1, key="k", expiration=datetime.now(UTC) - timedelta(hours=1))
    admin.execute(f"SELECT {way}", [dead_holder(fresh_url, admin)])
    assert not await call(store, "is_locked", "k")
    assert await call(store, "wait_for_lock", "k", 0)
    assert await call(store.lock_manager, "held_locks") == []
    assert store.sweep() == 1
    with psycopg.connect(psycopg_url(fresh_url)) as another:
        store.write(1, key="k", expiration=datetime.now(UTC) - timedelta(hours=1))
        assert another.execute("SELECT pgresults.sweep()").fetchone() == (1,)
    assert await call(store, "acquire_lock", "k", "the next", 0)
    await store.lock_manager.aclose()
    await store.result_storage.aclose()


@pytest.mark.parametrize("way", ["pg_advisory_lock(%s)", "pg_advisory_lock_shared(%s)"])
async def test_somebody_elses_lock_of_the_next_number_is_stepped_over(
    call: Call, fresh_url: URL, admin: Any, way: str
) -> None:
    beacon = dead_holder(fresh_url, admin)
    store = store_in(fresh_url)
    for number in range(1, 4):
        admin.execute(f"SELECT {way}", [beacon + number])
    assert await call(store, "acquire_lock", "k", "the next", 5)
    assert await call(store, "is_lock_holder", "k", "the next")
    another = store_in(fresh_url)
    assert not await call(another, "acquire_lock", "k", "another", 0)
    assert admin.execute("SELECT fence FROM pgresults.lock").fetchone() > (4,)
    for one in (store, another):
        await one.lock_manager.aclose()
        await one.result_storage.aclose()


def test_who_lives_is_believed_whatever_else_waits_for_the_number(fresh_url: URL, admin: Any) -> None:
    store = store_in(fresh_url)
    locks = store.lock_manager
    assert isinstance(locks, PostgresLockManager)
    assert locks.acquire_lock("k", "me")
    beacon = locks._grant("k", "me").beacon
    with psycopg.connect(psycopg_url(fresh_url), autocommit=True) as waiting:
        assert waiting.execute("SELECT pg_try_advisory_lock(%s)", [beacon]).fetchone() == (False,)
    assert store_in(fresh_url).is_locked("k")
    assert not store_in(fresh_url).acquire_lock("k", "another", 0)
    locks.release_lock("k", "me")


def test_fences_beyond_the_numbers_of_beacons_go_on(fresh_url: URL, admin: Any) -> None:
    admin.execute("SELECT setval('pgresults.fence', %s)", [2**32 - 2])
    store = store_in(fresh_url)
    held = [f"k{number}" for number in range(4)]
    for key in held:
        assert store.acquire_lock(key, "me")
    another = store_in(fresh_url)
    assert [another.acquire_lock(key, "another", 0) for key in held] == [False] * 4
    fences = [fence for (fence,) in admin.execute("SELECT fence FROM pgresults.lock ORDER BY fence").fetchall()]
    assert fences == [2**32 - 1, 2**32, 2**32 + 1, 2**32 + 2]
    for key in held:
        store.release_lock(key, "me")
        assert another.acquire_lock(key, "another", 0)


def test_locks_from_before_the_process_was_named_are_believed_as_they_were(fresh_url: URL, admin: Any) -> None:
    store = store_in(fresh_url)
    assert store.acquire_lock("k", "me")
    admin.execute("UPDATE pgresults.lock SET backend = NULL")
    another = store_in(fresh_url)
    assert another.is_locked("k")
    assert not another.acquire_lock("k", "another", 0)
    assert [held.key for held in another.lock_manager.held_locks()] == ["k"]
    store.lock_manager.close()
    assert another.acquire_lock("k", "another", 5)


def test_who_could_see_locks_before_still_can(empty_url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that keeps a beacon stands in a column that came later than the roles."""
    role, password = f"pgresults_reader_{uuid4().hex[:8]}", uuid4().hex
    with monkeypatch.context() as patched:
        patched.setattr(migrations, "REVISION", "0007")
        migrations.upgrade(empty_url)
    with psycopg.connect(psycopg_url(empty_url), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(role), sql.Literal(password)))
        shown = ", ".join(name for name in lock.c.keys() if name not in ("token", "backend", "db_user"))  # noqa: SIM118
        admin.execute(f"GRANT USAGE ON SCHEMA pgresults TO {role}; GRANT SELECT ({shown}) ON pgresults.lock TO {role}")
        admin.execute(f"GRANT SELECT ON pgresults.schema_version TO {role}")
        migrations.upgrade(empty_url)
        holder, reader = store_in(empty_url), store_in(empty_url.set(username=role, password=password))
        assert holder.acquire_lock("k", "me")
        assert reader.is_locked("k")
        for one in (holder, reader):
            one.lock_manager.close()
            one.result_storage.close()
        admin.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_a_mere_writer_notices_it_as_well(fresh_url: URL, admin: Any) -> None:
    role, password = f"pgresults_writer_{uuid4().hex[:8]}", uuid4().hex
    name = sql.Identifier(role)
    admin.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(name, sql.Literal(password)))
    admin.execute(granting("pgresults", role, Kind.WRITER))
    store = store_in(fresh_url.set(username=role, password=password))
    admin.execute("SELECT pg_advisory_lock(%s)", [dead_holder(fresh_url, admin)])
    assert store.acquire_lock("k", "the next", 0)
    another = store_in(fresh_url.set(username=role, password=password))
    assert not another.acquire_lock("k", "another", 0)
    store.release_lock("k", "the next")
    for one in (store, another):
        one.lock_manager.close()
        one.result_storage.close()
    admin.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(name))
