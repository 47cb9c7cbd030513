"""Stores with locks: who may write, and who waits to read."""

import asyncio
import os
import threading
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import URL

from pgresults.errors import ConfigurationError, LockedError, LockLostError
from pgresults.locking import MemoryLockManager, PostgresLockManager
from pgresults.settings import Settings
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.calls import Call
from tests.support.locks import WAITING, watched


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
