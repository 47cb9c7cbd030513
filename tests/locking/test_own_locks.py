"""A lock that was taken without naming a holder is one's own in a transaction or task that begins later."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import pytest

from pgresults.cache_policies import INPUTS
from pgresults.errors import LockedError, LockLostError
from pgresults.store import ResultStore
from pgresults.tasks import explain, task
from pgresults.transactions import transaction
from tests.support.calls import Call
from tests.support.transactions import SERIALIZABLE

pytestmark = pytest.mark.timeout(30)


async def test_it_is_written_and_read_with(call: Call, locking: ResultStore) -> None:
    assert await call(locking, "acquire_lock", "k")
    await call(locking, "write", 1, key="k")
    async with transaction(store=locking), transaction():
        await call(locking, "write", 2, key="k")
        assert (await call(locking, "read", "k")).result == 2
        assert await call(locking, "is_lock_holder", "k")
        assert await call(locking, "acquire_lock", "k", timeout=0)
        await call(locking, "touch", "k", None)
        assert await call(locking, "delete", "k")
    assert await call(locking, "is_lock_holder", "k")
    await call(locking, "release_lock", "k")
    assert not await call(locking, "is_locked", "k")
    await locking.result_storage.aclose()


async def test_the_write_proves_it(call: Call, guarded: ResultStore, connection: Any) -> None:
    holder = guarded.generate_default_holder()
    await call(guarded, "acquire_lock", "k")
    fence = guarded.lock_manager._grant("k", holder).fence
    async with transaction("k", guarded) as txn:
        txn.stage(1)
    query = "SELECT holder, fence FROM pgresults.history WHERE storage_id = %s"
    assert connection.execute(query, [guarded.result_storage.id]).fetchall() == [(holder, fence)]
    assert (await call(guarded, "verify")).intact
    connection.execute("UPDATE pgresults.lock SET released = true WHERE storage_id = %s", [guarded.result_storage.id])
    with pytest.raises(LockLostError) as caught:
        async with transaction("k", guarded, overwrite=True) as txn:
            txn.stage("late")
    assert caught.value.fence == fence
    async with transaction():
        with pytest.raises(LockLostError):
            await call(guarded, "write", "late", key="k")
    assert (await call(guarded, "read", "k")).result == 1
    await guarded.result_storage.aclose()


@pytest.mark.parametrize("depth", ["root", "nested"])
async def test_a_transaction_that_asks_for_it_has_it(call: Call, locking: ResultStore, depth: str) -> None:
    await call(locking, "acquire_lock", "k")
    around = transaction() if depth == "nested" else nullcontext()
    async with around, transaction("k", locking, isolation_level=SERIALIZABLE) as txn:
        txn.stage(1)
    assert (await call(locking, "read", "k")).result == 1
    assert await call(locking, "is_lock_holder", "k"), "it is not the transaction's to give back"
    await call(locking, "release_lock", "k")
    async with transaction("k", locking, isolation_level=SERIALIZABLE, overwrite=True):
        assert await call(locking, "is_locked", "k")
    assert not await call(locking, "is_locked", "k")
    await locking.result_storage.aclose()


async def test_it_can_be_given_back_inside(call: Call, locking: ResultStore) -> None:
    await call(locking, "acquire_lock", "k")
    async with transaction():
        await call(locking, "release_lock", "k")
        assert not await call(locking, "is_locked", "k")
        async with transaction("k", locking, isolation_level=SERIALIZABLE) as txn:
            assert locking.is_lock_holder("k", txn.holder)
            txn.stage(1)
    assert not await call(locking, "is_locked", "k")
    await locking.result_storage.aclose()


async def test_it_goes_with_the_context(call: Call, locking: ResultStore) -> None:
    await call(locking, "acquire_lock", "k")
    async with transaction():
        await asyncio.to_thread(locking.write, 1, "k")
        await asyncio.create_task(locking.awrite(2, "k"))
        assert (await asyncio.to_thread(locking.read, "k")).result == 2
    await call(locking, "release_lock", "k")
    await locking.result_storage.aclose()


def test_a_task_has_it(locking: ResultStore) -> None:
    policy = INPUTS.configure(lock_manager=locking.lock_manager, isolation_level="SERIALIZABLE")

    @task(cache_policy=policy, result_storage=locking.result_storage)
    def part(n: int) -> int:
        return n

    @task(cache_policy=policy, result_storage=locking.result_storage)
    def whole() -> list[int]:
        return part.map([1, 2])

    keys = [explain(part, n).key for n in (1, 2)]
    for key in keys:
        locking.acquire_lock(key or "")
    assert whole() == [1, 2]
    for key in keys:
        assert locking.is_lock_holder(key or "")
        locking.release_lock(key or "")


class TestOthers:
    """What is not one's own is respected as before."""

    async def test_another_tasks_lock(self, locking: ResultStore) -> None:
        """All tasks of a loop have the thread's name."""
        taken, leave = asyncio.Event(), asyncio.Event()

        async def hold() -> None:
            await locking.aacquire_lock("k")
            taken.set()
            await leave.wait()
            async with transaction():
                await locking.awrite("its own", key="k")
                await locking.arelease_lock("k")

        holding = asyncio.create_task(hold())
        await taken.wait()
        async with transaction():
            with pytest.raises(LockedError):
                await locking.awrite("stolen", key="k")
            with pytest.raises(ValueError, match="does not hold"):
                await locking.arelease_lock("k")
        with pytest.raises(LockedError):
            async with transaction("k", locking, isolation_level=SERIALIZABLE, lock_timeout=0):
                pytest.fail("it is another's")
        leave.set()
        await holding
        assert (await locking.aread("k")).result == "its own"
        await locking.result_storage.aclose()

    async def test_a_lock_of_a_task_that_has_ended(self, locking: ResultStore) -> None:
        assert await asyncio.wait_for(asyncio.create_task(locking.aacquire_lock("k")), 10)
        async with transaction():
            await locking.awrite(1, key="k")
        await locking.arelease_lock("k")
        await locking.result_storage.aclose()

    async def test_a_lock_with_a_name(self, call: Call, locking: ResultStore) -> None:
        await call(locking, "acquire_lock", "k", holder="named")
        async with transaction():
            with pytest.raises(LockedError):
                await call(locking, "write", 1, key="k")
            await call(locking, "write", 1, key="k", holder="named")
            assert not await call(locking, "is_lock_holder", "k")
        await call(locking, "release_lock", "k", holder="named")
        await locking.result_storage.aclose()

    def test_another_threads_lock(self, locking: ResultStore) -> None:
        with ThreadPoolExecutor(1) as other:
            other.submit(locking.acquire_lock, "k").result()
            with transaction(), pytest.raises(LockedError):
                locking.write(1, key="k")
            other.submit(locking.release_lock, "k").result()

    async def test_a_lock_of_a_transaction_ends_with_no_name_outside(self, call: Call, locking: ResultStore) -> None:
        async with transaction() as txn:
            await call(locking, "acquire_lock", "k")
            await call(locking, "write", 1, key="k")
        with pytest.raises(LockedError):
            await call(locking, "write", 2, key="k")
        await call(locking, "release_lock", "k", holder=txn.holder)
        await locking.result_storage.aclose()
