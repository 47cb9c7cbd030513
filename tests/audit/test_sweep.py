"""What has expired or was superseded is taken away in batches, by anybody, and its history stays."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL

from pgresults.errors import InvalidArgument, LockedError, MissingResult
from pgresults.records.provenance import actor
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.database import psycopg_url

HOUR = timedelta(hours=1)


def payloads(connection: Any, store: ResultStore) -> int:
    query = "SELECT count(*) FROM pgresults.payload WHERE storage_id = %s AND chunk = 0"
    return int(connection.execute(query, [store.result_storage.id]).fetchone()[0])


def fill(store: ResultStore, count: int, expiration: datetime | None, prefix: str = "e") -> None:
    for n in range(count):
        store.write(n, key=f"{prefix}{n}", expiration=expiration)


async def test_a_sweep_takes_what_has_expired(call: Any, store: ResultStore, connection: Any) -> None:
    now = datetime.now(UTC)
    fill(store, 7, now - HOUR)
    fill(store, 3, now + HOUR, "live")
    fill(store, 2, None, "ever")
    store.write(bytes(2_500_000), key="large", expiration=now - HOUR)
    assert await call(store, "sweep", dry_run=True) == 8
    batches: list[int] = []
    assert await call(store, "sweep", batch_size=3, progress=batches.append) == 8
    assert batches == [3, 3, 2]
    assert await call(store, "sweep") == 0
    assert payloads(connection, store) == 5
    with pytest.raises(MissingResult) as miss:
        await call(store, "read", "e1")
    assert miss.value.reason == "expired"
    assert f"expired, and was swept at {miss.value.at} by {miss.value.by}" in str(miss.value)  # not then did it expire
    steps = await call(store, "history", "large")
    assert [(s.action, s.version, s.actor) for s in steps] == [("write", 1, actor()), ("expire", 1, actor())]
    assert (await call(store, "verify")).intact


async def test_a_swept_key_goes_on_counting(call: Any, store: ResultStore) -> None:
    await call(store, "write", 1, key="k", expiration=datetime.now(UTC) - HOUR)
    await call(store, "sweep")
    assert (await call(store, "write", 2, key="k")).version == 2


async def test_earlier_versions_of_what_is_swept_stay(call: Any, store: ResultStore) -> None:
    await call(store, "write", 1, key="k")
    await call(store, "write", 2, key="k", expiration=datetime.now(UTC) - HOUR)
    await call(store, "sweep")
    assert (await call(store, "read", "k", version=1)).result == 1


async def test_a_sweep_keeps_to_its_storage(call: Any, store: ResultStore, shared_url: URL) -> None:
    other = ResultStore(result_storage=PostgresStorage(shared_url, name=f"{store.result_storage.name} 2"))
    for one in (store, other):
        one.write(1, key="k", expiration=datetime.now(UTC) - HOUR)
    assert await call(store, "sweep") == 1
    assert other.sweep(dry_run=True) == 1
    other.result_storage.close()


@pytest.mark.parametrize("size", [0, -1, "1", 10**9])
async def test_a_batch_size_that_cannot_be_is_refused(call: Any, store: ResultStore, size: Any) -> None:
    with pytest.raises(InvalidArgument):
        await call(store, "sweep", batch_size=size)


def test_many_may_sweep_at_once(store: ResultStore, connection: Any) -> None:
    fill(store, 60, datetime.now(UTC) - HOUR)
    start = threading.Barrier(4)

    def sweep(_: int) -> int:
        start.wait()
        return store.sweep(batch_size=4)

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(sweep, range(4))) == 60
    assert payloads(connection, store) == 0
    assert store.verify().findings == ()
    assert all(len(store.history(f"e{n}")) == 2 for n in range(60))


def test_a_row_in_use_is_left_for_later(store: ResultStore, connection: Any) -> None:
    fill(store, 3, datetime.now(UTC) - HOUR)
    with connection.transaction():
        query = "SELECT 1 FROM pgresults.result WHERE storage_id = %s AND key = 'e1' FOR UPDATE"
        connection.execute(query, [store.result_storage.id])
        assert store.sweep() == 2
    assert store.sweep() == 1


def test_a_database_can_sweep_by_itself(fresh_url: URL) -> None:
    storage = PostgresStorage(fresh_url)
    store = ResultStore(result_storage=storage)
    fill(store, 5, datetime.now(UTC) - HOUR)
    with psycopg.connect(psycopg_url(fresh_url), autocommit=True) as connection:
        assert connection.execute("SELECT pgresults.sweep(3)").fetchone() == (3,)
        assert connection.execute("SELECT pgresults.sweep()").fetchone() == (2,)
        (user,) = connection.execute("SELECT session_user::text").fetchone()
    (_, step) = store.history("e1")
    assert (step.action, step.actor, step.db_user) == ("expire", user, user)
    assert store.verify().findings == ()
    storage.close()


# What expires


async def test_what_expires_soon_is_listed_in_order(call: Any, store: ResultStore) -> None:
    now = datetime.now(UTC)
    for key, left in (("b", 2), ("a", 3), ("past", -1), ("far", 50)):
        await call(store, "write", key, key=key, expiration=now + left * HOUR)
    await call(store, "write", 1, key="ever")
    listed = await call(store, "expiring", timedelta(days=1))
    assert [(row.key, row.version, row.expires_at) for row in listed] == [
        ("b", 1, now + 2 * HOUR),
        ("a", 1, now + 3 * HOUR),
    ]
    assert [row.key for row in await call(store, "expiring", timedelta(days=1), limit=1)] == ["b"]
    with pytest.raises(InvalidArgument):
        await call(store, "expiring", 7)


# Locks


@pytest.fixture
def holder(store: ResultStore) -> ResultStore:
    """A store with locks, over the same storage."""
    return store.model_copy(update={"lock_manager": store.result_storage.lock_manager()})


async def test_a_sweep_leaves_locked_keys_alone(call: Any, store: ResultStore, holder: ResultStore) -> None:
    fill(store, 3, datetime.now(UTC) - HOUR)
    await call(holder, "acquire_lock", "e0", holder="somebody")
    await call(holder, "acquire_lock", "e1")
    await call(holder, "acquire_lock", "e2", holder="somebody", hold_timeout=0.001)
    while await call(holder, "is_locked", "e2"):
        pass
    assert await call(store, "sweep", dry_run=True) == 2
    assert await call(store, "sweep") == 2
    await call(holder, "release_lock", "e0", holder="somebody")
    assert await call(store, "sweep") == 1


def test_a_sweep_by_the_database_knows_no_holder(store: ResultStore, holder: ResultStore, connection: Any) -> None:
    fill(store, 1, datetime.now(UTC) - HOUR)
    swept = ("SELECT pgresults.sweep(10, %s)", [store.result_storage.id])
    holder.acquire_lock("e0")
    assert connection.execute(*swept).fetchone() == (0,)
    holder.release_lock("e0")
    assert connection.execute(*swept).fetchone() == (1,)


async def test_the_dead_lock_nothing(call: Any, store: ResultStore, fresh_url: URL, connection: Any) -> None:
    fill(store, 1, datetime.now(UTC) - HOUR)
    other = PostgresStorage(store.result_storage.database.url(), store.result_storage.name)
    assert ResultStore(result_storage=other, lock_manager=other.lock_manager()).acquire_lock("e0", holder="somebody")
    assert await call(store, "sweep") == 0
    held = "SELECT backend_pid FROM pgresults.held_locks WHERE key = 'e0' AND storage = %s"
    ((backend,),) = connection.execute(held, [other.name]).fetchall()
    connection.execute("SELECT pg_terminate_backend(%s::int)", [backend])
    while connection.execute(held, [other.name]).fetchall():
        pass
    assert await call(store, "sweep") == 1
    other.close()


async def test_retention_leaves_locked_keys_alone(call: Any, store: ResultStore, holder: ResultStore) -> None:
    for key in ("a", "b"):
        for n in range(3):
            await call(store, "write", n, key=key)
    await call(holder, "acquire_lock", "a", holder="somebody")
    await call(holder, "acquire_lock", "b")
    assert await call(store, "retain", versions=1, dry_run=True) == 2
    assert await call(store, "retain", versions=1) == 2
    assert (await call(store, "read", "a", version=1)).result == 0
    await call(holder, "release_lock", "a", holder="somebody")
    assert await call(store, "retain", versions=1) == 2


async def test_who_has_locks_invalidates_no_locked_result(call: Any, store: ResultStore, holder: ResultStore) -> None:
    for n in range(3):
        await call(store, "write", n, key=f"k{n}")
    await call(holder, "acquire_lock", "k0")
    await call(holder, "acquire_lock", "k1", holder="somebody")
    with pytest.raises(LockedError) as refusal:
        await call(holder, "invalidate", prefix="k")
    assert (refusal.value.key, refusal.value.holder) == ("k1", "somebody")
    assert len(await call(store, "find")) == 3
    assert await call(holder, "invalidate", prefix="k2") == 1
    await call(holder, "release_lock", "k1", holder="somebody")
    assert await call(holder, "invalidate", prefix="k") == 2
    assert await call(holder, "invalidate", prefix="k") == 0


async def test_a_store_without_locks_asks_for_none(call: Any, store: ResultStore, holder: ResultStore) -> None:
    await call(store, "write", 1, key="k")
    await call(holder, "acquire_lock", "k", holder="somebody")
    assert await call(store, "invalidate", prefix="k") == 1


async def test_the_lock_of_the_dead_does_not_keep_a_result(
    call: Any, store: ResultStore, holder: ResultStore, connection: Any
) -> None:
    await call(store, "write", 1, key="k")
    await call(holder, "acquire_lock", "k", holder="somebody")
    connection.execute(  # as one whose beacon went out
        "UPDATE pgresults.lock SET beacon = -fence WHERE storage_id = %s", [store.result_storage.id]
    )
    assert await call(holder, "invalidate", prefix="k") == 1


async def test_what_has_expired_is_no_more_to_be_deleted(call: Any, store: ResultStore) -> None:
    fill(store, 1, datetime.now(UTC) - HOUR)
    assert not await call(store, "delete", "e0")
    assert await call(store, "invalidate", prefix="e") == 0
    assert [step.action for step in await call(store, "history", "e0")] == ["write"]
    assert await call(store, "sweep") == 1


# Retention


async def test_retaining_keeps_the_last_versions(call: Any, store: ResultStore, connection: Any) -> None:
    for n in range(1, 6):
        await call(store, "write", n, key="k")
    await call(store, "write", 1, key="single")
    assert await call(store, "retain", versions=2, dry_run=True) == 3
    assert payloads(connection, store) == 6
    assert await call(store, "retain", versions=2) == 3
    assert await call(store, "retain", versions=2) == 0
    assert payloads(connection, store) == 3
    assert (await call(store, "read", "k")).result == 5
    assert (await call(store, "read", "k", version=4)).result == 4
    with pytest.raises(MissingResult) as miss:
        await call(store, "read", "k", version=3)
    assert miss.value.reason == "not retained"
    last = (await call(store, "history", "k"))[-1]
    assert (last.action, last.version, last.reason) == ("retain", 5, "payloads of versions up to 3")
    assert [step.action for step in await call(store, "history", "single")] == ["write"]
    assert (await call(store, "verify")).intact


async def test_retaining_by_age_counts_from_when_a_version_was_superseded(
    call: Any, store: ResultStore, connection: Any
) -> None:
    for key in ("k", "deleted"):
        for n in range(2):
            await call(store, "write", n, key=key)
    await call(store, "touch", "k", datetime.now(UTC) + HOUR)
    await call(store, "delete", "deleted")
    assert await call(store, "retain", age=HOUR) == 0
    assert await call(store, "retain", age=timedelta(0)) == 3
    assert (await call(store, "read", "k")).result == 1
    assert payloads(connection, store) == 1
    deletion, last = (await call(store, "history", "deleted"))[-2:]
    assert (deletion.action, last.action) == ("delete", "retain")
    for arguments in ({}, {"as_of": last.at}):
        with pytest.raises(MissingResult) as miss:
            await call(store, "read", "deleted", **arguments)
        assert (miss.value.reason, miss.value.at) == ("deleted", deletion.at)
    assert (await call(store, "verify")).intact


async def test_retaining_goes_through_all_keys(call: Any, store: ResultStore, connection: Any) -> None:
    items = [f"k{n}" for n in range(520)]
    for key in items[:3] + items[-3:]:
        await call(store, "write", 1, key=key)
        await call(store, "write", 2, key=key)
    for key in items[3:-3]:
        store.write(1, key=key)
    pages: list[int] = []
    assert await call(store, "retain", versions=1, progress=pages.append) == 6
    assert pages == [500, 20]
    assert payloads(connection, store) == 520


@pytest.mark.parametrize("wrong", [{}, {"versions": 0}, {"versions": "2"}, {"age": 7}, {"age": timedelta(seconds=-1)}])
async def test_retention_needs_a_bound(call: Any, store: ResultStore, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        await call(store, "retain", **wrong)
