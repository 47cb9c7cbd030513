"""The command line on the test's own storage."""

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from pgresults.cli.app import app
from pgresults.database.programs import perform
from pgresults.storage import PostgresStorage
from tests.support.cli import Cli
from tests.support.database import psycopg_url


@pytest.fixture
def cli(storage: PostgresStorage) -> Cli:
    """Runs the program within this process, on the test's own storage."""
    perform(storage._register())
    own = psycopg_url(storage.database.url())

    def run(*arguments: str, stdin: str | bytes | None = None, url: str = own) -> Result:
        options = ("--database-url", url, *(("--storage", storage.name) if url == own else ()))
        return CliRunner().invoke(app, [*options, *arguments], input=stdin)

    return run


@pytest.fixture
def signing_cli(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    """Runs the program with a key of the test's own."""
    monkeypatch.setenv("PGRESULTS_SEAL_KEY", str(tmp_path / "seal.pem"))
    return cli


@pytest.fixture
def environment(storage: PostgresStorage) -> dict[str, str]:
    """The environment of a real process that works on the test's database, where the test's storage is known."""
    perform(storage._register())
    return os.environ | {"PGRESULTS_DATABASE_URL": psycopg_url(storage.database.url()), "COLUMNS": "300"}
