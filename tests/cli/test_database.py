"""The commands over a schema, and what roles made by them may do."""

from collections.abc import Iterator
from dataclasses import dataclass
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import URL
from typer.testing import CliRunner

from pgresults.cli.app import app
from pgresults.database import migrations
from pgresults.sql.grants import Kind, granting
from pgresults.sql.schema import REVISION
from tests.database.test_migrations import differences
from tests.support.cli import Cli, refused, succeeded
from tests.support.database import psycopg_url


@dataclass(frozen=True)
class Granted:
    """A database made by ``pgresults db sql`` alone, with URLs of its roles."""

    owner: str
    roles: dict[Kind, str]

    @property
    def writer(self) -> str:
        return self.roles[Kind.WRITER]

    @property
    def reader(self) -> str:
        return self.roles[Kind.READER]


@pytest.fixture
def granted(empty_url: URL) -> Iterator[Granted]:
    roles = {kind: f'odd"{kind}"{uuid4().hex}' for kind in Kind}
    named = [part for kind, role in roles.items() for part in (f"--{kind}", role)]
    script = CliRunner().invoke(app, ["--schema", "Odd schema", "db", "sql", *named])
    with psycopg.connect(psycopg_url(empty_url), autocommit=True) as owner:
        if owner.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone() != (True,):
            pytest.skip("only a superuser can become any role")
        owner.execute(succeeded(script))
        owner.execute(succeeded(script).rpartition("COMMIT;")[2])  # grants may be run again
        yield Granted(psycopg_url(empty_url), {kind: _as_role(empty_url, role) for kind, role in roles.items()})
        for role in map(psycopg.sql.Identifier, roles.values()):
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

    def test_a_kind_is_the_same_whoever_grants_it(self, cli: Cli, granted: Granted) -> None:
        there = ("--schema", "Odd schema")
        succeeded(cli(*there, "put", "k", "x", url=granted.owner))
        for kind, url in granted.roles.items():
            for command in (["get", "k"], ["history", "k"], ["explain", "k"], ["stats"], ["sweep"]):
                done = cli(*there, *command, url=url)
                assert (done.exit_code == 0) == may(kind, command[0]), (kind, command, done.stderr)

    def test_what_is_lacking_is_named(self, cli: Cli, granted: Granted) -> None:
        there = ("--schema", "Odd schema")
        succeeded(cli(*there, "put", "k", "x", url=granted.owner))
        for kind, command, needed in (
            (Kind.WRITER, ["sweep"], "sweeper"),
            (Kind.WRITER, ["redact", "k", "--yes", "--reason", "law"], "sweeper"),
            (Kind.SWEEPER, ["put", "k", "x"], "writer"),
            (Kind.READER, ["history", "k"], "auditor"),
            (Kind.HISTORIAN, ["get", "k"], "reader"),
            (Kind.HISTORIAN, ["verify"], "auditor"),
            (Kind.READER, ["diff", "k", "1", "2"], "auditor"),
        ):
            code = 2 if command[0] in ("verify", "diff") else 1
            error = refused(cli(*there, *command, url=granted.roles[kind]), code)
            assert f"`pgresults db grant ROLE --as {needed}`" in error

    def test_grants_can_be_had_alone(self, cli: Cli) -> None:
        script = succeeded(cli("db", "sql", "--grants-only"))
        assert "CREATE TABLE" not in script
        assert 'GRANT INSERT, UPDATE ON "pgresults"."result" TO "pgresults_writer";\n' in script
        for kind in Kind:
            assert f'TO "pgresults_{kind}";\n' in script


_PAST = {"history", "explain", "stats"}
MAY = {
    Kind.READER: {"get"},
    Kind.HISTORIAN: _PAST,
    Kind.WRITER: {"get", *_PAST},
    Kind.AUDITOR: {"get", *_PAST},
    Kind.SWEEPER: {"get", "sweep", *_PAST},
    Kind.OWNER: {"get", "sweep", *_PAST},
}


def may(kind: Kind, command: str) -> bool:
    return command in MAY[kind]


