"""Postgres in a directory: shared, durable, restarted after any death, and closed to everybody else."""

import os
import pickle
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.pool import NullPool

from pgresults.errors import ConfigurationError
from pgresults.server import binaries
from pgresults.server.embedded import EmbeddedPostgres

PRELUDE = """
import os, signal, sys
import psycopg
from pgresults.server.embedded import ConfigurationError, EmbeddedPostgres
if user := int(sys.argv[1]):
    os.setgroups([]); os.setgid(user); os.setuid(user)
"""
START_AND_DIE = """
print(EmbeddedPostgres(sys.argv[2]).url, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
CONNECT = """
try:
    psycopg.connect(sys.argv[2])
except psycopg.OperationalError as error:
    print(error)
"""
OPEN = """
try:
    EmbeddedPostgres(sys.argv[2]).url
except ConfigurationError as error:
    print(error)
"""
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(tmp_path / "new" / "server")
    yield server
    server.stop()


def ask(server: EmbeddedPostgres, query: str) -> object:
    with psycopg.connect(server.ensure_running()) as connection:
        row = connection.execute(query).fetchone()
    return row[0] if row else None


def is_alive(pid: int) -> bool:
    command = ["ps", "-o", "stat=", "-p", str(pid)]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()[:1] not in ("", "Z")


def run_python(code: str, *arguments: object, uid: int = 0) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-c", PRELUDE + code, str(uid), *map(str, arguments)]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE)


def test_many_first_users_share_one_server_that_outlives_them(server: EmbeddedPostgres) -> None:
    children = [run_python(START_AND_DIE, server.path) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        urls = {
            future.result() for future in [pool.submit(EmbeddedPostgres(server.path).ensure_running) for _ in range(4)]
        }
    for child in children:
        urls.add(child.communicate()[0].strip())
        assert child.returncode == -signal.SIGKILL
    assert urls == {server.url}
    assert (server.data_directory / "server.log").read_text().count("starting PostgreSQL") == 1
    assert ask(server, "SELECT 1") == 1


def test_is_durable_private_and_without_our_environment(
    server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPORT", "7777")
    monkeypatch.setenv("SECRET", "s3cret")
    settings = (
        "fsync",
        "full_page_writes",
        "data_checksums",
        "listen_addresses",
        "server_encoding",
        "max_connections",
    )
    found = [ask(server, f"SELECT current_setting('{name}')") for name in settings]
    assert found == ["on", "on", "on", "", "UTF8", "400"]
    assert stat.S_IMODE(server.data_directory.stat().st_mode) == 0o700
    environment = Path("/proc", str(server.status().pid), "environ")
    if environment.exists():
        assert b"s3cret" not in environment.read_bytes()


def test_a_stopped_server_starts_again_on_request(server: EmbeddedPostgres) -> None:
    assert not server.is_running()
    server.stop()
    assert not server.path.exists()
    url = server.url
    other = EmbeddedPostgres(server.path)
    running = other.status()
    assert (running.running, running.url, running.server_version[:3]) == (True, url, "18.")
    assert running.size > 10_000_000
    other.stop()
    other.stop()
    stopped = server.status()
    assert (stopped.running, stopped.pid, stopped.url) == (False, None, None)
    assert server.url == url
    assert not server.is_running()
    assert server.ensure_running() == url
    assert server.status().pid not in (None, running.pid)


@pytest.mark.parametrize("stopped", [False, True])
def test_a_killed_postmaster_leaves_nothing_behind_and_loses_nothing(server: EmbeddedPostgres, stopped: bool) -> None:
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS value")
    with closing(psycopg.connect(server.url, autocommit=True)) as busy:
        backend = busy.info.backend_pid
        busy.pgconn.send_query(b"DO $$ BEGIN LOOP END LOOP; END $$")  # never looks for its postmaster
        while ask(server, f"SELECT state FROM pg_stat_activity WHERE pid = {backend}") != "active":
            pass
        os.kill(server.status().pid or 0, signal.SIGKILL)
        while server.is_running():
            pass
        if stopped:
            server.stop()
            assert not is_alive(backend)
        assert ask(server, "SELECT value FROM kept") == 42
        assert not is_alive(backend)


def test_a_pid_that_now_is_another_programs_is_not_believed(server: EmbeddedPostgres) -> None:
    server.ensure_running()
    names = ("postmaster.pid", ".s.PGSQL.5432.lock")
    left = {name: (server.data_directory / name).read_text().split("\n", 1)[1] for name in names}
    server.stop()
    owner = server.data_directory.stat().st_uid
    with subprocess.Popen(["sleep", "100"], user=owner if os.geteuid() == 0 else None) as stranger:
        try:
            for name, lines in left.items():
                (server.data_directory / name).write_text(f"{stranger.pid}\n{lines}")
                shutil.chown(server.data_directory / name, owner)
            assert not server.is_running()
            server.stop()
            assert ask(server, "SELECT 1") == 1
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_long_and_odd_paths_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPORT", "7777")
    for path in (tmp_path / "a b+c=~d", tmp_path / "née $(x), 'y':\"z\"" / ("deep" * 50) / ("deeper" * 30)):
        server = EmbeddedPostgres(path)
        try:
            assert ask(server, "SELECT 1") == 1
            url = make_url(server.url).set(drivername="postgresql+psycopg")
            with create_engine(url, poolclass=NullPool).connect() as connection:
                assert connection.scalar(text("SELECT 2")) == 2
        finally:
            server.stop()


def test_what_is_not_ours_is_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "letter").write_text("dear")
    for path in (tmp_path, tmp_path / "letter", tmp_path / "letter" / "below"):
        with pytest.raises(ConfigurationError, match="choose "):
            EmbeddedPostgres(path).ensure_running()
    assert [entry.name for entry in tmp_path.iterdir()] == ["letter"]


def test_data_of_another_postgres_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "PG_VERSION").write_text("16\n")
    (tmp_path / "pgresults.lock").touch()
    with pytest.raises(ConfigurationError, match=r"Postgres 16.*Postgres 18.*pg_upgrade"):
        EmbeddedPostgres(tmp_path).ensure_running()


def test_without_the_extra_the_error_says_both_ways_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "find_spec", lambda _: None)
    monkeypatch.setattr(binaries, "bin_directory", binaries.bin_directory.__wrapped__)
    with pytest.raises(ConfigurationError, match=r"pgresults\[embedded\].*PGRESULTS_DATABASE_URL"):
        EmbeddedPostgres(tmp_path / "new").ensure_running()
    assert not (tmp_path / "new").exists()


def test_is_a_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    server = EmbeddedPostgres("x/../here")
    assert server == EmbeddedPostgres(tmp_path / "here") == pickle.loads(pickle.dumps(server))
    assert len({server, EmbeddedPostgres(tmp_path / "here")}) == 1
    assert server != EmbeddedPostgres(tmp_path)
    assert repr(server) == f"EmbeddedPostgres('{tmp_path}/here')"


@as_root
def test_an_ordinary_user_has_a_server_of_his_own_that_root_can_share() -> None:
    nobody = pwd.getpwnam("nobody").pw_uid
    home = Path(tempfile.mkdtemp())
    server = EmbeddedPostgres(home / "server")
    try:
        os.chown(home, nobody, -1)
        home.chmod(0o755)
        child = run_python(START_AND_DIE, server.path, uid=nobody)
        assert child.communicate()[0].strip() == server.url
        process = Path("/proc", str(server.status().pid))
        assert process.stat().st_uid == nobody
        assert ask(server, "SELECT 1") == 1
        server.stop()
        server.ensure_running()  # by root, in the name of the owner
        assert {path.stat().st_uid for path in home.rglob("*")} == {nobody}
    finally:
        server.stop()
        shutil.rmtree(home)


@as_root
@pytest.mark.parametrize("swapped", ["a link", "a directory with something in it"])
def test_root_gives_nothing_else_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swapped: str) -> None:
    server, victim, make = EmbeddedPostgres(tmp_path / "server"), tmp_path / "victim", tempfile.mkdtemp
    server.path.mkdir()
    victim.mkdir()
    (victim / "secret").touch()

    def swap(**place: Any) -> str:
        """What the directory's owner may do in the moment after it was made."""
        made = Path(make(**place))
        made.rmdir()
        if swapped == "a link":
            made.symlink_to(victim)
        else:
            victim.rename(made)
        return str(made)

    monkeypatch.setattr(tempfile, "mkdtemp", swap)
    with pytest.raises(ConfigurationError):
        server.ensure_running()
    monkeypatch.undo()
    left = [path for path in tmp_path.rglob("*") if path.name in ("victim", "secret")]
    assert left
    assert {path.stat().st_uid for path in left} == {0}


@as_root
def test_root_gives_no_other_file_away_as_the_lock(tmp_path: Path) -> None:
    nobody = pwd.getpwnam("nobody").pw_uid
    server, victim = EmbeddedPostgres(tmp_path / "server"), tmp_path / "victim"
    victim.touch()
    server.path.mkdir()
    os.chown(server.path, nobody, -1)
    os.link(victim, server.path / "pgresults.lock")
    server._locked().__enter__()
    assert victim.stat().st_uid == 0


@as_root
def test_another_user_is_kept_out() -> None:
    nobody = pwd.getpwnam("nobody").pw_uid
    home = Path(tempfile.mkdtemp())
    server = EmbeddedPostgres(home / "server")
    home.chmod(0o755)
    try:
        url = server.url
        server.path.chmod(0o755)  # what stays closed is the data directory
        assert "Permission denied" in run_python(CONNECT, url, uid=nobody).communicate()[0]
        assert "Permission denied" in run_python(OPEN, server.path, uid=nobody).communicate()[0]
    finally:
        server.stop()
        shutil.rmtree(home)
