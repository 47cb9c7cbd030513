"""Storages and schemas that are none: refused with those that are there; made only when that is asked for."""

import json
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import URL

from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.cli import Cli, refused, succeeded
from tests.support.database import psycopg_url

READING = [
    ["ls"], ["get", "k"], ["show", "k"], ["history", "k"], ["diff", "k", "1", "2"], ["verify"], ["verify", "k"],
    ["stats"], ["seal"], ["export"], ["expiring", "--within", "1d"], ["locks"], ["explain", "k"], ["log"],
]  # fmt: skip
CHANGING = [
    ["sweep"], ["retain", "--versions", "1", "--yes"], ["rm", "k"], ["rm", "--prefix", "k", "--yes"],
    ["touch", "k", "--never"], ["redact", "k", "--yes", "--reason", "law"], ["locks", "break", "k", "--reason", "why"],
]  # fmt: skip
WRITING = [["put", "k", "x"], ["import", "file", "results.jsonl"], ["import", "prefect", "."], ["demo", "--limit", "1"]]


@pytest.fixture(scope="module")
def shared(create_database: Callable[[], URL]) -> str:
    """A database with the storages ``default`` and ``team``."""
    return filled(create_database())


@pytest.fixture
def there(fresh_url: URL) -> str:
    """Such a database of the test's own."""
    return filled(fresh_url)


def filled(url: URL) -> str:
    for name in ("default", "team"):
        storage = PostgresStorage(url, name=name)
        ResultStore(result_storage=storage).write([name], key="k")
        storage.close()
    return psycopg_url(url)


@pytest.fixture(autouse=True)
def _in_a_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results.jsonl").touch()


@pytest.mark.parametrize("command", READING + CHANGING + WRITING, ids=" ".join)
def test_a_mistyped_storage_is_wrong_usage(cli: Cli, shared: str, command: list[str]) -> None:
    error = refused(cli("--storage", "taem", *command, url=shared), code=2)
    assert "there is no storage named 'taem'; there are: 'default', 'team'" in error
    assert ("--create" in error) == (command in WRITING)
    with psycopg.connect(shared) as connection:
        assert connection.execute("SELECT count(*) FROM pgresults.storage").fetchone() == (2,)


def test_of_many_storages_the_most_similar_are_named(cli: Cli, fresh_url: URL) -> None:
    url = psycopg_url(fresh_url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO pgresults.storage (id, name, created_at) SELECT gen_random_uuid(), name, now() FROM "
            "(SELECT 'other-' || n FROM generate_series(1, 1000) n UNION ALL SELECT 'reports') AS storages (name)"
        )
    error = refused(cli("--storage", "report", "ls", url=url), code=2)
    assert "'reports'" in error
    assert error.count("'other-") == 9
    assert "and 991 more" in error


def test_a_storage_is_made_when_asked_for(cli: Cli, there: str) -> None:
    succeeded(cli("export", "-o", "results.jsonl", url=there))
    succeeded(cli("--storage", "new", "put", "k", "x", "--create", url=there))
    succeeded(cli("--storage", "new", "put", "k", "x", url=there))
    succeeded(cli("--storage", "newer", "import", "file", "results.jsonl", "--create", url=there))
    rows = json.loads(succeeded(cli("storages", "--json", url=there)))
    assert [(row["storage"], row["keys"], row["live"]) for row in rows] == [
        ("default", 1, 1), ("new", 1, 1), ("newer", 1, 1), ("team", 1, 1),
    ]  # fmt: skip
    assert {row["live_bytes"] > 0 for row in rows} == {True}


def test_the_default_storage_need_not_be_there(cli: Cli, fresh_url: URL) -> None:
    url = psycopg_url(fresh_url)
    assert succeeded(cli("storages", url=url)) == ""
    for options in ((), ("--storage", "default")):
        assert succeeded(cli(*options, "ls", url=url)) == ""
    succeeded(cli("put", "k", "x", url=url))
    assert succeeded(cli("storages", url=url)).startswith("default\t")


@pytest.mark.parametrize("command", [["ls"], ["storages"], ["put", "k", "x"], ["db", "grant", "x", "--as", "reader"]])
def test_a_mistyped_schema_is_wrong_usage(cli: Cli, shared: str, command: list[str]) -> None:
    error = refused(cli("--schema", "typo", *command, url=shared), code=2)
    assert "there is no schema of pgresults named 'typo'; there are: 'pgresults'" in error
    assert "`pgresults db upgrade` makes it" in error


def test_no_schema_is_made_on_an_embedded_server_but_when_asked_for(
    cli: Cli, there: str, fresh_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Server:
        """An embedded server, as far as a database looks at it: one on which schemas are made without being asked."""

        url = there
        path = Path("somewhere")

        def ensure_running(self) -> str:
            return there

        def is_running(self) -> bool:
            return True

    monkeypatch.setattr("pgresults.database.database._embedded", lambda _: Server())
    for command in (["ls"], ["put", "k", "x"]):
        refused(cli("--schema", "typo", *command, url=there), code=2)
    assert schemas(there) == ["pgresults"]
    succeeded(cli("--schema", "meant", "put", "k", "x", "--create", url=there))
    assert schemas(there) == ["meant", "pgresults"]
    assert succeeded(cli("--schema", "meant", "ls", url=there)).startswith("k\t")


def schemas(url: str) -> list[str]:
    query = "SELECT nspname FROM pg_namespace WHERE nspname !~ '^(pg_|information|public)' ORDER BY 1"
    with psycopg.connect(url) as connection:
        return [name for (name,) in connection.execute(query)]
