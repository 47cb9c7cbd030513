"""Locks: the contract of every manager, and what those in Postgres add to it."""

import asyncio
import logging
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import URL

from pgresults.errors import ConfigurationError, InvalidArgument, InvalidKey, LockedError, LockLostError
from pgresults.locking import LockManager, MemoryLockManager, PostgresLockManager
from pgresults.settings import Settings
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.calls import Call
from tests.support.database import psycopg_url


@pytest.fixture
def postgres(shared_url: URL) -> Iterator[PostgresLockManager]:
    """A manager of locks that no other test takes."""
    manager = PostgresLockManager(shared_url, name=f"test-{uuid4().hex}")
    yield manager
    manager.close()
    manager.database.close()


@pytest.fixture(params=["postgres", "memory"])
def locks(request: pytest.FixtureRequest) -> LockManager:
    return request.getfixturevalue("postgres") if request.param == "postgres" else MemoryLockManager()


@pytest.fixture
def another(postgres: PostgresLockManager) -> Iterator[PostgresLockManager]:
    """What another process would have: the same locks, sessions of its own."""
    manager = pickle.loads(pickle.dumps(postgres))
    yield manager
    manager.close()
    manager.database.close()


@pytest.fixture
def guarded(storage: PostgresStorage) -> ResultStore:
    return ResultStore(result_storage=storage, lock_manager=storage.lock_manager())


async def watched(connection: psycopg.Connection[Any], query: str) -> None:
    """Return when a query gives a row."""
    while connection.execute(query).fetchone() is None:  # noqa: ASYNC110 (the server tells nobody)
        await asyncio.sleep(0)


