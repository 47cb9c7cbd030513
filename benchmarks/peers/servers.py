"""The servers that peers need, in a temporary directory and on free ports, and which processors they have."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
from sqlalchemy import make_url

from benchmarks.__main__ import SCHEMA
from benchmarks.bare import Bare
from benchmarks.peers.peer import Place
from pgresults.database import migrations
from pgresults.server.embedded import EmbeddedPostgres

_PATIENCE = 120.0
REDIS = {"defaults": (), "always": ("--appendonly", "yes", "--appendfsync", "always")}


@dataclass(frozen=True)
class Servers:
    """What runs for the peers.

    Attributes:
        pids: the servers' first processes.
        versions: as the servers say them.
        failed: why one that is needed does not run, by its name.
        processors: of all of them and of the clients.
    """

    place: Place
    pids: tuple[int, ...]
    versions: tuple[str, ...]
    failed: dict[str, str]
    processors: set[int]

    def together(self) -> None:
        """Let servers and clients share all processors."""
        os.sched_setaffinity(0, self.processors)
        for thread in (thread for pid in self.pids for thread in _threads(pid)):
            with suppress(ProcessLookupError):  # it ended meanwhile
                os.sched_setaffinity(thread, self.processors)


@contextmanager
def running(*, redis: bool, prefect: bool) -> Iterator[Servers]:
    """Postgres, and where they are needed Redis twice and Prefect's server; all end with the block.

    Servers have one processor and clients, who are started later, the other ones: left to chance, a short call takes
    three times as long when the two sit on different ones.
    """
    processors = os.sched_getaffinity(0)
    try:
        with ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pgresults-peers-")))
            if len(processors) > 1:
                os.sched_setaffinity(0, processors - {max(processors)})
            servers = _started(stack, directory, processors, redis=redis, prefect=prefect)
            if len(processors) > 1:
                os.sched_setaffinity(0, {max(processors)})
            yield servers
    finally:
        os.sched_setaffinity(0, processors)


def _started(stack: ExitStack, directory: Path, processors: set[int], *, redis: bool, prefect: bool) -> Servers:
    server = EmbeddedPostgres(directory / "server")
    stack.callback(server.stop)
    migrations.upgrade(make_url(server.url).set(drivername="postgresql+psycopg"), SCHEMA)
    with psycopg.connect(server.url, autocommit=True) as connection:
        Bare(connection, SCHEMA)
        versions = [f"PostgreSQL {connection.info.parameter_status('server_version')}"]
    pids, ports, failed = [server.status().pid or 0], dict[str, int](), dict[str, str]()
    environment: dict[str, str] = {}
    if redis:
        try:
            for kept, options in REDIS.items():
                ports[kept], pid = stack.enter_context(_redis(directory / f"redis {kept}", options))
                pids.append(pid)
            versions.append(_redis_version())
        except (OSError, subprocess.CalledProcessError) as error:
            failed["redis"] = str(error)
    if prefect:
        try:
            environment, pid = stack.enter_context(_prefect(directory / "prefect"))
            pids.append(pid)
        except OSError as error:
            failed["prefect"] = str(error)
    place = Place(server.url, SCHEMA, directory, ports, environment)
    return Servers(place, tuple(pids), tuple(versions), failed, processors)


@contextmanager
def _redis(directory: Path, options: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    """A Redis of our own, without a file of settings: its port and process."""
    directory.mkdir()
    port, program = _free_port(), shutil.which("redis-server") or ""
    command = [program, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(directory), *options]
    with _process(command, directory) as process:
        _wait_for(lambda: _pong(port), process, "redis-server")
        yield port, process.pid


def _pong(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(b"PING\r\n")
        return connection.recv(16).startswith(b"+PONG")


@contextmanager
def _prefect(directory: Path) -> Iterator[tuple[dict[str, str], int]]:
    """Prefect's server with a SQLite file, and what says to its clients where it is."""
    directory.mkdir()
    port = _free_port()
    environment = {
        "PREFECT_HOME": str(directory),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_LEVEL": "ERROR",
        "DO_NOT_TRACK": "1",
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    api = f"http://127.0.0.1:{port}/api"
    with _process(command, directory, environment) as process:
        _wait_for(lambda: _healthy(api), process, "Prefect's server")
        yield environment | {"PREFECT_API_URL": api}, process.pid


def _healthy(api: str) -> bool:
    with urllib.request.urlopen(f"{api}/health", timeout=5) as answer:
        return bool(answer.status == 200)


@contextmanager
def _process(
    command: list[str], directory: Path, further: dict[str, str] | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """A server that is asked to end after the block, and ended where it does not."""
    with (directory / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | (further or {}), cwd=directory)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_for(ready: Callable[[], bool], process: "subprocess.Popen[bytes]", server: str) -> None:
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until and process.poll() is None:
        with suppress(OSError):
            if ready():
                return
        time.sleep(0.1)
    ended = "" if process.returncode is None else f": it ended with {process.returncode}"
    raise TimeoutError(f"no answer from {server}{ended}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _redis_version() -> str:
    words = subprocess.run(["redis-server", "--version"], check=True, capture_output=True, text=True).stdout.split()
    return f"Redis {next(word[2:] for word in words if word.startswith('v='))}"


def _threads(pid: int) -> list[int]:
    """All threads of a process and of its children."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((directory / "stat").read_text().rpartition(")")[2].split()[1])
            if directory.name == str(pid) or parent == pid:
                found += [int(thread.name) for thread in (directory / "task").iterdir()]
        except OSError:
            continue
    return found
