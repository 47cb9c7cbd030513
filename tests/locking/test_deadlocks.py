"""Who waits for each other is found, and ended for one of them, so that the others go on."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import URL

from pgresults.errors import DeadlockDetected, LockedError
from pgresults.locking import MemoryLockManager, PostgresLockManager
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from pgresults.transactions import transaction
from tests.support.calls import Call
from tests.support.database import psycopg_url
from tests.support.transactions import SERIALIZABLE

pytestmark = pytest.mark.timeout(60)

LONGEST = 3.0
"""Seconds from the cycle to its end."""


@contextmanager
def ends_soon() -> Iterator[None]:
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < LONGEST


def waiting(connection: Any, store: ResultStore) -> list[tuple[str, str]]:
    query = "SELECT key, holder FROM pgresults.waiting WHERE storage_id = %s ORDER BY key, holder"
    return connection.execute(query, [store.result_storage.id]).fetchall()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0)


def nobody_waits(connection: Any, store: ResultStore) -> None:
    """Wait until all rows are gone: whoever stops waiting does not wait for that, too."""
    while waiting(connection, store):
        pass


def told(error: DeadlockDetected, holder: str) -> str:
    """What an error says that a holder was told, who waits for b with a, or for a with b."""
    assert error.keys in (("a", "b"), ("b", "a"))
    assert (error.key, error.holder) == (error.keys[0], error.holders[0])
    assert error.holders[1] == holder
    return "deadlock"


class TestNestedTransactions:
    def work(self, store: ResultStore, first: str, second: str, both: threading.Barrier) -> str:
        try:
            with transaction(first, store, isolation_level=SERIALIZABLE) as outer:
                both.wait()
                with transaction(second, store, isolation_level=SERIALIZABLE) as inner:
                    inner.stage(second)
                outer.stage(first)
        except DeadlockDetected as error:
            return told(error, outer.holder)
        return "stored"

    def test_in_threads(self, locking: ResultStore, connection: Any) -> None:
        both = threading.Barrier(2)
        with ThreadPoolExecutor(2) as threads, ends_soon():
            works = [threads.submit(self.work, locking, *keys, both) for keys in ("ab", "ba")]
            assert sorted(work.result() for work in works) == ["deadlock", "stored"]
        assert locking.exists("a")
        assert locking.exists("b")
        assert not locking.is_locked("a")
        nobody_waits(connection, locking)

    async def test_in_coroutines(self, locking: ResultStore, connection: Any) -> None:
        arrived: list[str] = []
        both = asyncio.Event()

        async def work(first: str, second: str) -> str:
            try:
                async with transaction(first, locking, isolation_level=SERIALIZABLE) as outer:
                    arrived.append(first)
                    if len(arrived) == 2:
                        both.set()
                    await both.wait()
                    async with transaction(second, locking, isolation_level=SERIALIZABLE) as inner:
                        inner.stage(second)
                    outer.stage(first)
            except DeadlockDetected as error:
                return told(error, outer.holder)
            return "stored"

        with ends_soon():
            assert sorted(await asyncio.gather(work("a", "b"), work("b", "a"))) == ["deadlock", "stored"]
        nobody_waits(connection, locking)
        await locking.result_storage.aclose()

    PROCESS = """
import sys
from pgresults.errors import DeadlockDetected
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from pgresults.transactions import IsolationLevel, transaction

storage = PostgresStorage(sys.argv[1], sys.argv[2])
store = ResultStore(result_storage=storage, lock_manager=storage.lock_manager())
first, second = sys.argv[3]
try:
    with transaction(first, store, isolation_level=IsolationLevel.SERIALIZABLE) as outer:
        print("holds", flush=True)
        sys.stdin.readline()
        with transaction(second, store) as inner:
            inner.stage(second)
        outer.stage(first)
except DeadlockDetected as error:
    print("deadlock", flush=True)
else:
    print("stored", flush=True)
