"""Locks in Postgres: what they add to the contract."""

import asyncio
import logging
import os
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import URL

from pgresults.errors import ConfigurationError, InvalidArgument
from pgresults.locking import PostgresLockManager
from pgresults.settings import Settings
from tests.support.calls import Call
from tests.support.database import psycopg_url
from tests.support.locks import ADVISORY, watched


class TestCancellation:
    """Cancelled at every step it awaits, an acquire leaves nothing held, and a release nothing locked."""

    async def cancelled_after(self, steps: int, work: Any) -> bool:
        task = asyncio.ensure_future(work)
        for _ in range(steps):
            await asyncio.sleep(0)
        return task.cancel() and (await asyncio.gather(task, return_exceptions=True)) != [True]

    async def test_of_an_acquire(self, postgres: PostgresLockManager, another: PostgresLockManager) -> None:
        cancelled = 0
        while cancelled <= 5:  # a server that answers at once leaves few steps to be cancelled at: then once more
            for steps in range(60):
                if await self.cancelled_after(steps, postgres.aacquire_lock("k", "a")):
                    cancelled += 1
                    assert await another.ais_locked("k") is False
                    assert postgres._grant("k", "a") is None
                else:
                    await postgres.arelease_lock("k", "a")
        await postgres.aclose()
        await postgres.database.aclose()
        await another.database.aclose()

    async def test_of_a_release(self, postgres: PostgresLockManager, another: PostgresLockManager) -> None:
        for steps in range(40):
            await postgres.aacquire_lock("k", "a")
            await self.cancelled_after(steps, postgres.arelease_lock("k", "a"))
            held = await another.ais_locked("k")
            assert held is (postgres._grant("k", "a") is not None)
            assert held is False or steps == 0
            if held:
                await postgres.arelease_lock("k", "a")
        await postgres.aclose()
        await postgres.database.aclose()
        await another.database.aclose()


class TestPostgres:
    async def test_a_process_holds_so_many_locks(self, call: Call, shared_url: URL) -> None:
        locks = PostgresLockManager(shared_url, f"test-{uuid4().hex}", settings=Settings(max_locks=3))
        for n in range(3):
            await call(locks, "acquire_lock", f"k{n}", "a")
        with pytest.raises(ConfigurationError, match=r"holds 3 locks.*PGRESULTS_MAX_LOCKS"):
            await call(locks, "acquire_lock", "one too many", "a")
        assert await call(locks, "acquire_lock", "k0", "a", 0) is True
        assert await call(locks, "is_locked", "one too many") is False
        await call(locks, "release_lock", "k0", "a")
        assert await call(locks, "acquire_lock", "one too many", "a", 0) is True
        await locks.aclose()
        await locks.database.aclose()

    async def test_holders_have_names(self, call: Call, postgres: PostgresLockManager) -> None:
        for holder in ("", "a\0b", None):
            with pytest.raises(InvalidArgument):
                await call(postgres, "acquire_lock", "k", holder)

    async def test_storages_have_locks_of_their_own(self, call: Call, postgres: PostgresLockManager) -> None:
        other = PostgresLockManager(postgres.database, f"test-{uuid4().hex}")
        assert await call(postgres, "acquire_lock", "k", "a")
        assert await call(other, "acquire_lock", "k", "b", 0) is True
        await other.aclose()

    async def test_closing_ends_what_is_held(
        self, call: Call, postgres: PostgresLockManager, another: PostgresLockManager
    ) -> None:
        await call(postgres, "acquire_lock", "k", "a")
        await call(postgres, "close")
        assert await call(another, "acquire_lock", "k", "b", 10) is True
        await another.aclose()
        await postgres.database.aclose()
        await another.database.aclose()

    async def test_it_logs_what_happens(
        self, call: Call, postgres: PostgresLockManager, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "pgresults")
        await call(postgres, "acquire_lock", "k", "a", hold_timeout=0.05)
        await call(postgres, "acquire_lock", "k", "b")
        with pytest.raises(ValueError, match="does not hold"):
            await call(postgres, "release_lock", "k", "a")
        await call(postgres, "release_lock", "k", "b")
        acquired, taken_over, lost, released = (record.getMessage() for record in caplog.records)
        assert "'k' acquired by a after " in acquired
        assert ", fence " in acquired
        assert taken_over.endswith("taken over from a")
        assert "lost by a" in lost
        assert released == "lock of 'k' released by b"

    async def test_fences_grow(self, call: Call, postgres: PostgresLockManager) -> None:
        fences = []
        for holder in "abc":
            await call(postgres, "acquire_lock", "k", holder)
            fences.append(postgres._grant("k", holder).fence)
            await call(postgres, "release_lock", "k", holder)
        assert fences == sorted(set(fences))

    async def test_rows_of_released_locks_can_be_forgotten(
        self, call: Call, postgres: PostgresLockManager, connection: Any
    ) -> None:
        for n in range(5):
            await call(postgres, "acquire_lock", f"k{n}", "a")
        fence = postgres._grant("k4", "a").fence
        for n in range(1, 5):
            await call(postgres, "release_lock", f"k{n}", "a")
        counts = [await call(postgres, "forget_released", 3) for _ in range(3)]
        assert counts == [3, 1, 0]
        assert await call(postgres, "is_lock_holder", "k0", "a")
        assert await call(postgres, "acquire_lock", "k4", "b", 0)
        assert postgres._grant("k4", "b").fence > fence

    async def test_no_beacon_is_left(self, call: Call, postgres: PostgresLockManager, connection: Any) -> None:
        await call(postgres, "acquire_lock", "k", "a")
        beacon = postgres._grant("k", "a").beacon
        query = f"SELECT count(*) FROM {ADVISORY} AND objid = %s"
        assert connection.execute(query, [beacon & 0xFFFFFFFF]).fetchone() == (1,)
        await call(postgres, "release_lock", "k", "a")
        assert connection.execute(query, [beacon & 0xFFFFFFFF]).fetchone() == (0,)

    async def test_the_view_shows_holders_and_waiters(
        self, postgres: PostgresLockManager, another: PostgresLockManager, connection: Any
    ) -> None:
        query = "SELECT key, holder, fence, pid, waiters, backend_pid, expires_at FROM pgresults.held_locks"
        mine = f"{query} WHERE storage = '{postgres._storage_id}'"
        await postgres.aacquire_lock("k", "a")
        await postgres.aacquire_lock("expired", "a", hold_timeout=0)
        waiting = asyncio.create_task(another.aacquire_lock("k", "b"))
        await watched(connection, f"SELECT FROM ({mine}) mine WHERE waiters = 1")
        [row] = connection.execute(mine).fetchall()
        session = postgres._sessions._process.session.connection.info.backend_pid
        assert row == ("k", "a", postgres._grant("k", "a").fence, os.getpid(), 1, session, None)
        await postgres.arelease_lock("k", "a")
        assert await waiting
        assert [row[1] for row in connection.execute(mine).fetchall()] == ["b"]
        await another.arelease_lock("k", "b")
        assert connection.execute(mine).fetchall() == []
        for manager in (postgres, another):
            await manager.aclose()
            await manager.database.aclose()

    async def test_a_lost_session_loses_its_locks(
        self, call: Call, postgres: PostgresLockManager, another: PostgresLockManager, connection: Any
    ) -> None:
        await call(postgres, "acquire_lock", "k", "a")
        query = f"SELECT pg_terminate_backend(pid, 10000) FROM {ADVISORY} AND objid = %s"
        connection.execute(query, [postgres._grant("k", "a").beacon & 0xFFFFFFFF])
        assert await call(postgres, "is_locked", "k") is False
        assert await call(another, "acquire_lock", "k", "b", 0) is True
        assert await call(postgres, "acquire_lock", "k", "a", 0) is False
        with pytest.raises(ValueError, match="does not hold"):
            await call(postgres, "release_lock", "k", "a")
        for manager in (postgres, another):
            await manager.aclose()
            await manager.database.aclose()


