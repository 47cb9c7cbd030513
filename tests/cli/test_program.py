"""The installed program, as a shell starts it: how it prints, and how it ends."""

import json
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.cli import PROGRAM, on_terminal
from tests.support.database import psycopg_url


def run(*arguments: str, env: dict[str, str], **options: Any) -> "subprocess.CompletedProcess[str]":
    command = [str(PROGRAM), *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False, **options)


class TestProcesses:
    """The installed program, as a shell starts it."""

    def test_results_by_hand(self, environment: dict[str, str], storage: PostgresStorage) -> None:
        there = ("--storage", storage.name)
        assert run(*there, "put", "k", "-", env=environment, input="hi").returncode == 0
        assert run(*there, "get", "k", env=environment).stdout == '"hi"\n'
        assert run(*there, "rm", "k", env=environment).returncode == 0
        failed = run(*there, "get", "k", env=environment)
        assert (failed.returncode, failed.stdout, failed.stderr.count("\n")) == (1, "", 1)
        assert "\x1b" not in failed.stderr

    def test_a_schema(self, environment: dict[str, str]) -> None:
        assert run("db", "check", env=environment).stdout == "schema pgresults is up to date\n"

    def test_version_and_usage(self, environment: dict[str, str]) -> None:
        assert re.fullmatch(r"\d+\.\d+\.\d+\n", run("--version", env=environment).stdout)
        assert run("no-such-command", env=environment).returncode == 2

    def test_an_embedded_server_starts_tells_and_stops(self, tmp_path: Path) -> None:
        environment = os.environ | {"PGRESULTS_EMBEDDED_PATH": str(tmp_path / "server")}
        idle = json.loads(run("embedded", "status", "--json", env=environment).stdout)
        assert (idle["running"], idle["url"]) == (False, None)
        assert not (tmp_path / "server").exists()
        try:
            url = run("embedded", "start", env=environment).stdout.strip()
            with psycopg.connect(url) as connection:
                assert connection.execute("SELECT 1").fetchone() == (1,)
            assert run("put", "k", "x", env=environment).returncode == 0
            status = run("embedded", "status", str(tmp_path / "server"), env=os.environ.copy()).stdout
            assert "running\tyes\n" in status
        finally:
            stopped = run("embedded", "stop", env=environment)
        assert stopped.stdout == f"{tmp_path}/server: stopped\n"
        assert run("embedded", "stop", env=environment).stdout == f"{tmp_path}/server: no server runs here\n"

    def test_a_reader_that_goes_away_ends_it_quietly(self, environment: dict[str, str], store: ResultStore) -> None:
        store.write(b"x" * 1_000_000, key="k")
        there = ("--storage", store.result_storage.name)
        reading, writing = os.pipe()
        os.close(reading)
        command = [str(PROGRAM), *there, "get", "k"]
        process = subprocess.Popen(command, env=environment, stdout=writing, stderr=subprocess.PIPE)
        os.close(writing)
        _, error = process.communicate(timeout=60)
        assert (process.returncode, error) == (141, b"")

    def test_ctrl_c_while_it_waits(self, environment: dict[str, str], storage: PostgresStorage) -> None:
        with psycopg.connect(psycopg_url(storage.database.url())) as blocker:
            blocker.execute("LOCK TABLE pgresults.result IN ACCESS EXCLUSIVE MODE")
            command = [str(PROGRAM), "--storage", storage.name, "ls"]
            process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
            while not _is_waiting(blocker):
                assert process.poll() is None
            process.send_signal(signal.SIGINT)
            _, error = process.communicate(timeout=60)
        assert (process.returncode, error) == (130, "")

    def test_a_terminal_gets_a_table(self, environment: dict[str, str], store: ResultStore) -> None:
        store.write(1, key="[red]\x1b[31m")
        command = [str(PROGRAM), "--storage", store.result_storage.name, "ls"]
        printed = on_terminal(command, environment)
        assert "written" in printed
        assert "[red]\\u001b[31m" in printed

    def test_bytes_do_not_reach_a_terminal(self, environment: dict[str, str], store: ResultStore) -> None:
        store.write(b"\x1b[31m", key="k")
        command = [str(PROGRAM), "--storage", store.result_storage.name, "get", "k"]
        assert "1b 5b 33 31 6d" in on_terminal(command, environment)

    @pytest.mark.parametrize("value", [b"\x1b[31m", "\x1b]0;title\a", b"\x00\xff", "\u202e"], ids=repr)
    def test_nothing_raw_steers_a_terminal(
        self, environment: dict[str, str], store: ResultStore, value: bytes | str
    ) -> None:
        store.write(value, key="k")
        command = [str(PROGRAM), "--storage", store.result_storage.name, "get", "k", "--raw"]
        told = on_terminal(command, environment, code=1)
        assert "--output" in told
        assert "\x1b]0" not in told

    def test_a_plain_text_reaches_a_terminal_raw(self, environment: dict[str, str], store: ResultStore) -> None:
        store.write("grün\n\tand more\n", key="k")
        command = [str(PROGRAM), "--storage", store.result_storage.name, "get", "k", "--raw"]
        assert on_terminal(command, environment) == "grün\r\n\tand more\r\n"


def _is_waiting(blocker: "psycopg.Connection[Any]") -> bool:
    waiting = "SELECT FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))"
    return blocker.execute(waiting).fetchone() is not None
