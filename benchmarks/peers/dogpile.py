"""dogpile.cache: regions in a dbm file and in Redis."""

from typing import Any

from dogpile.cache import make_region

from benchmarks.peers.peer import Place, payload, produce


class _Dogpile:
    """A region; what has no value there is told apart only by getting it, so there is no `exists`."""

    def __init__(self, backend: str, arguments: dict[str, Any]) -> None:
        self._region = make_region().configure(backend, arguments=arguments)
        self._locks: dict[str, Any] = {}
        self.call = self._region.cache_on_arguments()(produce)
        self.write, self.read = self._region.set, self._region.get

    def map(self, keys: list[str], size: int) -> list[bytes]:
        return list(self._region.get_or_create_multi(keys, lambda *missing: [payload(size) for _ in missing]))

    def acquire(self, key: str) -> None:
        self._locks[key] = self._region.backend.get_mutex(key)
        self._locks[key].acquire()

    def release(self, key: str) -> None:
        self._locks.pop(key).release()

    def close(self) -> None:
        """The process ends."""


class DogpileFile(_Dogpile):
    """A dbm file, of the kind that this Python has; one lock for all keys."""

    def __init__(self, place: Place) -> None:
        super().__init__("dogpile.cache.dbm", {"filename": str(place.directory / "dogpile.dbm")})


class _DogpileRedis(_Dogpile):
    _kept: str

    def __init__(self, place: Place) -> None:
        arguments = {"port": place.redis[self._kept], "distributed_lock": True, "thread_local_lock": False}
        super().__init__("dogpile.cache.redis", arguments)


class DogpileRedis(_DogpileRedis):
    """Redis as it comes."""

    _kept = "defaults"


class DogpileRedisAlways(_DogpileRedis):
    """Redis that syncs its log before it answers."""

    _kept = "always"