class TestOpenTransactions:
    """A transaction of somebody's that has a part in a lock's row keeps nobody from other locks."""

    @pytest.fixture
    def row_lock(self, postgres: PostgresLockManager, connection: Any) -> Iterator[Any]:
        """A transaction that has proved the lock of k, which is free by now."""
        postgres.acquire_lock("k", "a")
        postgres.release_lock("k", "a")
        with connection.transaction():
            query = "SELECT FROM pgresults.lock WHERE storage_id = %s FOR SHARE"
            connection.execute(query, [postgres._storage_id])
            yield connection

    @pytest.mark.timeout(20)
    async def test_zero_does_not_wait(self, call: Call, postgres: PostgresLockManager, row_lock: Any) -> None:
        assert await call(postgres, "acquire_lock", "k", "b", 0) is False
        assert await call(postgres, "acquire_lock", "k", "b", 0.05) is False
        assert await call(postgres, "acquire_lock", "other", "b", 0) is True

    @pytest.mark.timeout(20)
    async def test_it_is_waited_for(self, postgres: PostgresLockManager, connection: Any, shared_url: URL) -> None:
        await postgres.aacquire_lock("k", "a")
        await postgres.arelease_lock("k", "a")
        with psycopg.connect(psycopg_url(shared_url)) as transaction:
            query = "SELECT FROM pgresults.lock WHERE storage_id = %s FOR SHARE"
            transaction.execute(query, [postgres._storage_id])
            waiting = asyncio.create_task(postgres.aacquire_lock("k", "b"))
            blocked = f"SELECT FROM pg_stat_activity WHERE {transaction.info.backend_pid} = ANY(pg_blocking_pids(pid))"
            await watched(connection, blocked)
            assert await postgres.aacquire_lock("other", "b", 0) is True
            assert not waiting.done()
        assert await waiting is True
        await postgres.aclose()
        await postgres.database.aclose()


@pytest.mark.timeout(100)
async def test_a_thousand_coroutines_share_few_connections(shared_url: URL, connection: Any) -> None:
    settings = Settings(pool_size=2, pool_overflow=1, lock_waiters=3)
    url = shared_url.update_query_dict({"application_name": f"many-{uuid4().hex}"})
    locks = PostgresLockManager(url, f"test-{uuid4().hex}", settings=settings)
    inside, done, most = set[str](), 0, 0
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"

    async def work(number: int) -> None:
        nonlocal done, most
        key, holder = f"k{number % 10}", f"h{number}"
        assert await locks.aacquire_lock(key, holder)
        assert key not in inside
        inside.add(key)
        if number % 50 == 0:
            most = max(most, connection.execute(query, [url.query["application_name"]]).fetchone()[0])
        await asyncio.sleep(0)
        inside.remove(key)
        await locks.arelease_lock(key, holder)
        done += 1

    await asyncio.gather(*map(work, range(1000)))
    assert done == 1000
    assert 1 < most <= settings.pool_size + settings.pool_overflow + settings.lock_waiters + 1
    assert not any([await locks.ais_locked(f"k{n}") for n in range(10)])
    await locks.aclose()
    await locks.database.aclose()
