"""The contract of every lock manager."""

import asyncio
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pgresults.errors import InvalidArgument, InvalidKey
from pgresults.locking import LockManager, PostgresLockManager
from tests.support.calls import Call


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
        assert copied.is_locked("k")
        assert copied.acquire_lock("other", "b", 0)
        copied.release_lock("other", "b")
        if isinstance(copied, PostgresLockManager):
            assert copied == locks
            copied.close()
            copied.database.close()