class TestGrant:
    """``db grant`` says what the server did, not what it was asked to do."""

    @pytest.fixture
    def roles(self, fresh_url: URL) -> Iterator[tuple[str, str]]:
        """One who may write, and another; both are no owners."""
        one, another = (f"pgresults_{uuid4().hex[:8]}" for _ in range(2))
        with psycopg.connect(psycopg_url(fresh_url), autocommit=True) as admin:
            for role in (one, another):
                admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'".encode())
            admin.execute(granting("pgresults", one, Kind.WRITER).encode())
            yield one, another
            for role in (another, one):
                admin.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}".encode())

    @pytest.mark.parametrize(
        ("kind", "said"), [(Kind.AUDITOR, "an auditor"), (Kind.OWNER, "an owner"), (Kind.READER, "a reader")]
    )
    def test_what_was_granted_is_said(
        self, cli: Cli, fresh_url: URL, roles: tuple[str, str], kind: Kind, said: str
    ) -> None:
        done = succeeded(cli("db", "grant", roles[1], "--as", kind, url=psycopg_url(fresh_url)))
        assert done == f"{roles[1]} is {said} of schema pgresults\n"

    @pytest.mark.parametrize("kind", Kind)
    def test_what_was_not_granted_is_no_success(
        self, cli: Cli, fresh_url: URL, roles: tuple[str, str], kind: Kind
    ) -> None:
        one, another = roles
        url = psycopg_url(fresh_url.set(username=one, password="x"))
        error = refused(cli("db", "grant", another, "--as", kind, url=url))
        assert "permission denied" in error or f"nothing was granted, for {another} would still lack" in error
        with psycopg.connect(psycopg_url(fresh_url)) as admin:
            asked = "SELECT has_schema_privilege(%s, 'pgresults', 'USAGE')"
            assert admin.execute(asked, [another]).fetchone() == (False,)

    def test_a_part_is_no_success_either(self, cli: Cli, fresh_url: URL, roles: tuple[str, str]) -> None:
        one, another = roles
        with psycopg.connect(psycopg_url(fresh_url), autocommit=True) as admin:
            admin.execute(f"GRANT USAGE ON SCHEMA pgresults TO {one} WITH GRANT OPTION".encode())
            admin.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA pgresults TO {one} WITH GRANT OPTION".encode())
        url = psycopg_url(fresh_url.set(username=one, password="x"))
        error = refused(cli("db", "grant", another, "--as", "writer", url=url))
        assert f"{another} would still lack INSERT on" in error
        assert "only the owner of the tables" in error

    def test_the_printed_statements_fail_as_well(self, fresh_url: URL, roles: tuple[str, str]) -> None:
        one, another = roles
        script = granting("pgresults", another, Kind.WRITER)
        url = psycopg_url(fresh_url.set(username=one, password="x"))
        refusal = pytest.raises(psycopg.errors.InsufficientPrivilege, match="nothing was granted")
        with psycopg.connect(url) as connection, refusal:
            connection.execute(script.encode())

    def test_a_role_that_is_none(self, cli: Cli, fresh_url: URL) -> None:
        assert "nobody2" in refused(cli("db", "grant", "nobody2", "--as", "writer", url=psycopg_url(fresh_url)))


class TestUpgradesBySql:
    """A database administrator's way goes on after the first version."""

    @pytest.mark.parametrize("start", migrations.revisions())
    def test_every_revision_is_brought_to_the_newest(self, cli: Cli, empty_url: URL, start: str) -> None:
        with psycopg.connect(psycopg_url(empty_url), autocommit=True) as admin:
            role = f"pgresults_{uuid4().hex[:8]}"
            admin.execute(f"CREATE ROLE {role}; CREATE SCHEMA pgresults AUTHORIZATION {role}".encode())
            admin.execute(f"SET ROLE {role}".encode())  # owns the schema, and may make none
            whole = migrations.ddl()
            admin.execute(up_to(whole, start).encode())
            assert migrations.current(empty_url) == start
            upgrade = succeeded(cli("db", "sql", "--from", start)).partition("COMMIT;")[0] + "COMMIT;"
            admin.execute(upgrade.encode())
            assert migrations.current(empty_url) == REVISION
            admin.execute("RESET ROLE")
        assert differences(empty_url, "pgresults") == []
        succeeded(cli("put", "k", "x", url=psycopg_url(empty_url)))
        assert "intact" in succeeded(cli("verify", url=psycopg_url(empty_url)))

    def test_a_revision_that_is_none_is_refused_with_those_there_are(self, cli: Cli) -> None:
        error = refused(cli("db", "sql", "--from", "7"), code=2)
        assert "0001" in error
        assert REVISION in error


def up_to(script: str, revision: str) -> str:
    """The part of a script that makes a schema which brings it to a revision."""
    script = script.replace("CREATE SCHEMA IF NOT EXISTS pgresults;", "")
    following = f"-- Running upgrade {revision} ->"
    return script.partition(following)[0] + "COMMIT;" if following in script else script
