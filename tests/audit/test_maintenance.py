"""Who opened the history leaves a trace that stays, and that is named until a seal has it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL
from typer.testing import CliRunner

from pgresults.cli.app import app
from pgresults.settings import Settings
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.database import psycopg_url
from tests.support.sealing import seal_over

OPEN = "SELECT pgresults.maintenance('mine')"
SWITCH = "storage_id = '00000000-0000-0000-0000-000000000000'"

ERASURES = {
    "deleted": f"DELETE FROM pgresults.history WHERE {SWITCH}",
    "emptied": "TRUNCATE pgresults.history",
    "renamed": f"UPDATE pgresults.history SET key = 'k' WHERE {SWITCH}",
    "given away": f"UPDATE pgresults.history SET storage_id = gen_random_uuid() WHERE {SWITCH}",
    "reworded": f"UPDATE pgresults.history SET reason = 'nothing' WHERE {SWITCH}",
    "signed by another": f"UPDATE pgresults.history SET db_user = 'ceo_db' WHERE {SWITCH}",
    "dated back": f"UPDATE pgresults.history SET at = at - interval '1 year' WHERE {SWITCH}",
    "opened beforehand": f"UPDATE pgresults.history SET xid = xid + 1000 WHERE {SWITCH}",
}


@pytest.fixture
def store(fresh_url: URL, tmp_path: Path) -> Iterator[ResultStore]:
    storage = PostgresStorage(fresh_url, settings=Settings(seal_key=tmp_path / "keys" / "seal.pem"))
    store = ResultStore(result_storage=storage)
    store.write(1, key="k")
    yield store
    storage.close()


@pytest.mark.parametrize("name", ERASURES)
def test_the_trace_of_the_switch_stays(store: ResultStore, fresh_url: URL, name: str) -> None:
    with psycopg.connect(psycopg_url(fresh_url)) as connection:
        connection.execute(OPEN)
        connection.execute("SET session_replication_role = replica")  # where ordinary triggers are silent
        connection.execute("UPDATE pgresults.history SET actor = 'nobody' WHERE key = 'k'")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"), connection.transaction():
            connection.execute(ERASURES[name])
    (window,) = store.verify().windows
    assert (window.db_user, window.reason) == (fresh_url.username, "mine")


async def test_windows_are_named_until_a_seal_has_them(call: Any, store: ResultStore, fresh_url: URL) -> None:
    assert (await call(store, "verify")).windows == ()
    with psycopg.connect(psycopg_url(fresh_url), autocommit=True) as connection:
        connection.execute(OPEN)
        report = await call(store, "verify")
        assert (report.intact, [window.reason for window in report.windows]) == (True, ["mine"])
        seal = seal_over(store, 2)
        assert seal.windows == 1
        assert (await call(store, "verify", against=seal)).windows == ()
        assert (await call(store, "verify", since=seal)).windows == ()
        connection.execute("SELECT pgresults.maintenance('again')")
    for given in ({"against": seal}, {"since": seal}):
        assert [window.reason for window in (await call(store, "verify", **given)).windows] == ["again"]
    assert [window.reason for window in (await call(store, "verify", "k")).windows] == ["mine", "again"]


def test_the_command_names_them(store: ResultStore, fresh_url: URL) -> None:
    with psycopg.connect(psycopg_url(fresh_url), autocommit=True) as connection:
        connection.execute("SELECT pgresults.maintenance('mine \x1b[31m')")
    printed = CliRunner().invoke(app, ["--database-url", psycopg_url(fresh_url), "verify"])
    assert printed.exit_code == 0
    (line,) = [line for line in printed.output.splitlines() if line.startswith("maintenance:")]
    assert f"opened by {fresh_url.username!r}: mine" in line
    assert "\x1b" not in line


def test_numbers_of_transactions_may_begin_anew(store: ResultStore, fresh_url: URL) -> None:
    with psycopg.connect(psycopg_url(fresh_url)) as connection:
        connection.execute(OPEN)
        connection.execute("UPDATE pgresults.history SET xid = 0")
    assert store.verify().intact


@pytest.mark.parametrize(
    ("table", "trigger"), [("history", "append_only"), ("history", "kept"), ("result", "record_entry")]
)
@pytest.mark.parametrize("how", ["DISABLE TRIGGER {}", "ENABLE REPLICA TRIGGER {}"])
def test_what_keeps_the_history_is_looked_after(
    store: ResultStore, fresh_url: URL, table: str, trigger: str, how: str
) -> None:
    assert store.verify().intact
    with psycopg.connect(psycopg_url(fresh_url)) as connection:
        connection.execute(f"ALTER TABLE pgresults.{table} {how.format(trigger)}")
    (finding,) = store.verify().findings
    assert (finding.kind, trigger in finding.message) == ("storage", True)
