"""Locks of transactions: held from begin to end, and never longer."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pgresults.errors import ConfigurationError, LockedError
from pgresults.locking import MemoryLockManager
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from pgresults.transactions import get_transaction, transaction
from tests.support.calls import Call
from tests.support.transactions import EAGER, OFF, SERIALIZABLE, UNPICKLABLE, Enter, Failure, held, stored


class TestLocks:
    def test_serializable_needs_a_manager(self, store: ResultStore) -> None:
        with pytest.raises(ConfigurationError, match="lock manager"):
            transaction("k", store, isolation_level=SERIALIZABLE)
        with transaction(isolation_level=SERIALIZABLE):
            with pytest.raises(ConfigurationError, match="lock manager"), transaction("k", store):
                pass
            assert get_transaction().key is None

    async def test_the_key_is_locked_from_begin_to_end(
        self, enter: Enter, guarded: ResultStore, connection: Any
    ) -> None:
        async with enter("k", guarded, isolation_level=SERIALIZABLE) as txn:
            assert held(connection, guarded) == ["k"]
            assert guarded.is_lock_holder("k")
            assert not guarded.is_lock_holder("k", holder="another")
            txn.stage(1)
        assert held(connection, guarded) == []
        row = connection.execute(
            "SELECT holder, fence > 0 FROM pgresults.history WHERE storage_id = %s", [guarded.result_storage.id]
        ).fetchone()
        assert row == (txn.holder, True)

    async def test_read_committed_locks_nothing(self, enter: Enter, guarded: ResultStore, connection: Any) -> None:
        async with enter("k", guarded):
            assert held(connection, guarded) == []

    @pytest.mark.parametrize("way", ["exception", "rollback", "off", "unserializable", "begin", "hook"])
    async def test_locks_are_released_on_every_way_out(
        self, enter: Enter, do: Call, guarded: ResultStore, connection: Any, way: str, monkeypatch: Any
    ) -> None:
        def fail(*_: Any) -> None:
            raise Failure

        mode = OFF if way == "off" else None
        try:
            async with enter("a", guarded, isolation_level=SERIALIZABLE, commit_mode=mode) as root:
                if way == "begin":
                    monkeypatch.setattr(PostgresStorage, "_has", fail)
                async with enter("b", guarded) as child:
                    child.stage(UNPICKLABLE if way == "unserializable" else 1)
                if way == "exception":
                    raise Failure
                if way == "rollback":
                    await do(root, "rollback")
                root_hooks = [fail] if way == "hook" else []
                root.stage(1, on_commit_hooks=root_hooks) if not root.is_rolled_back() else None
        except Failure:
            assert way in ("exception", "begin", "hook")
        monkeypatch.undo()
        assert root.is_rolled_back()
        assert held(connection, guarded) == []
        assert stored(guarded, "a", "b") == {}

    async def test_they_are_released_at_every_step_of_a_cancellation(
        self, guarded: ResultStore, connection: Any
    ) -> None:
        async def work(key: str) -> None:
            async with (
                transaction(f"{key}/a", guarded, isolation_level=SERIALIZABLE) as root,
                transaction(f"{key}/b", guarded) as child,
            ):
                child.stage(1)
                root.stage(2)

        await work("warm")
        cancelled, tried = 0, 0
        while cancelled <= 10:  # a server that answers at once leaves few steps to be cancelled at: then once more
            for steps in range(0, 120, 2):
                tried += 1
                task = asyncio.create_task(work(str(tried)))
                for _ in range(steps):
                    await asyncio.sleep(0)
                task.cancel()
                outcome = (await asyncio.gather(task, return_exceptions=True))[0]
                cancelled += isinstance(outcome, asyncio.CancelledError)
                assert held(connection, guarded) == []
                assert len([key for key in "ab" if await guarded.aexists(f"{tried}/{key}")]) in (0, 2)

    async def test_a_tree_shares_a_lock(self, enter: Enter, guarded: ResultStore, connection: Any) -> None:
        async with enter("k", guarded, isolation_level=SERIALIZABLE) as root:
            async with enter("k", guarded, commit_mode=EAGER) as child:
                child.stage(1)
            assert held(connection, guarded) == ["k"]
            root.stage(2)
        assert held(connection, guarded) == []
        assert guarded.read("k").metadata.version == 2

    async def test_siblings_share_a_lock(self, enter: Enter, guarded: ResultStore, connection: Any) -> None:
        async with enter(isolation_level=SERIALIZABLE):
            async with enter("k", guarded) as first:
                first.stage(1)
            async with enter("k", guarded, commit_mode=EAGER) as second:
                second.stage(2)
            assert held(connection, guarded) == ["k"]
        assert held(connection, guarded) == []

    async def test_tasks_of_a_tree_share_a_lock(self, guarded: ResultStore, connection: Any) -> None:
        inside, leave = asyncio.Event(), asyncio.Event()

        async def stay() -> None:
            async with transaction("k", guarded, commit_mode=EAGER) as txn:
                inside.set()
                await leave.wait()
                txn.stage("stayed")

        async with transaction(isolation_level=SERIALIZABLE):
            staying = asyncio.create_task(stay())
            await inside.wait()
            async with transaction("k", guarded, commit_mode=EAGER, overwrite=True):
                pass
            assert held(connection, guarded) == ["k"]
            leave.set()
            await staying
        assert held(connection, guarded) == []

    async def test_the_holder_is_valid_in_threads_and_tasks(self, guarded: ResultStore) -> None:
        async with transaction("k", guarded, isolation_level=SERIALIZABLE) as txn:
            assert await asyncio.to_thread(guarded.is_lock_holder, "k")
            assert await asyncio.create_task(guarded.ais_lock_holder("k"))
            await asyncio.to_thread(guarded.write, "from a thread", "k")
            await asyncio.create_task(guarded.awrite("from a task", "k"))
            with ThreadPoolExecutor(1) as pool, pytest.raises(LockedError):
                pool.submit(guarded.write, "from outside", "k").result()
            txn.stage("from the transaction")
        assert guarded.read("k").metadata.version == 3

    @pytest.mark.timeout(30)
    async def test_one_runs_and_the_others_find_its_result(self, guarded: ResultStore) -> None:
        runs = []

        async def work(number: int) -> Any:
            async with transaction("k", guarded, isolation_level=SERIALIZABLE) as txn:
                if txn.is_committed():
                    return (await txn.aread()).result
                runs.append(number)
                txn.stage(number)
                return number

        assert len(set(await asyncio.gather(*map(work, range(10))))) == len(runs) == 1

    async def test_locks_in_memory(self, enter: Enter, storage: PostgresStorage) -> None:
        store = ResultStore(result_storage=storage, lock_manager=MemoryLockManager())
        async with enter("k", store, isolation_level=SERIALIZABLE) as txn:
            assert store.is_locked("k")
            txn.stage(1)
        assert not store.is_locked("k")
        assert stored(store, "k") == {"k": 1}


async def test_what_is_stored_is_not_undone_by_a_manager_that_fails_to_release(storage: PostgresStorage) -> None:
    class Failing(MemoryLockManager):
        def release_lock(self, key: str, holder: str) -> None:
            super().release_lock(key, holder)
            raise OSError("the disk is full")

    store = ResultStore(result_storage=storage, lock_manager=Failing())
    with transaction("k", store, isolation_level="SERIALIZABLE") as txn:
        txn.stage(1)
    assert txn.is_committed()
    assert store.read("k").result == 1
