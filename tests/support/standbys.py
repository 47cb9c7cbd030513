"""Servers beside each other: one that repeats what another one does."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from sqlalchemy import URL, make_url

from pgresults.server import binaries
from pgresults.server.embedded import EmbeddedPostgres


@contextmanager
def standby_of(server: EmbeddedPostgres) -> Iterator[EmbeddedPostgres]:
    """A standby that follows a server until the end of the block; their user has to reach both by their paths."""
    owner = server.data_directory.stat()
    with tempfile.TemporaryDirectory(prefix="pgresults-standby-") as directory:
        standby = EmbeddedPostgres(directory)
        for path, mode in ((standby.path, 0o755), (standby.data_directory, 0o700)):
            path.mkdir(exist_ok=True)
            path.chmod(mode)
            os.chown(path, owner.st_uid, owner.st_gid)
        (standby.path / "pgresults.lock").touch()
        connection = f"--dbname={server.url}"
        binaries.run(
            "pg_basebackup", connection, "--write-recovery-conf", "-c", "fast", directory=standby.data_directory
        )
        try:
            standby.ensure_running()
            yield standby
        finally:
            standby.stop()


@contextmanager
def own_server() -> Iterator[EmbeddedPostgres]:
    """A server that its own user can reach by its path."""
    with tempfile.TemporaryDirectory(prefix="pgresults-server-") as directory:
        Path(directory).chmod(0o755)
        server = EmbeddedPostgres(directory)
        try:
            server.ensure_running()
            yield server
        finally:
            server.stop()


def url_of(server: EmbeddedPostgres) -> URL:
    return make_url(server.url).set(drivername="postgresql+psycopg")


def caught_up(primary: EmbeddedPostgres, standby: EmbeddedPostgres) -> None:
    """Wait until a standby has done all that its primary has."""
    with psycopg.connect(primary.url) as there, psycopg.connect(standby.url, autocommit=True) as here:
        (now,) = there.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone() or ("0/0",)
        while here.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", [now]).fetchone() != (True,):
            pass
