"""Wrong usage: exit code 2, in words of ours, with what was probably meant."""

import os
from errno import EACCES
from pathlib import Path

import pytest
from sqlalchemy import URL

from pgresults.store import ResultStore
from tests.support.cli import Cli, refused


@pytest.mark.parametrize(
    "arguments",
    [
        ["get", ""],
        ["put", "k" * 3000, "x"],
        ["explain", ""],
        ["put", "k", "x", "--force", "--reason", ""],
        ["put", "k", "x", "--tag", ""],
        ["ls", "--tag", ""],
        ["import", "prefect", "/no/such/directory"],
        ["import", "prefect", ""],
        ["import", "prefect", " "],
    ],
)
def test_what_was_said_wrongly_ends_with_2(cli: Cli, store: ResultStore, arguments: list[str]) -> None:
    refused(cli(*arguments), code=2)
    assert store.find() == []


@pytest.mark.parametrize("url", ["mysql://a/b", "a/directory", "postgresql://h:port/db", " "])
@pytest.mark.parametrize("command", [["ls"], ["db", "check"], ["put", "k", "x"], ["locks"]])
def test_no_database_ends_with_2(cli: Cli, url: str, command: list[str]) -> None:
    assert "postgresql://" in refused(cli(*command, url=url), code=2)


@pytest.mark.parametrize(
    ("name", "value"),
    [("POOL_SIZE", "many"), ("DATABASE_SCHEMA", "pg_catalog"), ("ALLOW_PICKLE", "perhaps"), ("DATABSE_URL", "x")],
)
def test_a_wrong_setting_ends_with_2(cli: Cli, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"PGRESULTS_{name}", value)
    assert refused(cli("ls"), code=2).startswith("error: ")


def test_what_failed_ends_with_1(cli: Cli, fresh_url: URL) -> None:
    assert "nobody holds the lock" in refused(cli("locks", "break", "k", "--reason", "why"))
    assert "refuses this user" in refused(cli("ls", url=str(fresh_url.set(database="no_such_database"))))
    assert "not usable" in refused(cli("ls", url=f"{fresh_url}&bogus=1" if fresh_url.query else f"{fresh_url}?bogus=1"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["ls", "--sort", "bogus"],
        ["db", "grant", "somebody", "--as", "bogus"],
        ["export", "--format", "bogus"],
        ["log", "--action", "bogus"],
    ],
)
def test_a_choice_is_refused_with_those_there_are(cli: Cli, arguments: list[str]) -> None:
    told = refused(cli(*arguments), code=2)
    assert "'bogus' is not one of" in told
    assert "Value error" not in told


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["lss"], "ls"),
        (["find"], "ls"),
        (["list"], "ls"),
        (["write", "k", "x"], "put"),
        (["read", "k"], "get"),
        (["delete", "k"], "rm"),
        (["invalidate", "k"], "rm"),
        (["upgrade"], "db upgrade"),
        (["db", "upgrde"], "upgrade"),
        (["--shcema", "x", "ls"], "--schema"),
        (["ls", "--sotr", "size"], "--sort"),
        (["db", "sql", "--form", "0001"], "--from"),
    ],
)
def test_what_was_probably_meant_is_said(cli: Cli, arguments: list[str], meant: str) -> None:
    told = " ".join(refused(cli(*arguments), code=2).replace("│", " ").split())
    assert f"'{meant}'" in told.partition("Did you mean")[2]


@pytest.mark.parametrize("closed", [".", "sub", "sub/dir"])
def test_a_directory_that_cannot_be_read_is_no_empty_one(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: str
) -> None:
    (tmp_path / "sub" / "dir").mkdir(parents=True)
    looked_into = os.scandir

    def refuse(path: str) -> object:  # root, as whom the tests may run, looks into everything
        if Path(path) == tmp_path / closed:
            raise PermissionError(EACCES, "Permission denied", str(path))
        return looked_into(path)

    monkeypatch.setattr("os.scandir", refuse)
    told = cli("import", "prefect", str(tmp_path), "--dry-run")
    assert (told.exit_code, "1 unreadable" in told.stdout) == (1, True)
    assert told.stderr.startswith(f"{closed}: PermissionError")