ADVISORY = """pg_locks WHERE locktype = 'advisory'
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""
WAITING = f"SELECT FROM {ADVISORY} AND NOT granted AND pid <> pg_backend_pid()"


class TestContract:
    async def test_it_is_what_the_protocol_says(self, locks: LockManager) -> None:
        assert isinstance(locks, LockManager)

    async def test_one_holder_at_a_time(self, call: Call, locks: LockManager) -> None:
        assert await call(locks, "acquire_lock", "k", "a") is True
        assert await call(locks, "acquire_lock", "k", "b", acquire_timeout=0) is False
        assert await call(locks, "acquire_lock", "other", "b", acquire_timeout=0) is True
        await call(locks, "release_lock", "k", "a")
        assert await call(locks, "acquire_lock", "k", "b", acquire_timeout=0) is True

    async def test_the_present_holder_gets_it_at_once_and_nothing_changes(self, call: Call, locks: LockManager) -> None:
        for timeout in (None, 0, 5):
            assert await call(locks, "acquire_lock", "k", "a", timeout) is True
        await call(locks, "release_lock", "k", "a")
        assert await call(locks, "is_locked", "k") is False

    async def test_it_tells_who_holds(self, call: Call, locks: LockManager) -> None:
        for _ in range(2):
            assert await call(locks, "is_locked", "k") is False
            assert await call(locks, "is_lock_holder", "k", "a") is False
            assert await call(locks, "acquire_lock", "k", "a") is True
            assert await call(locks, "is_locked", "k") is True
            assert await call(locks, "is_lock_holder", "k", "a") is True
            assert await call(locks, "is_lock_holder", "k", "b") is False
            await call(locks, "release_lock", "k", "a")

    async def test_anothers_lock_cannot_be_released(self, call: Call, locks: LockManager) -> None:
        with pytest.raises(ValueError, match="does not hold"):
            await call(locks, "release_lock", "k", "a")
        await call(locks, "acquire_lock", "k", "a")
        with pytest.raises(ValueError, match="'b' does not hold"):
            await call(locks, "release_lock", "k", "b")
        assert await call(locks, "is_lock_holder", "k", "a")
        await call(locks, "release_lock", "k", "a")
        with pytest.raises(ValueError, match="does not hold"):
            await call(locks, "release_lock", "k", "a")

    @pytest.mark.timeout(20)
    async def test_zero_does_not_wait(self, call: Call, locks: LockManager) -> None:
        assert await call(locks, "wait_for_lock", "k", timeout=0) is True
        await call(locks, "acquire_lock", "k", "a")
        assert await call(locks, "acquire_lock", "k", "b", acquire_timeout=0) is False
        assert await call(locks, "wait_for_lock", "k", timeout=0) is False

    async def test_time_to_wait_ends(self, call: Call, locks: LockManager) -> None:
        await call(locks, "acquire_lock", "k", "a")
        assert await call(locks, "acquire_lock", "k", "b", acquire_timeout=0.05) is False
        assert await call(locks, "wait_for_lock", "k", timeout=0.05) is False
        await call(locks, "release_lock", "k", "a")
        assert await call(locks, "wait_for_lock", "k", timeout=0.05) is True

    async def test_nothing_never_locked_is_waited_for(self, call: Call, locks: LockManager) -> None:
        assert await call(locks, "wait_for_lock", "k") is True

    async def test_a_hold_ends_by_itself(self, call: Call, locks: LockManager) -> None:
        assert await call(locks, "acquire_lock", "k", "a", hold_timeout=0.1)
        assert await call(locks, "acquire_lock", "k", "b") is True
        assert await call(locks, "is_lock_holder", "k", "a") is False
        with pytest.raises(ValueError, match="does not hold"):
            await call(locks, "release_lock", "k", "a")
        assert await call(locks, "is_lock_holder", "k", "b") is True

    async def test_a_wait_ends_with_the_hold(self, call: Call, locks: LockManager) -> None:
        assert await call(locks, "acquire_lock", "k", "a", hold_timeout=0.1)
        assert await call(locks, "wait_for_lock", "k") is True
        assert await call(locks, "is_locked", "k") is False

    @pytest.mark.parametrize("seconds", [-1, float("nan"), "1"])
    async def test_times_that_are_none_are_refused(self, call: Call, locks: LockManager, seconds: Any) -> None:
        with pytest.raises(InvalidArgument):
            await call(locks, "acquire_lock", "k", "a", acquire_timeout=seconds)
        with pytest.raises(InvalidArgument):
            await call(locks, "acquire_lock", "k", "a", hold_timeout=seconds)
        with pytest.raises(InvalidArgument):
            await call(locks, "wait_for_lock", "k", seconds)
        assert await call(locks, "is_locked", "k") is False

    async def test_keys_that_are_none_are_refused(self, call: Call, locks: LockManager) -> None:
        with pytest.raises(InvalidKey):
            await call(locks, "acquire_lock", "", "a")

    async def test_a_waiting_task_gets_it_when_it_is_released(self, locks: LockManager) -> None:
        await locks.aacquire_lock("k", "a")
        acquiring = [asyncio.create_task(locks.aacquire_lock("k", f"b{n}")) for n in range(3)]
        waiting = asyncio.create_task(locks.await_for_lock("k"))
        await asyncio.sleep(0)
        await locks.arelease_lock("k", "a")
        while acquiring:
            done, _ = await asyncio.wait(acquiring, return_when=asyncio.FIRST_COMPLETED)
            assert len(done) == 1
            assert done.pop().result() is True
            acquiring = [task for task in acquiring if not task.done()]
            [holder] = [n for n in range(3) if await locks.ais_lock_holder("k", f"b{n}")]
            await locks.arelease_lock("k", f"b{holder}")
        assert await waiting is True

    def test_threads_take_turns(self, locks: LockManager) -> None:
        inside: list[str] = []

        def work(name: str) -> None:
            for _ in range(10):
                assert locks.acquire_lock("k", name)
                inside.append(name)
                assert inside == [name]
                inside.remove(name)
                locks.release_lock("k", name)

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(work, (f"t{n}" for n in range(6))))
        assert not locks.is_locked("k")

    async def test_a_cancelled_wait_leaves_nothing_held(self, locks: LockManager) -> None:
        await locks.aacquire_lock("k", "a")
        waiters = [asyncio.create_task(locks.aacquire_lock("k", f"b{n}")) for n in range(4)]
        for task in waiters:
            await asyncio.sleep(0.01)
            task.cancel()
        results = await asyncio.gather(*waiters, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results)
        await locks.arelease_lock("k", "a")
        assert await locks.ais_locked("k") is False
        assert await locks.aacquire_lock("k", "c", acquire_timeout=0) is True

    async def test_a_lock_is_taken_on_one_side_and_released_on_the_other(self, locks: LockManager) -> None:
        for _ in range(3):
            await asyncio.to_thread(locks.acquire_lock, "k", "a")
            await locks.arelease_lock("k", "a")
            await locks.aacquire_lock("k", "b")
            await asyncio.to_thread(locks.release_lock, "k", "b")
            assert await locks.ais_locked("k") is False
        await locks.aacquire_lock("k", "a")
        waiting = asyncio.create_task(asyncio.to_thread(locks.acquire_lock, "k", "c", 20))
        await asyncio.sleep(0.05)
        await asyncio.to_thread(locks.release_lock, "k", "a")
        assert await waiting is True

    def test_it_can_be_pickled(self, locks: LockManager) -> None:
        locks.acquire_lock("k", "a")
        copied = pickle.loads(pickle.dumps(locks))
        assert copied.is_locked("k") is isinstance(locks, PostgresLockManager)
        assert copied.acquire_lock("other", "b", 0)
        copied.release_lock("other", "b")
        if isinstance(copied, PostgresLockManager):
            assert copied == locks
            copied.close()
            copied.database.close()


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


class TestProcesses:
    HOLD = """
