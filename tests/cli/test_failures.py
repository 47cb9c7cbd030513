"""How commands fail: in one line, without secrets."""

from pathlib import Path

import pytest
from sqlalchemy import URL

from pgresults.cli.session import masked
from tests.support.cli import Cli, refused, succeeded
from tests.support.database import psycopg_url


class TestFailures:
    def test_a_missing_key_is_one_line(self, cli: Cli) -> None:
        assert refused(cli("get", "nothing")) == "error: no result under 'nothing': never written\n"
        assert refused(cli("get", ""), code=2).startswith("error: key '' cannot be stored")

    def test_a_database_out_of_reach_is_one_line_without_secrets(self, cli: Cli) -> None:
        error = refused(cli("ls", url="postgresql://user:secret@127.0.0.1:1/x?sslpassword=hidden"))
        assert error.startswith("error: the database cannot be reached")
        assert error.count("\n") == 1
        assert "secret" not in error
        assert "hidden" not in error

    def test_a_time_is_written_as_all_are_wherever_it_stands(self, cli: Cli) -> None:
        told = refused(cli("show", "k", "--as-of", "2020-01-01T12:00:00Z"))
        assert told == "error: no result under 'k' at 2020-01-01 12:00:00Z: never written\n"

    @pytest.mark.parametrize(
        ("command", "wrong"),
        [(["db", "check"], "database"), (["db", "upgrade"], "username"), (["db", "current"], "database")],
    )
    def test_what_is_refused_is_no_server_out_of_reach(
        self, cli: Cli, fresh_url: URL, command: list[str], wrong: str
    ) -> None:
        told = refused(cli(*command, url=psycopg_url(fresh_url.set(**{wrong: "nothing_of_this_name"}))))
        assert told.startswith("error: the database refuses this user")

    @pytest.mark.parametrize("command", [["ls"], ["db", "check"], ["verify"]])
    def test_of_several_hosts_each_is_said(self, cli: Cli, command: list[str]) -> None:
        hosts = "postgresql://u:secret@127.0.0.1:1,127.0.0.1:2,%2Fnowhere:3/db"
        told = refused(cli(*command, url=hosts), 2 if command == ["verify"] else 1)
        assert all(said in told for said in ("port 1 failed", "port 2 failed", "/nowhere/.s.PGSQL.3"))
        assert (told.count("\n"), "secret" in told) == (1, False)

    def test_urls_are_shown_without_passwords(self) -> None:
        url = URL.create(
            "postgresql+psycopg", "user", "secret", "h", query={"password": "secret", "sslmode": "require"}
        )
        assert masked(url) == "postgresql://user:***@h?sslmode=require"

    def test_no_postgres_is_no_database(self, cli: Cli) -> None:
        assert "postgresql://" in refused(cli("ls", url="mysql://a/b"), code=2)

    def test_a_wrong_setting_is_named(self, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PGRESULTS_POOL_SIZE", "many")
        assert refused(cli("ls"), code=2).startswith("error: PGRESULTS_POOL_SIZE: ")

    def test_an_output_that_cannot_be_written_is_one_line(self, cli: Cli, tmp_path: Path) -> None:
        succeeded(cli("put", "k", "x"))
        assert "no/such: No such file" in refused(cli("get", "k", "-o", str(tmp_path / "no/such")))

    def test_ctrl_c_is_130(self, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("pgresults.storage.finding.page_of", interrupt)
        assert refused(cli("ls"), code=130) == ""
