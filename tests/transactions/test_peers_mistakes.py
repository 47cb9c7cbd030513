"""What others get wrong about transactions of results."""

# ruff: noqa: PT012 (what fails is the end of a block)

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import URL

from pgresults.errors import LockedError, LockLostError, RolledBackError, StorageUnavailable
from pgresults.locking import MemoryLockManager
from pgresults.settings import Settings
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from pgresults.transactions import get_transaction
from tests.support.calls import Call
from tests.support.proxy import Proxy
from tests.support.transactions import EAGER, SERIALIZABLE, Enter, stored


class TestPeersMistakes:
    async def test_1_a_childs_failed_write_leaves_neither_the_parent_nor_siblings(
        self, enter: Enter, guarded: ResultStore
    ) -> None:
        guarded.acquire_lock("b", "somebody")
        with pytest.raises(RolledBackError):
            async with enter("root", guarded) as root:
                root.stage(0)
                async with enter("a", guarded) as sibling:
                    sibling.stage(1)
                with pytest.raises(LockedError):
                    async with enter("b", guarded, commit_mode=EAGER) as child:
                        child.stage(2)
        assert root.is_rolled_back()
        assert sibling.is_rolled_back()
        assert stored(guarded, "root", "a", "b") == {}

    async def test_2_an_outage_is_not_an_absence(self, enter: Enter, shared_url: URL) -> None:
        with Proxy(shared_url) as proxy:
            storage = PostgresStorage(proxy.url, settings=Settings(connect_timeout=1))
            proxy.refuse()
            with pytest.raises(StorageUnavailable):
                async with enter("k", ResultStore(result_storage=storage)):
                    pytest.fail("it must not begin")
        assert get_transaction() is None

    async def test_3_a_refused_lock_is_not_ignored(self, enter: Enter, storage: PostgresStorage) -> None:
        class Refusing(MemoryLockManager):
            def acquire_lock(self, *_: Any) -> bool:
                return False

            async def aacquire_lock(self, *_: Any) -> bool:
                return False

        store = ResultStore(result_storage=storage, lock_manager=Refusing())
        with pytest.raises(LockedError):
            async with enter("k", store, isolation_level=SERIALIZABLE):
                pytest.fail("it must not begin")
        assert stored(store, "k") == {}

    async def test_5_an_emptied_lock_table_stops_nobody(
        self, enter: Enter, guarded: ResultStore, connection: Any
    ) -> None:
        guarded.acquire_lock("k", "before")
        connection.execute("DELETE FROM pgresults.lock WHERE storage_id = %s", [guarded.result_storage.id])
        async with enter("k", guarded, isolation_level=SERIALIZABLE) as txn:
            txn.stage(1)
        assert stored(guarded, "k") == {"k": 1}

    @pytest.mark.timeout(20)
    async def test_6_no_time_to_wait_is_no_wait(self, call: Call, guarded: ResultStore) -> None:
        guarded.acquire_lock("k", "somebody")
        assert await call(guarded, "wait_for_lock", "k", timeout=0) is False

    async def test_7_no_payload_is_left_of_a_failed_write(
        self, enter: Enter, guarded: ResultStore, connection: Any
    ) -> None:
        with pytest.raises(LockLostError):
            async with enter("k", guarded, isolation_level=SERIALIZABLE) as txn:
                txn.stage(bytes(3_000_000))
                connection.execute("DELETE FROM pgresults.lock WHERE storage_id = %s", [guarded.result_storage.id])
        query = "SELECT count(*) FROM pgresults.payload WHERE storage_id = %s"
        assert connection.execute(query, [guarded.result_storage.id]).fetchone() == (0,)

    async def test_10_a_holder_that_lost_its_lock_does_not_write(
        self, enter: Enter, guarded: ResultStore, another_process: ResultStore, connection: Any
    ) -> None:
        with pytest.raises(LockLostError) as caught:
            async with enter("k", guarded, isolation_level=SERIALIZABLE) as txn:
                txn.stage("stale")
                fence = guarded.lock_manager._grant("k", txn.holder).fence
                query = """SELECT pg_terminate_backend(pid, 10000) FROM pg_locks WHERE locktype = 'advisory'
                    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""
                beacon = guarded.lock_manager._grant("k", txn.holder).beacon
                connection.execute(f"{query} AND objid = %s", [beacon & 0xFFFFFFFF])
                assert another_process.acquire_lock("k", "next", timeout=10)
                another_process.write("new", key="k", holder="next")
                another_process.release_lock("k", "next")
        assert (caught.value.key, caught.value.fence, caught.value.holder) == ("k", fence, txn.holder)
        assert stored(guarded, "k") == {"k": "new"}

    @pytest.fixture
    def another_process(self, storage: PostgresStorage) -> Iterator[ResultStore]:
        other = PostgresStorage(storage.database.url(), storage.name)
        yield ResultStore(result_storage=other, lock_manager=other.lock_manager())
        other.close()
