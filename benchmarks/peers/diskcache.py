"""diskcache: SQLite, with files for what is large."""

from typing import Any

import diskcache

from benchmarks.peers.peer import Place, produce


class DiskCache:
    """A `diskcache.Cache` that evicts nothing; `map` is a loop in one of its transactions, as it advises."""

    def __init__(self, place: Place) -> None:
        self._cache = diskcache.Cache(place.directory / "diskcache", eviction_policy="none")
        self.call = self._cache.memoize()(produce)
        self.write, self.close = self._cache.set, self._cache.close

    def read(self, key: str) -> Any:
        return self._cache[key]

    def exists(self, key: str) -> bool:
        return key in self._cache

    def map(self, keys: list[str], size: int) -> list[bytes]:
        with self._cache.transact():
            return [self.call(key, size) for key in keys]

    def acquire(self, key: str) -> None:
        diskcache.Lock(self._cache, f"lock {key}").acquire()

    def release(self, key: str) -> None:
        diskcache.Lock(self._cache, f"lock {key}").release()
