"""Which servers run on this machine, and what is said where a second one is begun by mistake."""

import json
import logging
import os
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pgresults.cli.app import app
from pgresults.server.embedded import EmbeddedPostgres
from pgresults.server.others import elsewhere, running_servers


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory with a directory of projects in it."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "projects" / "one").mkdir(parents=True)
    return tmp_path / "home"


def _has_data(directory: Path) -> Path:
    (directory / "data").mkdir(parents=True)
    (directory / "data" / "PG_VERSION").touch()
    return directory


def test_a_server_in_a_directory_above_is_noticed(home: Path) -> None:
    above = _has_data(home / "projects" / ".pgresults")
    assert elsewhere(home / "projects" / "one" / ".pgresults") == above
    assert elsewhere(home / "projects" / "one" / "other") is None
    assert elsewhere(above) is None


def test_a_server_in_the_home_directory_is_noticed_from_anywhere(home: Path, tmp_path: Path) -> None:
    assert elsewhere(tmp_path / "elsewhere" / ".pgresults") is None
    assert elsewhere(tmp_path / "elsewhere" / ".pgresults") != _has_data(home / ".pgresults")
    assert elsewhere(tmp_path / "elsewhere" / ".pgresults") == home / ".pgresults"


def test_a_first_server_is_listed_ignored_by_git_and_told_of_where_a_second_one_is_made(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = _has_data(home / "projects" / ".pgresults")
    server = EmbeddedPostgres(home / "projects" / "one" / ".pgresults")
    try:
        with caplog.at_level(logging.WARNING, "pgresults.server.embedded"):
            server.ensure_running()
            server.ensure_running()
        [said] = [record.getMessage() for record in caplog.records]
        assert f"PGRESULTS_EMBEDDED_PATH={other}" in said
        assert (server.path / ".gitignore").read_text() == "*\n"
        listed = json.loads(CliRunner().invoke(app, ["embedded", "list", "--json"]).stdout)
        pid = server.status().pid
        assert {"path": str(server.path), "pid": pid, "exists": True} in listed
        moved = server.path.with_name("moved")
        server.path.rename(moved)
        assert [found.path for found in running_servers() if found.pid == pid] == [moved]
        moved.rename(server.path)
    finally:
        server.stop()
    while pid in {found.pid for found in running_servers()}:  # it may take a moment to end after its file is gone
        pass


def test_a_server_without_its_directory_is_listed_as_such(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "server")
    server.ensure_running()
    pid = server.status().pid
    assert pid is not None
    shutil.rmtree(server.path)
    try:
        [found] = [found for found in running_servers() if found.pid == pid]
        assert (found.path, found.exists) == (server.path, False)
        row = next(row for row in CliRunner().invoke(app, ["embedded", "list"]).stdout.splitlines() if str(pid) in row)
        assert "removed" in row
    finally:
        os.kill(pid, 3)  # it cannot shut down in an orderly way any more
