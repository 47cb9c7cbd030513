"""A verification says what it covered, and nothing is intact where there is nothing."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import URL
from typer.testing import CliRunner, Result

from pgresults.cli.app import app
from pgresults.database.programs import perform
from pgresults.errors import MissingResult
from pgresults.settings import Settings
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.calls import Call
from tests.support.database import guard_again, psycopg_url
from tests.support.sealing import seal_over

TABLES = ("history", "result", "payload")
LONG_AGO = "UPDATE pgresults.storage SET created_at = created_at - interval '1 hour'"


@pytest.fixture
def store(fresh_url: URL, tmp_path: Path) -> ResultStore:
    """A store whose database has nothing else."""
    settings = Settings(seal_key=tmp_path / "seal.pem")
    return ResultStore(result_storage=PostgresStorage(fresh_url, "one", settings=settings))


@pytest.fixture
def program(store: ResultStore, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs the program on the store's storage."""
    monkeypatch.setenv("PGRESULTS_SEAL_KEY", str(store.result_storage.settings.seal_key))
    url = psycopg_url(store.result_storage.database.url())
    return lambda *arguments: CliRunner().invoke(app, ["--database-url", url, "--storage", "one", *arguments])


def sql(store: ResultStore, *statements: str, **parameters: Any) -> None:
    """What somebody does who gets all guards out of the way."""
    with psycopg.connect(psycopg_url(store.result_storage.database.url()), autocommit=True) as connection:
        connection.execute("ALTER TABLE pgresults.history DISABLE TRIGGER ALL")
        for statement in statements:
            connection.execute(statement, parameters)
        connection.execute("ALTER TABLE pgresults.history ENABLE TRIGGER ALL")
        guard_again(connection)


def truncated(store: ResultStore, *more: str) -> None:
    sql(store, *(f"TRUNCATE pgresults.{table} CASCADE" for table in (*TABLES, *more)), LONG_AGO)


async def test_the_report_names_what_it_covered(call: Call, store: ResultStore, fresh_url: URL) -> None:
    for n in range(3):
        store.write(n, key="k")
    ResultStore(result_storage=PostgresStorage(fresh_url, "another")).write(1, key="k")
    report = await call(store, "verify")
    assert [(one.storage, one.keys, one.entries, one.payloads) for one in report.storages] == [("one", 1, 3, 3)]
    assert (report.storages[0].sealed_at, report.storages[0].newer) == (None, None)
    assert report.unchecked == ("another",)
    assert (report.keys, report.entries, report.payloads, report.empty, report.intact) == (1, 3, 3, False, True)


async def test_the_report_says_what_is_newer_than_the_newest_seal(call: Call, store: ResultStore) -> None:
    store.write(0, key="k")
    old = seal_over(store, 1)
    store.write(1, key="k")
    new = seal_over(store, 2)
    store.write(2, key="k")
    store.write(2, key="l")
    _, second, third = (entry.at for entry in store.history("k"))
    for given, seal, newer, since in (
        ({"against": old}, old, 3, second),
        ({"since": old, "against": new}, new, 2, third),
        ({"since": new, "against": old}, new, 2, third),
        ({"key": "k", "against": new}, new, 2, third),
    ):
        (covered,) = (await call(store, "verify", **given)).storages
        assert (covered.sealed_at, covered.newer, covered.newer_since) == (seal.sealed_at, newer, since)
    (covered,) = (await call(store, "verify", against=seal_over(store, 4))).storages
    assert (covered.newer, covered.newer_since) == (0, None)


@pytest.mark.parametrize("since", [False, True])
async def test_nothing_is_not_intact(call: Call, store: ResultStore, program: Any, since: bool) -> None:
    given = {"since": datetime.now(UTC) - timedelta(days=1)} if since else {}
    report = await call(store, "verify", **given)
    assert (report.empty, report.intact, report.findings) == (True, False, ())
    printed = program("verify", *(["--since", "2026-01-01T00:00Z"] if since else []))
    assert (printed.exit_code, "there is no storage named 'one'" in printed.stderr) == (2, True)
    perform(store.result_storage._register())
    if not since:  # a registration that is younger than a minute may be that of a write under way
        assert (program("verify").exit_code, "nothing there" in program("verify").stdout) == (2, True)
    store.write(1, key="k")
    truncated(store, "storage")
    assert (await call(store, "verify", **given)).empty
    assert program("verify").exit_code == 2


async def test_a_storage_that_is_known_and_empty_is_altered(
    call: Call, store: ResultStore, program: Any, tmp_path: Path
) -> None:
    store.write(1, key="k")
    seal = seal_over(store, 1)
    truncated(store)
    for given in ({}, {"since": datetime.now(UTC) - timedelta(days=1)}):
        (finding,) = (await call(store, "verify", **given)).findings
        assert (finding.kind, "registered" in finding.message) == ("storage", True)
    assert program("verify").exit_code == 1
    truncated(store, "storage")
    for given in ({"since": seal}, {"against": seal}, {"since": seal, "against": seal}):
        findings = (await call(store, "verify", **given)).findings
        assert any("1 entries were sealed" in finding.message for finding in findings)
    (tmp_path / "seal").write_bytes(seal.dump_bytes())
    for option in ("--since", "--against"):  # a seal knows the storage, whatever the registry says
        assert program("verify", option, str(tmp_path / "seal")).exit_code == 1


