"""Prefect's results in local files and in Redis, its tasks with a server of its own, and its locks."""

import os
from typing import Any
from uuid import uuid4

import prefect
from prefect.cache_policies import INPUTS
from prefect.filesystems import LocalFileSystem
from prefect.locking.filesystem import FileSystemLockManager
from prefect.results import ResultStore

from benchmarks.peers.peer import Place, produce


class _Prefect:
    """A store over a block, and a task that keeps its results in that block."""

    def __init__(self, block: Any, locks: Any) -> None:
        block._block_document_id = uuid4()  # as if saved
        self._holder = str(os.getpid())
        self._store = ResultStore(result_storage=block, lock_manager=locks, cache_result_in_memory=False)
        options = prefect.task(
            cache_policy=INPUTS, persist_result=True, result_storage=block, cache_result_in_memory=False
        )
        self._task = options(produce)
        self.call = self._task

    def write(self, key: str, data: bytes) -> None:
        self._store.write(data, key=key)

    def read(self, key: str) -> bytes:
        found: bytes = self._store.read(key).result
        return found

    def exists(self, key: str) -> bool:
        return self._store.exists(key)

    def acquire(self, key: str) -> None:
        assert self._store.acquire_lock(key, self._holder)

    def release(self, key: str) -> None:
        self._store.release_lock(key, self._holder)

    def close(self) -> None:
        """Nothing is open."""


class PrefectFiles(_Prefect):
    """Local files; the one that `map` is asked of, since what that takes is Prefect's own."""

    def __init__(self, place: Place) -> None:
        directory = place.directory / "prefect files"
        locks = FileSystemLockManager(lock_files_directory=directory / "locks")
        super().__init__(LocalFileSystem(basepath=str(directory / "results")), locks)

    def map(self, keys: list[str], size: int) -> list[bytes]:
        @prefect.flow
        def mapped() -> list[bytes]:
            return self._task.map(keys, prefect.unmapped(size)).result()

        return mapped()


class _PrefectRedis(_Prefect):
    _kept: str

    def __init__(self, place: Place) -> None:
        from prefect_redis import RedisDatabase, RedisLockManager

        port = place.redis[self._kept]
        super().__init__(RedisDatabase(port=port), RedisLockManager(port=port))


class PrefectRedis(_PrefectRedis):
    """Redis as it comes."""

    _kept = "defaults"


class PrefectRedisAlways(_PrefectRedis):
    """Redis that syncs its log before it answers."""

    _kept = "always"