import sys
from pgresults.locking import PostgresLockManager
locks = PostgresLockManager(sys.argv[1], sys.argv[2])
print(locks.acquire_lock("k", sys.argv[3], 30), flush=True)
sys.stdin.readline()
"""

    @pytest.fixture
    def process(self, shared_url: URL, postgres: PostgresLockManager) -> Iterator[Callable[[str], Any]]:
        started = []

        def start(holder: str) -> Any:
            command = [sys.executable, "-c", self.HOLD, psycopg_url(shared_url), postgres.name, holder]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            started.append(subprocess.Popen(command, **pipes))
            return started[-1]

        yield start
        for process in started:
            process.kill()
            process.communicate()

    def test_another_process_is_another_holder(self, postgres: PostgresLockManager, process: Any) -> None:
        holder = process("there")
        assert holder.stdout.readline() == "True\n"
        assert postgres.acquire_lock("k", "here", 0) is False
        assert postgres.is_lock_holder("k", "there")

    def test_a_killed_holder_is_taken_over_from(
        self, postgres: PostgresLockManager, process: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        holder = process("there")
        assert holder.stdout.readline() == "True\n"
        holder.kill()
        assert postgres.acquire_lock("k", "here", 30) is True
        [record] = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert "taken over from there" in record.getMessage()

    def test_the_same_holder_may_be_in_two_processes(
        self, storage: PostgresStorage, shared_url: URL, process: Any, postgres: PostgresLockManager
    ) -> None:
        there = process("both")
        assert there.stdout.readline() == "True\n"
        assert postgres.acquire_lock("k", "both", 0) is True
        assert postgres._grant("k", "both") is not None
        postgres.release_lock("k", "both")
        assert postgres.is_locked("k") is False
        assert postgres.acquire_lock("k", "other", 0) is True

    def test_a_forked_child_begins_anew(self, postgres: PostgresLockManager) -> None:
        assert postgres.acquire_lock("k", "parent")
        queue = threading.Thread(target=postgres.acquire_lock, args=("k", "waiting", 30))
        queue.start()
        while not postgres._queues._lines:
            pass
        pid = os.fork()
        if pid == 0:
            try:
                fine = not postgres.acquire_lock("k", "child", 0.1)
                fine = fine and postgres.acquire_lock("other", "child", 0)
                os._exit(0 if fine and postgres._grant("k", "parent") is None else 1)
            finally:
                os._exit(2)
        assert os.waitpid(pid, 0)[1] == 0
        assert postgres.is_lock_holder("k", "parent")
        postgres.release_lock("k", "parent")
        queue.join()
        assert postgres.is_lock_holder("k", "waiting")
        assert postgres.acquire_lock("other", "parent", 5), "the child's lock died with it"


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
        session = postgres._sessions._process.loops[0].session.connection.info.backend_pid
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


class TestStores:
    async def test_without_a_manager_there_are_no_locks(self, call: Call, store: ResultStore) -> None:
        for name in ("acquire_lock", "release_lock", "is_locked", "is_lock_holder", "wait_for_lock"):
            with pytest.raises(ConfigurationError, match="no lock manager"):
                await call(store, name, "k")

    async def test_its_default_holder_is_the_thread(self, call: Call, guarded: ResultStore) -> None:
        assert await call(guarded, "acquire_lock", "k")
        assert await call(guarded, "is_lock_holder", "k")
        assert await call(guarded, "is_lock_holder", "k", holder=guarded.generate_default_holder())
        host, pid, thread, name = guarded.generate_default_holder().split(":")
        assert (int(pid), int(thread), name) == (os.getpid(), threading.get_ident(), threading.current_thread().name)
        assert host
        await call(guarded, "release_lock", "k")
        assert await call(guarded, "wait_for_lock", "k", 0)
        await guarded.result_storage.aclose()

    @pytest.mark.parametrize("method", ["write", "delete"])
    async def test_anothers_key_cannot_be_changed(self, call: Call, guarded: ResultStore, method: str) -> None:
        before = await call(guarded, "write", 1, key="k")
        await call(guarded, "acquire_lock", "k", "somebody")
        arguments = {"write": (2, "k"), "delete": ("k",)}[method]
        with pytest.raises(LockedError, match="locked by somebody since 20") as caught:
            await call(guarded, method, *arguments)
        assert (caught.value.key, caught.value.holder) == ("k", "somebody")
        assert caught.value.since >= before.created_at
        await call(guarded, "release_lock", "k", "somebody")
        await call(guarded, method, *arguments)
        await guarded.result_storage.aclose()

    async def test_a_lost_lock_is_no_proof(self, call: Call, guarded: ResultStore) -> None:
        await call(guarded, "acquire_lock", "k", hold_timeout=0.05)
        await call(guarded, "wait_for_lock", "k")
        with pytest.raises(LockLostError) as caught:
            await call(guarded, "write", 1, key="k")
        assert caught.value.fence > 0
        assert not await call(guarded, "exists", "k")
        await guarded.result_storage.aclose()

    async def test_a_lost_lock_is_no_proof_when_another_had_it_meanwhile(
        self, call: Call, guarded: ResultStore
    ) -> None:
        await call(guarded, "acquire_lock", "k", "late", hold_timeout=0.05)
        await call(guarded, "acquire_lock", "k", "other")
        await call(guarded, "write", "new", key="k", holder="other")
        await call(guarded, "release_lock", "k", "other")
        with pytest.raises(LockLostError):
            await call(guarded, "write", "stale", key="k", holder="late")
        assert (await call(guarded, "read", "k")).result == "new"
        await guarded.result_storage.aclose()

    async def test_a_dead_holder_keeps_nobody_from_writing(
        self, call: Call, guarded: ResultStore, storage: PostgresStorage
    ) -> None:
        dead = PostgresLockManager(storage.database, storage.name)
        await call(dead, "acquire_lock", "k", "dead")
        await call(dead, "close")
        while await call(guarded, "is_locked", "k"):
            pass
        assert (await call(guarded, "write", 1, key="k")).version == 1
        await guarded.result_storage.aclose()

    @pytest.mark.timeout(20)
    async def test_a_read_waits_for_another_holder(self, guarded: ResultStore, connection: Any) -> None:
        await guarded.awrite(1, key="k")
        await guarded.aacquire_lock("k", "writer")
        assert (await guarded.aread("k", holder="writer")).result == 1
        reading = asyncio.create_task(guarded.aread("k", holder="reader"))
        await watched(connection, WAITING)
        await guarded.awrite(2, key="k", holder="writer")
        await guarded.arelease_lock("k", "writer")
        assert (await reading).result == 2
        await guarded.result_storage.aclose()

    async def test_a_read_waits_as_long_as_the_settings_say(self, call: Call, shared_url: URL) -> None:
        storage = PostgresStorage(shared_url, f"test-{uuid4().hex}", settings=Settings(read_lock_timeout=0.05))
        store = ResultStore(result_storage=storage, lock_manager=storage.lock_manager())
        await call(store, "write", 1, key="k")
        await call(store, "acquire_lock", "k", "somebody")
        with pytest.raises(LockedError, match=r"0\.05 s"):
            await call(store, "read", "k", holder="reader")
        await storage.aclose()

    async def test_locks_may_live_elsewhere_than_results(self, call: Call, storage: PostgresStorage) -> None:
        store = ResultStore(result_storage=storage, lock_manager=MemoryLockManager())
        await call(store, "acquire_lock", "k", "somebody")
        with pytest.raises(LockedError):
            await call(store, "write", 1, key="k")
        assert (await call(store, "write", 1, key="k", holder="somebody")).version == 1
        await storage.aclose()


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