def test_who_is_about_to_write_for_the_first_time_has_lost_nothing(store: ResultStore) -> None:
    store.write(1, key="k")
    sql(store, *(f"TRUNCATE pgresults.{table} CASCADE" for table in TABLES))
    report = store.verify()
    assert (report.findings, report.empty, report.intact) == ((), True, False)


def test_an_empty_seal_knows_of_nothing(store: ResultStore) -> None:
    seal = store.seal()
    report = store.verify(against=seal)
    assert (report.empty, report.findings) == (True, ())


async def test_nothing_new_is_intact(call: Call, store: ResultStore) -> None:
    store.write(1, key="k")
    seal = seal_over(store, 1)
    report = await call(store, "verify", since=seal)
    assert (report.keys, report.empty, report.intact) == (0, False, True)


@pytest.mark.parametrize("span", ["all", "moment", "seal"])
async def test_an_entry_under_no_key_is_visited(call: Call, store: ResultStore, span: str) -> None:
    store.write(1, key="k")
    since = {"all": None, "moment": datetime.now(UTC), "seal": seal_over(store, 1)}[span]
    columns = "storage_id, seq, version, action, at, actor, db_user, previous, digest, xid"
    sql(
        store,
        f"INSERT INTO pgresults.history (key, {columns}) SELECT '', storage_id, seq, version, action, now(), actor, "
        "db_user, previous, digest, pg_current_xact_id()::text::bigint FROM pgresults.history",
    )
    findings = (await call(store, "verify", since=since)).findings
    assert {finding.keys for finding in findings} == {("",)}


@pytest.fixture
def apart(store: ResultStore, fresh_url: URL) -> ResultStore:
    """A store that keeps its metadata elsewhere, with three results."""
    store = store.model_copy(update={"metadata_storage": PostgresStorage(fresh_url, "metadata")})
    for n in range(3):
        store.write(n, key=f"k{n}")
    return store


async def test_metadata_that_is_apart_is_checked_too(call: Call, apart: ResultStore) -> None:
    report = await call(apart, "verify")
    assert [(one.storage, one.keys) for one in report.storages] == [("metadata", 3), ("one", 3)]
    assert report.intact
    report = await call(apart, "verify", key="k1")
    assert [(one.storage, one.keys) for one in report.storages] == [("metadata", 1), ("one", 1)]
    assert report.intact
    with pytest.raises(MissingResult):
        await call(apart, "verify", key="never")
    apart.delete("k2")
    assert (await call(apart, "verify", key="k2")).intact


ALTERATIONS = {
    "metadata": "UPDATE pgresults.history SET actor = 'x' WHERE storage_id = %(meta)s AND key = 'k1'",
    "the pointer": "UPDATE pgresults.payload SET data = 'x' WHERE storage_id = %(meta)s AND key = 'k1'",
    "the payload": "UPDATE pgresults.payload SET data = 'x' WHERE storage_id = %(id)s AND key = %(target)s",
    "the payload's entry": "UPDATE pgresults.history SET actor = 'x' WHERE storage_id = %(id)s AND key = %(target)s",
}


@pytest.mark.parametrize("name", ALTERATIONS)
async def test_what_was_altered_apart_is_found(call: Call, apart: ResultStore, name: str) -> None:
    seal = seal_over(apart, 3)
    meta = ResultStore(result_storage=apart.metadata_storage)
    target = meta.read("k1").result["storage_key"]
    places = {"meta": meta.result_storage.id, "id": apart.result_storage.id, "target": target}
    sql(apart, ALTERATIONS[name], **places)
    for given in ({}, {"key": "k1"}, {"against": seal}):
        assert (await call(apart, "verify", **given)).findings
    if name in ("metadata", "the pointer"):  # what no seal covers is checked from the first entry on
        assert (await call(apart, "verify", since=seal)).findings


async def test_a_payload_that_is_gone_elsewhere_is_found(call: Call, apart: ResultStore) -> None:
    sql(apart, LONG_AGO, *(f"DELETE FROM pgresults.{table} WHERE storage_id = %(id)s" for table in TABLES),
        id=apart.result_storage.id)  # fmt: skip
    report = await call(apart, "verify", key="k1")
    assert [finding.kind for finding in report.findings] == ["payload"]
    assert [finding.kind for finding in (await call(apart, "verify")).findings] == ["storage"]


def test_the_program_prints_what_it_covered(store: ResultStore, program: Any, tmp_path: Path, fresh_url: URL) -> None:
    store.write(1, key="k")
    ResultStore(result_storage=PostgresStorage(fresh_url, f"other-{uuid4().hex}")).write(1, key="k")
    seal = tmp_path / "seal.json"
    seal.write_bytes(seal_over(store, 1).dump_bytes())
    store.write(2, key="k")
    lines = program("verify", "--against", str(seal)).stdout.splitlines()
    assert lines[0] == "2 entries of 1 keys and 2 payloads checked: intact"
    assert lines[1].startswith("storage 'one': 2 entries of 1 keys and 2 payloads, 1 entries newer than the seal of 20")
    assert ", which no seal protects, the oldest for 0:00:" in lines[1]
    assert lines[2].startswith("not checked: the storages 'other-")
    assert "no seal given" in program("verify").stdout
