"""Lock managers of other people's, and the ones in memory, of which a process has one."""

import asyncio
import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pgresults.cache_policies import INPUTS
from pgresults.errors import ConfigurationError, LockedError
from pgresults.locking import LockManager, MemoryLockManager
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from pgresults.tasks import task
from pgresults.transactions import transaction
from tests.support.calls import Call
from tests.support.managers import Derived, PrefectLike, SyncMethods
from tests.support.transactions import SERIALIZABLE

pytestmark = pytest.mark.timeout(30)


@pytest.fixture(params=[SyncMethods, Derived, PrefectLike], ids=lambda kind: kind.__name__)
def manager(request: pytest.FixtureRequest) -> Any:
    return request.param()


@pytest.fixture
def store(storage: PostgresStorage, manager: Any) -> ResultStore:
    return ResultStore(result_storage=storage, lock_manager=manager)


async def test_its_locks_are_respected(call: Call, store: ResultStore, manager: Any) -> None:
    assert store.lock_manager is manager
    assert await call(store, "acquire_lock", "k", "somebody") is True
    assert await call(store, "acquire_lock", "k", "another", 0) is False
    assert await call(store, "is_locked", "k") is True
    assert await call(store, "is_lock_holder", "k", "somebody") is True
    assert await call(store, "wait_for_lock", "k", 0) is False
    with pytest.raises(LockedError):
        await call(store, "write", 1, key="k")
    await call(store, "write", 1, key="k", holder="somebody")
    with pytest.raises(ValueError, match="does not hold"):
        await call(store, "release_lock", "k", "another")
    await call(store, "release_lock", "k", "somebody")
    assert await call(store, "is_locked", "k") is False
    await store.result_storage.aclose()


async def test_transactions_take_turns(store: ResultStore, manager: Any) -> None:
    """More wait than the loop's own executor has threads."""
    runs: list[int] = []

    async def work(number: int) -> Any:
        async with transaction("k", store, isolation_level=SERIALIZABLE) as txn:
            if txn.is_committed():
                return (await txn.aread()).result
            runs.append(number)
            txn.stage(number)
            return number

    assert set(await asyncio.gather(*map(work, range(50)))) == set(runs)
    assert len(runs) == 1
    assert not manager.is_locked("k")
    await store.result_storage.aclose()


async def test_the_loop_goes_on_while_a_thread_waits(store: ResultStore, manager: Any) -> None:
    await store.aacquire_lock("k", "a")
    waiting = asyncio.create_task(store.aacquire_lock("k", "b"))
    done, _ = await asyncio.wait([waiting], timeout=0.05)
    assert not done
    await store.arelease_lock("k", "a")
    assert await waiting is True


async def test_what_a_cancelled_wait_gets_is_given_back(store: ResultStore, manager: Any) -> None:
    if isinstance(manager, PrefectLike):
        pytest.skip("its own async method is used")
    await store.aacquire_lock("k", "a")
    waiting = asyncio.create_task(store.aacquire_lock("k", "b"))
    while "b" not in manager.asked:
        await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    await store.arelease_lock("k", "a")
    assert await store.aacquire_lock("k", "c", 10) is True


class Half:
    """What lacks two methods."""

    def acquire_lock(self, key: str, holder: str) -> bool:
        raise AssertionError

    def release_lock(self, key: str, holder: str) -> None:
        raise AssertionError

    is_locked = acquire_lock


class DerivedHalf(Half, LockManager):
    """What inherits two methods that do nothing."""


@pytest.mark.parametrize("kind", [Half, DerivedHalf])
def test_what_lacks_methods_is_refused(kind: Any, storage: PostgresStorage) -> None:
    refused = pytest.raises(ConfigurationError, match="lacks is_lock_holder, wait_for_lock")
    with refused as caught:
        ResultStore(result_storage=storage, lock_manager=kind())
    assert caught.value.setting == "lock_manager"
    with refused:
        INPUTS.configure(lock_manager=kind())
    for wrong in ("postgres", 1, object(), SyncMethods):
        with pytest.raises(ConfigurationError):
            ResultStore(result_storage=storage, lock_manager=wrong)


def test_tasks_compute_once(storage: PostgresStorage, manager: Any) -> None:
    runs: list[int] = []

    @task(cache_policy=INPUTS.configure(lock_manager=manager, isolation_level="SERIALIZABLE"), result_storage=storage)
    def part(n: int) -> int:
        runs.append(n)
        return n

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(part, [1, 1, 1])) == [1, 1, 1]
    assert runs == [1]


class TestMemory:
    async def test_all_of_a_process_share_their_locks(self, call: Call) -> None:
        one, two = MemoryLockManager(), MemoryLockManager()
        assert one == two
        assert (INPUTS.configure(lock_manager=one) + INPUTS.configure(lock_manager=two)).lock_manager == one
        assert await call(one, "acquire_lock", "k", "a")
        assert await call(two, "acquire_lock", "k", "b", 0) is False
        assert await call(pickle.loads(pickle.dumps(one)), "is_lock_holder", "k", "a")
        await call(two, "release_lock", "k", "a")
        assert not await call(one, "is_locked", "k")

    def test_three_threads_compute_once(self, storage: PostgresStorage) -> None:
        runs: list[int] = []
        begun = threading.Barrier(3)

        def work(_: int) -> Any:
            store = ResultStore(result_storage=storage, lock_manager=MemoryLockManager())
            begun.wait()
            with transaction("k", store, isolation_level=SERIALIZABLE) as txn:
                if txn.is_committed():
                    return txn.read().result
                runs.append(1)
                txn.stage("computed")
                return "computed"

        with ThreadPoolExecutor(3) as pool:
            assert set(pool.map(work, range(3))) == {"computed"}
        assert runs == [1]

    def test_a_forked_child_has_locks_of_its_own(self) -> None:
        locks = MemoryLockManager()
        assert locks.acquire_lock("k", "parent")
        if (pid := os.fork()) == 0:
            try:
                os._exit(0 if locks.acquire_lock("k", "child", 0) else 1)
            finally:
                os._exit(2)
        assert os.waitpid(pid, 0)[1] == 0
        assert locks.is_lock_holder("k", "parent")

    async def test_errors_name_the_holder(self, call: Call, storage: PostgresStorage, monkeypatch: Any) -> None:
        monkeypatch.setenv("PGRESULTS_READ_LOCK_TIMEOUT", "0.05")
        storage = PostgresStorage(storage.database.url(), storage.name)
        store = ResultStore(result_storage=storage, lock_manager=MemoryLockManager())
        await call(store, "acquire_lock", "k", "somebody")
        for method, arguments in (("write", (1, "k")), ("read", ("k",)), ("delete", ("k",))):
            with pytest.raises(LockedError, match="somebody has it") as caught:
                await call(store, method, *arguments)
            assert (caught.value.key, caught.value.holder) == ("k", "somebody")
        await storage.aclose()
