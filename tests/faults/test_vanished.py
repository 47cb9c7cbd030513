"""Clients whose cable is pulled: nobody says that they are gone, and what they held is free again all the same.

It takes a network namespace, and therefore root on Linux.
"""

import itertools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import uuid4

import pytest
from sqlalchemy import make_url

from pgresults import PostgresStorage, ResultStore
from pgresults.database import migrations
from pgresults.errors import StorageUnavailable
from pgresults.server import binaries
from pgresults.server.embedded import EmbeddedPostgres
from pgresults.settings import Settings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

PORT = "5544"
_NETWORKS = itertools.count(1)


@dataclass
class Cable:
    """What connects this machine with another one: a namespace of its network."""

    name: str = field(default_factory=lambda: f"pgr{uuid4().hex[:6]}")
    network: str = field(default_factory=lambda: f"10.231.{next(_NETWORKS)}")

    @property
    def near_end(self) -> str:
        """The address of this machine."""
        return f"{self.network}.1"

    def plug(self) -> None:
        """Lay it."""
        near, far = f"{self.name}-a", f"{self.name}-b"
        self._ip("netns", "add", self.name)
        self._ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", self.name)
        self._ip("addr", "add", f"{self.near_end}/30", "dev", near)
        self._ip("link", "set", near, "up")
        self._ip("-n", self.name, "addr", "add", f"{self.network}.2/30", "dev", far)
        self._ip("-n", self.name, "link", "set", far, "up")

    def pull(self) -> None:
        """Have all that is sent from now on get lost."""
        self._ip("-n", self.name, "link", "set", f"{self.name}-b", "down")

    def remove(self) -> None:
        """Take it away."""
        self._ip("link", "del", f"{self.name}-a")  # the namespace lasts as long as connections in it wait for answers
        self._ip("netns", "del", self.name)

    @contextmanager
    def run(self, program: str, *arguments: str) -> Iterator[None]:
        """Run a program on the other machine until it says that it is ready, and pull the cable."""
        command = ["ip", "netns", "exec", self.name, sys.executable, "-c", program, *arguments]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n"
                self.pull()
                yield
            finally:
                process.kill()

    def _ip(self, *arguments: str) -> None:
        subprocess.run(("ip", *arguments), check=True, capture_output=True)


@pytest.fixture
def cable() -> Iterator[Cable]:
    if os.geteuid() or shutil.which("ip") is None:
        pytest.skip("a network namespace takes root and the program ip")
    cable = Cable()
    cable.plug()
    yield cable
    cable.remove()


@pytest.fixture
def address(server: EmbeddedPostgres, cable: Cable) -> Iterator[str]:
    """The address of the server, which listens on the near end of the cable, too."""
    directory = server.data_directory
    server.stop()
    with (directory / "pg_hba.conf").open("a") as rules:
        rules.write(f"host all all {cable.network}.0/30 trust\n")
    options = f"-k . -h {cable.near_end} -p {PORT}"
    binaries.run("pg_ctl", "start", "-w", "-l", "server.log", "-o", options, directory=directory)
    migrations.upgrade(make_url(f"postgresql+psycopg://postgres@{cable.near_end}:{PORT}/postgres"))
    yield f"postgresql://postgres@{cable.near_end}:{PORT}/postgres"
    binaries.run("pg_ctl", "stop", "-m", "immediate", directory=directory)


@pytest.fixture
def near(server: EmbeddedPostgres, address: str) -> Iterator[ResultStore]:
    """A store on this machine."""
    storage = PostgresStorage(f"postgresql://postgres@/postgres?host={server.data_directory}&port={PORT}")
    yield ResultStore(result_storage=storage, lock_manager=storage.lock_manager())
    storage.close()


HOLDER = """
import sys
from pgresults import PostgresStorage, ResultStore
storage = PostgresStorage(sys.argv[1])
store = ResultStore(result_storage=storage, lock_manager=storage.lock_manager())
store.acquire_lock("k", "vanished")
print("ready", flush=True)
while sys.argv[2] == "busy":  # an answer is under way at any time
    store.acquire_lock("other")
    store.release_lock("other")
sys.stdin.readline()
"""


@pytest.mark.parametrize("doing", ["idle", "busy"])
def test_the_lock_of_who_vanished_is_taken_over(near: ResultStore, cable: Cable, address: str, doing: str) -> None:
    assert near.lock_manager is not None
    with cable.run(HOLDER, address, doing):
        begun = time.monotonic()
        assert near.acquire_lock("k", "next", timeout=60)
        assert time.monotonic() - begun < 30


WRITER = """
import sys

from pgresults import PostgresStorage, ResultStore
from pgresults.settings import Settings
storage = PostgresStorage(sys.argv[1], settings=Settings(response_timeout=10))
store = ResultStore(result_storage=storage)
store.write(1, key="k")
connection = storage.database.connect()
connection.execute("BEGIN")
connection.execute("UPDATE pgresults.result SET holder = holder WHERE key = 'k'")
print("ready", flush=True)
sys.stdin.readline()
"""


def test_the_rows_of_who_vanished_in_a_commit_are_free_again(
    server: EmbeddedPostgres, cable: Cable, address: str
) -> None:
    url = f"postgresql://postgres@/postgres?host={server.data_directory}&port={PORT}"
    store = ResultStore(result_storage=PostgresStorage(url, settings=Settings(response_timeout=10)))
    failed: list[bool] = []
    with cable.run(WRITER, address):
        begun = time.monotonic()
        while True:
            try:
                version = store.write(2, key="k").version
            except StorageUnavailable as failure:
                failed.append(failure.outcome_unknown)
            else:
                break
        assert time.monotonic() - begun < 20
    assert version == 2
    assert not any(failed)
    assert [entry.version for entry in store.history("k")] == [1, 2]
    assert store.verify().intact
    store.result_storage.close()
