"""Postgres in a directory."""

import fcntl
import os
import re
import shutil
import signal
import socket
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from logging import getLogger
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from pgresults.errors import ConfigurationError, StorageUnavailable
from pgresults.server import binaries
from pgresults.server.others import elsewhere
from pgresults.settings import at_home

_log = getLogger(__name__)
_PATIENCE = 600  # seconds; crash recovery of a large directory takes minutes
_LOCK = "pgresults.lock"
_SOCKET = ".s.PGSQL.5432"
_SOCKET_LIMIT = 103 - len(f"/{_SOCKET}")  # bytes; Linux takes 107, macOS 103
_PROC = Path("/proc/self/cwd").exists()
_INIT_OPTIONS = (
    *(
        "--username=postgres",
        "--auth-local=trust",
        "--auth-host=reject",
        "--data-checksums",
        "--no-instructions",
    ),
    *("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
    *("--set=max_connections=400", "--set=log_checkpoints=off"),
    *("--set=timezone=UTC", "--set=log_timezone=UTC"),
)


@dataclass(frozen=True)
class EmbeddedStatus:
    """An embedded server at one moment: ``size`` in bytes on disk, ``pid`` and ``url`` only while it runs."""

    running: bool
    pid: int | None
    data_directory: Path
    url: str | None
    server_version: str
    size: int


class EmbeddedPostgres:
    """A real Postgres 18 server that belongs to a directory and is shared by all who open that directory.

    It is started on first use, is durable, listens on a Unix socket only, and outlives the process that
    started it: only `stop` ends it. The socket lies in the data directory, which nobody but its owner can
    enter, and asks for no password: whoever runs as the owner of that directory, or as root, is superuser of
    this database, and nobody else can connect. Postgres refuses to run as root: started by root, it runs as
    the owner of the directory or, when that is root too, as the system user ``pgresults``.

    :param path: a new, empty or formerly used directory; it and its parents are created when needed.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = at_home(path, "embedded_path").resolve()
        self._url: str | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    def __eq__(self, other: object) -> bool:
        return self.path == other.path if isinstance(other, EmbeddedPostgres) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.path)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path,)

    @property
    def data_directory(self) -> Path:
        """Where Postgres keeps its files and ``server.log``."""
        return self.path / "data"

    @property
    def url(self) -> str:
        """The ``postgresql://`` address; starts the server when this object has not seen it run.

        The tables of pgresults are made in the database that it names when a storage there is first used.

        :raises ConfigurationError: as `ensure_running`.
        :raises StorageUnavailable: as `ensure_running`.
        """
        return self._url or self.ensure_running()

    def ensure_running(self) -> str:
        """Start the server unless it runs, also after it was stopped or killed, and return its address.

        :raises ConfigurationError: the extra is missing, or the directory cannot be used.
        :raises StorageUnavailable: the server does not start.
        """
        if not self._is_ready():
            binaries.bin_directory()  # a missing extra must not leave a directory behind
            with self._locked():
                self._start()
        self._url = self._address()
        return self._url

    def is_running(self) -> bool:
        """Whether a server serves the directory, whoever started it; starts nothing."""
        return self._postmaster() is not None

    def stop(self) -> None:
        """Disconnect everybody and shut the server down in an orderly way; nothing happens when none runs.

        :raises StorageUnavailable: it did not end in time, or runs in another container.
        """
        self._url = None
        if not self._pid_file():
            return
        with self._locked():
            pid = self._postmaster()
            if pid is None:
                self._clear_leftovers()
            elif _PROC and not self._is_ours(pid):
                raise StorageUnavailable(f"Stop {self.path} in the container where its server runs.")
            else:
                os.kill(pid, signal.SIGINT)
                self._wait_until(lambda: not self.is_running())

    def status(self) -> EmbeddedStatus:
        """Say what there is, without starting anything.

        :raises ConfigurationError: the extra is missing, or the directory is another user's.
        """
        pid = self._postmaster()
        return EmbeddedStatus(
            running=pid is not None,
            pid=pid,
            data_directory=self.data_directory,
            url=self._address() if pid else None,
            server_version=binaries.server_version(),
            size=_size_on_disk(self.path),
        )

    def _start(self) -> None:
        if not self.data_directory.exists():
            self._create()
        found = (self.data_directory / "PG_VERSION").read_text().strip()
        if found != binaries.MAJOR:
            raise ConfigurationError(
                f"{self.path} holds data of Postgres {found} and this is Postgres {binaries.MAJOR}: "
                f"convert it with pg_upgrade, or choose another directory."
            )
        # It may run: another process was faster, its starter was killed half-way, or it is being stopped.
        self._wait_until(lambda: self._is_ready() or not self.is_running())
        if not self.is_running():
            self._clear_leftovers()
            options = f"-k . -h '' -p 5432 -c cluster_name={self._tag()}"  # "." fits into a socket address
            waiting = ("-w", "-t", str(_PATIENCE), "-l", "server.log")
            binaries.run("pg_ctl", "start", *waiting, "-o", options, directory=self.data_directory)

    def _create(self) -> None:
        """Make the data directory; it gets its name when complete, for its maker may be killed."""
        if other := elsewhere(self.path):
            _log.warning(
                "a new database is made in %s; PGRESULTS_EMBEDDED_PATH=%s would use the one there", self.path, other
            )
        with suppress(FileExistsError), (self.path / ".gitignore").open("x") as ignored:
            ignored.write("*\n")
        user = binaries.server_user(self.path)
        for abandoned in self.path.glob("data.*"):
            shutil.rmtree(abandoned, ignore_errors=True)
        fresh = Path(tempfile.mkdtemp(prefix="data.", dir=self.path))
        if os.geteuid() == 0:
            self._give_away(fresh, user.pw_uid, user.pw_gid)
        binaries.run("initdb", *_INIT_OPTIONS, directory=fresh)
        fresh.rename(self.data_directory)
        descriptor = os.open(self.path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)

    def _give_away(self, fresh: Path, uid: int, gid: int) -> None:
        """Give a new directory to a user, who may have put something else in its place by now: then refuse."""
        try:
            descriptor = os.open(fresh, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError as error:
            raise self._unusable(error) from error
        try:
            if os.fstat(descriptor).st_uid != 0 or os.listdir(descriptor):  # noqa: PTH208 (of what is open)
                raise ConfigurationError(f"{fresh} was replaced while it was made: choose a directory of your own.")
            os.fchown(descriptor, uid, gid)
        finally:
            os.close(descriptor)

    def _clear_leftovers(self) -> None:
        """Remove what a killed server left: busy backends, and a pid that may be another program's by now."""
        if _PROC:
            pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
            for pid in filter(self._is_ours, pids):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._wait_until(lambda: not any(map(self._is_ours, pids)))
            for name in ("postmaster.pid", f"{_SOCKET}.lock"):
                (self.data_directory / name).unlink(missing_ok=True)

    def _wait_until(self, is_done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not is_done():
            if time.monotonic() > deadline:
                raise StorageUnavailable(
                    f"The server of {self.path} is neither up nor down after {_PATIENCE} s: see server.log."
                )
            time.sleep(0.01)

    def _pid_file(self) -> list[str]:
        """The lines of ``postmaster.pid``: the first is the pid, the eighth the state."""
        try:
            return (self.data_directory / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._unusable(error) from error

    def _postmaster(self) -> int | None:
        lines = self._pid_file()
        if not lines or not lines[0].isdigit():
            return None
        pid = int(lines[0])
        return pid if self._is_ours(pid) or self._is_listening() else None

    def _is_ready(self) -> bool:
        lines = self._pid_file()
        return len(lines) > 7 and lines[7].strip() == "ready" and self.is_running()

    def _is_ours(self, pid: int) -> bool:
        """Whether the process is one of this server's; a pid alone may be that of any program."""
        process = Path("/proc", str(pid))
        with suppress(OSError):
            if (process / "comm").read_bytes() == b"postgres\n":
                return self._tag().encode() in re.split(rb"[\0 =:]", (process / "cmdline").read_bytes())
        return False

    def _is_listening(self) -> bool:
        """Whether somebody answers, which tells more than a pid when the server is in another container."""
        with socket.socket(socket.AF_UNIX) as client, suppress(OSError):
            client.connect(str(self._socket_directory() / _SOCKET))
            return True
        return False

    def _tag(self) -> str:
        """A mark in the command line of each process of this server; the directory may move meanwhile."""
        info = self.data_directory.stat()
        return f"pgresults-{info.st_dev:x}-{info.st_ino:x}"

    def _address(self) -> str:
        # With its port, so that PGPORT does not matter.
        return f"postgresql://postgres@/postgres?host={quote(str(self._socket_directory()))}&port=5432"

    def _socket_directory(self) -> Path:
        """The data directory, or a private link to it when its path is too long or too odd for an address."""
        if _fits(self.data_directory):
            return self.data_directory
        private = Path(tempfile.gettempdir(), f"pgresults-{os.geteuid()}")
        private.mkdir(mode=0o700, exist_ok=True)
        info, link = private.lstat(), private / self._tag()
        if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid() or info.st_mode & 0o077:
            raise ConfigurationError(f"{private} is not this user's alone: remove it, or set TMPDIR.")
        if not _fits(link):
            raise ConfigurationError(f"{private} is no path for a socket: set TMPDIR to a short, plain one.")
        if not link.is_symlink() or link.readlink() != self.data_directory:
            with tempfile.TemporaryDirectory(dir=private) as scratch:
                fresh = Path(scratch, "link")
                fresh.symlink_to(self.data_directory)
                fresh.replace(link)
        return link

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the directory against all threads and processes, after a look whether it is one of ours."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if _LOCK not in (names := {entry.name for entry in self.path.iterdir()}) and names:
                raise ConfigurationError(
                    f"{self.path} is not empty, nor made by pgresults: choose a new or empty directory."
                )
            owner = self.path.stat()
            descriptor = os.open(self.path / _LOCK, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise self._unusable(error) from error
        try:
            if os.geteuid() == 0 and os.fstat(descriptor).st_nlink == 1:  # else it is another file by a second name
                os.fchown(descriptor, owner.st_uid, owner.st_gid)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # closing is not enough while a fork has a copy
            os.close(descriptor)

    def _unusable(self, error: OSError) -> ConfigurationError:
        return ConfigurationError(
            f"{self.path} cannot hold a database for this user ({error.strerror}): "
            f"choose one of your own with PGRESULTS_EMBEDDED_PATH, run as the owner of this one, or set "
            f"PGRESULTS_DATABASE_URL to the address of a Postgres you already run."
        )


def is_embedded(url: str) -> bool:
    """Whether an address is the `url` of an embedded server."""
    parts = urlsplit(url)
    directory = Path(parse_qs(parts.query).get("host", [""])[0])
    if parts.path != "/postgres" or not directory.is_absolute():
        return False
    return (directory.resolve().parent / _LOCK).exists()


def _fits(directory: Path) -> bool:
    """Whether a path can be the host of an address: long ones, commas, colons and other alphabets cannot."""
    text = str(directory)
    return len(text) <= _SOCKET_LIMIT and re.fullmatch(r"[A-Za-z0-9/._+~= -]+", text) is not None


def _size_on_disk(directory: Path) -> int:
    size = 0
    for path in directory.rglob("*"):
        with suppress(FileNotFoundError):  # Postgres removes files at any time
            size += path.lstat().st_blocks * 512
    return size
