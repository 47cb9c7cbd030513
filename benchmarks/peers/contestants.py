"""Who is compared, what each needs, and how safe it has what it was given."""

import dbm
import shutil
import tempfile
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

from benchmarks.peers.peer import Place

_HERE = "benchmarks.peers"
_WAL = "yes: the log is synced at commit"
_NO_SYNC = "no: files without fsync"
_NORMAL = "no: SQLite with `synchronous = NORMAL`"
_SNAPSHOTS = "no: a snapshot now and then (Redis as it comes)"
_ALWAYS = "yes: `appendonly yes`, `appendfsync always`"


class Contestant(NamedTuple):
    """A peer that may be installed here or not.

    Attributes:
        module, kind: where its class is.
        packages: distributions it needs, its own first.
        durable: whether what it acknowledged is on the disk, and why; begins with yes or no.
    """

    name: str
    module: str
    kind: str
    packages: tuple[str, ...]
    durable: str

    @property
    def redis(self) -> bool:
        """Whether it needs a Redis."""
        return "redis" in self.packages

    @property
    def prefect(self) -> bool:
        """Whether it needs a server of Prefect's."""
        return "prefect" in self.packages

    def missing(self) -> str | None:
        """Why it cannot be measured here."""
        for package in self.packages:
            try:
                version(package)
            except PackageNotFoundError:
                return f"{package} is not installed"
        return "no redis-server on the path" if self.redis and shutil.which("redis-server") is None else None

    def versions(self) -> str:
        """Its own version and that of what it needs."""
        shown = ", ".join(f"{package} {version(package)}" for package in self.packages)
        return f"{shown}, {_dbm()}" if self.kind == "DogpileFile" else shown

    def make(self, place: Place) -> Any:
        """The peer itself: imports its library."""
        return getattr(import_module(self.module), self.kind)(place)


def _dbm() -> str:
    """The kind of dbm file that this Python makes."""
    with tempfile.TemporaryDirectory() as directory:
        name = f"{directory}/any"
        dbm.open(name, "c").close()
        return dbm.whichdb(name) or "dbm"


BARE = Contestant("bare psycopg", f"{_HERE}.bare", "Bare", ("psycopg",), _WAL)
_PREFECT_REDIS = ("prefect", "prefect-redis", "redis")
_DOGPILE_REDIS = ("dogpile.cache", "redis")
PEERS = (
    Contestant("pgresults", f"{_HERE}.ours", "Ours", ("pgresults", "psycopg"), _WAL),
    Contestant("Prefect, files", f"{_HERE}.prefect", "PrefectFiles", ("prefect",), _NO_SYNC),
    Contestant("Prefect, Redis", f"{_HERE}.prefect", "PrefectRedis", _PREFECT_REDIS, _SNAPSHOTS),
    Contestant("Prefect, Redis always", f"{_HERE}.prefect", "PrefectRedisAlways", _PREFECT_REDIS, _ALWAYS),
    Contestant("joblib", f"{_HERE}.joblib", "Joblib", ("joblib",), _NO_SYNC),
    Contestant("diskcache", f"{_HERE}.diskcache", "DiskCache", ("diskcache",), _NORMAL),
    Contestant("dogpile, dbm", f"{_HERE}.dogpile", "DogpileFile", ("dogpile.cache",), _NO_SYNC),
    Contestant("dogpile, Redis", f"{_HERE}.dogpile", "DogpileRedis", _DOGPILE_REDIS, _SNAPSHOTS),
    Contestant("dogpile, Redis always", f"{_HERE}.dogpile", "DogpileRedisAlways", _DOGPILE_REDIS, _ALWAYS),
    Contestant("DBOS", f"{_HERE}.dbos", "Dbos", ("dbos", "psycopg"), _WAL),
)
