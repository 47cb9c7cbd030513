"""The commands over a schema, and what roles made by them may do."""

from collections.abc import Iterator
from dataclasses import dataclass
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import URL
from typer.testing import CliRunner

from pgresults.cli.app import app
from pgresults.sql.schema import REVISION
from tests.support.cli import Cli, refused, succeeded
from tests.support.database import psycopg_url


@dataclass(frozen=True)
class Granted:
    """A database made by ``pgresults db sql`` alone, with URLs of its two roles."""

    owner: str
    writer: str
    reader: str


@pytest.fixture
def granted(empty_url: URL) -> Iterator[Granted]:
    writer, reader = f"writer_{uuid4().hex}", f'odd"reader"{uuid4().hex}'
    script = CliRunner().invoke(app, ["--schema", "Odd schema", "db", "sql", "--writer", writer, "--reader", reader])
    with psycopg.connect(psycopg_url(empty_url), autocommit=True) as owner:
        if owner.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone() != (True,):
            pytest.skip("only a superuser can become any role")
        owner.execute(succeeded(script))
        owner.execute(succeeded(script).rpartition("COMMIT;")[2])  # grants may be run again
        urls = [_as_role(empty_url, role) for role in (writer, reader)]
        yield Granted(psycopg_url(empty_url), *urls)
        for role in map(psycopg.sql.Identifier, (writer, reader)):
            owner.execute(psycopg.sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(role))


def _as_role(url: URL, role: str) -> str:
    return psycopg_url(url.update_query_dict({"options": f"-crole={role}"}))


class TestDatabase:
    def test_upgrade_makes_a_database_usable(self, cli: Cli, empty_url: URL) -> None:
        url = psycopg_url(empty_url)
        assert succeeded(cli("db", "current", url=url)) == "none\n"
        assert "run `pgresults db upgrade`" in refused(cli("db", "check", url=url))
        assert "run `pgresults db upgrade`" in refused(cli("put", "k", "x", url=url))
        assert succeeded(cli("db", "upgrade", url=url)) == f"schema pgresults is at revision {REVISION}\n"
        assert succeeded(cli("db", "current", url=url)) == f"{REVISION}\n"
        assert succeeded(cli("db", "check", url=url)) == "schema pgresults is up to date\n"
        succeeded(cli("put", "k", "x", url=url))

    def test_another_schema_is_another_place(self, cli: Cli, fresh_url: URL) -> None:
        url = psycopg_url(fresh_url)
        succeeded(cli("--schema", "second", "db", "upgrade", url=url))
        succeeded(cli("--schema", "second", "put", "k", "x", url=url))
        assert succeeded(cli("--schema", "second", "ls", url=url)).startswith("k\t")
        assert succeeded(cli("ls", url=url)) == ""

    def test_a_writer_writes_and_cannot_rewrite(self, cli: Cli, granted: Granted) -> None:
        there = ("--schema", "Odd schema")
        for _ in range(2):
            succeeded(cli(*there, "put", "k", "x", url=granted.writer))
        assert succeeded(cli(*there, "get", "k", url=granted.writer)) == '"x"\n'
        assert succeeded(cli(*there, "rm", "k", url=granted.writer)) == "k: deleted\n"
        with psycopg.connect(granted.writer, autocommit=True) as writer:
            for change in (
                "UPDATE \"Odd schema\".history SET actor = 'nobody'",
                'DELETE FROM "Odd schema".history',
                'DELETE FROM "Odd schema".payload',
                'DELETE FROM "Odd schema".result',
                'CREATE TABLE "Odd schema".mine ()',
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    writer.execute(change)

    def test_a_reader_only_reads(self, cli: Cli, granted: Granted) -> None:
        there = ("--schema", "Odd schema")
        succeeded(cli(*there, "put", "k", "x", url=granted.owner))
        assert succeeded(cli(*there, "get", "k", url=granted.reader)) == '"x"\n'
        assert "refuses this user" in refused(cli(*there, "put", "k", "y", url=granted.reader))
        with psycopg.connect(granted.reader) as reader:
            assert reader.execute('SELECT key FROM "Odd schema".live_results').fetchall() == [("k",)]

    def test_grants_can_be_had_alone(self, cli: Cli) -> None:
        script = succeeded(cli("db", "sql", "--grants-only"))
        assert "CREATE TABLE" not in script
        assert 'GRANT INSERT, UPDATE ON "pgresults"."result" TO "pgresults_writer";\n' in script