"""

    @pytest.mark.parametrize("order", [("ab", "ba"), pytest.param(("ab", "bc", "ca"), marks=pytest.mark.slow)])
    def test_in_processes(self, guarded: ResultStore, shared_url: URL, order: tuple[str]) -> None:
        start = [sys.executable, "-c", self.PROCESS, psycopg_url(shared_url), guarded.result_storage.name]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        processes = [subprocess.Popen([*start, keys], **pipes) for keys in order]
        for process in processes:
            assert process.stdout.readline() == "holds\n"
        with ends_soon():
            for process in processes:
                process.stdin.write("\n")
                process.stdin.flush()
            outcomes = sorted(process.stdout.readline() for process in processes)
        assert outcomes == ["deadlock\n"] + ["stored\n"] * (len(order) - 1)
        for process in processes:
            process.communicate()
        # A process may end before it has said that it waits no more: what is left then counts for nothing.
        assert guarded.lock_manager.held_locks() == []


class TestCycles:
    """Of plain locks, by holders with names."""

    def cross(self, *wishes: Callable[[], bool]) -> list[Any]:
        """What crosswise wishes come to, each in a thread; a refused one is given up."""
        with ThreadPoolExecutor(len(wishes)) as threads, ends_soon():
            done = [threads.submit(wish) for wish in wishes]
            outcomes, _ = wait(done, return_when="FIRST_EXCEPTION")
            return [future.exception() for future in outcomes if future.exception()]

    def test_over_storages(self, shared_url: URL, connection: Any) -> None:
        one, two = (PostgresLockManager(shared_url, f"test-{uuid4().hex}") for _ in range(2))
        one.acquire_lock("k", "x")
        two.acquire_lock("k", "y")

        def take(locks: PostgresLockManager, holder: str, own: PostgresLockManager) -> bool:
            try:
                return locks.acquire_lock("k", holder)
            finally:
                own.release_lock("k", holder)

        [error] = self.cross(lambda: take(two, "x", one), lambda: take(one, "y", two))
        assert isinstance(error, DeadlockDetected)
        assert set(error.holders) == {"x", "y"}
        for manager in (one, two):
            manager.close()
            manager.database.close()

    async def test_of_those_who_stand_in_line(self, call: Call, postgres: PostgresLockManager) -> None:
        """The one who closes the cycle is not the first who waits in its process."""
        await call(postgres, "acquire_lock", "a", "one")
        await call(postgres, "acquire_lock", "b", "two")
        first = asyncio.create_task(asyncio.to_thread(postgres.acquire_lock, "b", "bystander", 20))
        await until(lambda: "b" in postgres._queues._lines)
        other = asyncio.create_task(postgres.aacquire_lock("a", "two"))
        await until(lambda: "a" in postgres._queues._lines)
        with ends_soon(), pytest.raises(DeadlockDetected) as caught:
            await postgres.aacquire_lock("b", "one")
        assert (caught.value.keys, caught.value.holders) == (("b", "a"), ("two", "one"))
        assert not first.done()
        await postgres.arelease_lock("a", "one")
        assert await other is True
        await postgres.arelease_lock("b", "two")
        assert await first is True
        await postgres.aclose()
        await postgres.database.aclose()

    async def test_of_readers(self, locking: ResultStore) -> None:
        for key in "ab":
            await locking.awrite(0, key=key)

        both = threading.Barrier(2)

        async def read(own: str, other: str) -> Any:
            async with transaction(own, locking, isolation_level=SERIALIZABLE, overwrite=True) as txn:
                txn.stage(1)
                await asyncio.to_thread(both.wait)
                return (await locking.aread(other)).result

        with ends_soon():
            outcomes = await asyncio.gather(read("a", "b"), read("b", "a"), return_exceptions=True)
        [error] = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
        assert isinstance(error, DeadlockDetected)
        assert [outcome for outcome in outcomes if outcome is not error] == [0]
        await locking.result_storage.aclose()

    async def test_who_only_waits_long_is_left_alone(self, locking: ResultStore, connection: Any) -> None:
        await locking.aacquire_lock("a", "one")
        await locking.aacquire_lock("b", "two")
        waits = [
            asyncio.create_task(locking.aacquire_lock("a", "two")),
            asyncio.create_task(locking.aacquire_lock("a", "three")),
            asyncio.create_task(locking.aacquire_lock("b", "three")),
        ]
        _, pending = await asyncio.wait(waits, timeout=2.5)  # as long as a cycle would have lived
        assert len(pending) == 3
        await locking.arelease_lock("b", "two")
        assert await waits[2]
        await locking.arelease_lock("a", "one")
        done, pending = await asyncio.wait(waits[:2], return_when=asyncio.FIRST_COMPLETED)
        assert all(task.result() for task in done)
        await locking.arelease_lock("a", "two" if waits[0].done() else "three")
        await pending.pop()
        await locking.result_storage.aclose()

    async def test_a_dead_process_waits_for_nobody(self, postgres: PostgresLockManager, connection: Any) -> None:
        await postgres.aacquire_lock("a", "one")
        await postgres.aacquire_lock("b", "two")
        times = "now() - interval '1 hour', now() - %s::interval"
        row = f"INSERT INTO pgresults.waiting VALUES (%s, 'a', %s, 'two', false, {times})"
        connection.execute(row, [postgres._storage_id, uuid4(), "20 s"])
        assert await postgres.aacquire_lock("b", "one", 2.5) is False
        connection.execute(row, [postgres._storage_id, uuid4(), "0 s"])
        with pytest.raises(DeadlockDetected):
            await postgres.aacquire_lock("b", "one", 20)
        await postgres.aclose()
        await postgres.database.aclose()


class TestWaiters:
    async def test_they_are_listed(self, postgres: PostgresLockManager, connection: Any) -> None:
        await postgres.aacquire_lock("k", "holder")
        waiters = [asyncio.create_task(postgres.aacquire_lock("k", f"waiter {n}")) for n in range(3)]
        waiters.append(asyncio.create_task(postgres.await_for_lock("k")))
        await until(lambda: len(postgres.held_locks()[0].waiting_holders) == 4)
        [held] = await postgres.aheld_locks()
        assert held.holder == "holder"
        assert set(held.waiting_holders) > {f"waiter {n}" for n in range(3)}
        for waiter in waiters:
            waiter.cancel()
        await asyncio.gather(*waiters, return_exceptions=True)
        await until(lambda: not postgres.held_locks()[0].waiting_holders)
        await postgres.arelease_lock("k", "holder")
        await postgres.aclose()
        await postgres.database.aclose()

    async def test_a_row_goes_when_the_time_is_up(
        self, call: Call, postgres: PostgresLockManager, connection: Any
    ) -> None:
        await call(postgres, "acquire_lock", "k", "holder")
        assert await call(postgres, "acquire_lock", "k", "waiter", 1.2) is False
        rows = "SELECT FROM pgresults.waiting WHERE storage_id = %s"
        while connection.execute(rows, [postgres._storage_id]).fetchall():
            pass
        await postgres.aclose()
        await postgres.database.aclose()

    async def test_who_need_not_wait_is_not_written_down(self, postgres: PostgresLockManager) -> None:
        assert postgres.acquire_lock("k", "holder")
        assert postgres.acquire_lock("k", "other", 0) is False
        postgres.release_lock("k", "holder")
        assert postgres._watch._thread is None


class TestLockTimeout:
    @pytest.mark.parametrize("way", ["given", "inherited", "setting"])
    def test_a_transaction_waits_so_long(self, locking: ResultStore, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
        locking.acquire_lock("k", "somebody")
        store = locking
        if way == "setting":
            monkeypatch.setenv("PGRESULTS_LOCK_TIMEOUT", "0.05")
            storage = PostgresStorage(locking.result_storage.database.url(), locking.result_storage.name)
            manager = locking.lock_manager if isinstance(locking.lock_manager, MemoryLockManager) else None
            store = ResultStore(result_storage=storage, lock_manager=manager or storage.lock_manager())
        outer = 0.05 if way == "inherited" else None
        inner = 0.05 if way == "given" else None
        with (
            pytest.raises(LockedError, match=r"'k' was not free within 0\.05 s: somebody has it") as caught,
            transaction(store=store, isolation_level=SERIALIZABLE, lock_timeout=outer),
            transaction("k", store, lock_timeout=inner),
        ):
            pytest.fail("it is locked")
        assert (caught.value.key, caught.value.holder) == ("k", "somebody")
        locking.release_lock("k", "somebody")
        store.result_storage.close()

    @pytest.mark.parametrize("seconds", [-1, float("nan"), "1"])
    def test_times_that_are_none_are_refused(self, seconds: Any) -> None:
        with pytest.raises(ValueError, match="lock_timeout"):
            transaction(lock_timeout=seconds)
