"""This store: results, tasks and locks in Postgres, without what it could keep in memory."""

import os

from benchmarks.peers.peer import Place, produce
from pgresults import PostgresStorage, ResultStore, task, unmapped
from pgresults.cache_policies import INPUTS


class Ours:
    """A store with locks, and a task that keeps its results there."""

    def __init__(self, place: Place) -> None:
        self._storage = PostgresStorage(place.url, "peers", place.schema)
        locks = self._storage.lock_manager()
        self._store = ResultStore(result_storage=self._storage, cache_result_in_memory=False, lock_manager=locks)
        options = task(result_storage=self._storage, cache_policy=INPUTS, cache_result_in_memory=False)
        self._task = options(produce)
        self._holder = f"process {os.getpid()}"
        self.call = self._task
        self.exists = self._store.exists
        self.close = self._storage.close

    def write(self, key: str, data: bytes) -> None:
        self._store.write(data, key=key)

    def read(self, key: str) -> bytes:
        found: bytes = self._store.read(key).result
        return found

    def map(self, keys: list[str], size: int) -> list[bytes]:
        return self._task.map(keys, unmapped(size))

    def acquire(self, key: str) -> None:
        self._store.acquire_lock(key, self._holder)

    def release(self, key: str) -> None:
        self._store.release_lock(key, self._holder)
