"""`pgresults metrics`: what Prometheus is told, by real requests."""

import os
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families
from psycopg import sql
from sqlalchemy import URL
from typer.testing import CliRunner, Result

from pgresults import PostgresStorage, ResultStore
from pgresults.cli.app import app
from pgresults.sql.grants import Kind
from pgresults.sql.schema import REVISION
from tests.support.cli import PROGRAM, succeeded
from tests.support.database import psycopg_url
from tests.support.roles import logged_in

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def parsed(text: str) -> Samples:
    """What Prometheus reads in a text, by name and labels."""
    families = text_string_to_metric_families(text)
    return {(one.name, tuple(sorted(one.labels.items()))): one.value for family in families for one in family.samples}


def of(samples: Samples, storage: str) -> dict[str, float]:
    """What is said of a storage."""
    return {name: value for (name, labels), value in samples.items() if ("storage", storage) in labels}


def printed(url: URL, *arguments: str, storage: str | None = None) -> Result:
    options = ["--database-url", psycopg_url(url), *(("--storage", storage) if storage else ())]
    return CliRunner().invoke(app, [*options, "metrics", "--once", *arguments])


@pytest.fixture
def filled(storage: PostgresStorage) -> PostgresStorage:
    """A storage with two live results, one that expired an hour ago, and a lock that somebody holds."""
    store = ResultStore(result_storage=storage, lock_manager=storage.lock_manager())
    store.write(b"x" * 1000, key="a")
    store.write(b"y" * 1000, key="b")
    store.write(b"z" * 1000, key="c", expiration=datetime.now(UTC) - timedelta(hours=1))
    store.acquire_lock("k", "me")
    return storage


def test_everything_that_there_is_to_tell(filled: PostgresStorage) -> None:
    samples = parsed(succeeded(printed(filled.database.url())))
    told = of(samples, filled.name)
    assert samples["pgresults_up", ()] == 1
    assert samples["pgresults_schema_info", (("revision", REVISION), ("schema", "pgresults"))] == 1
    assert told.pop("pgresults_storage_live_bytes") > 2000 > told.pop("pgresults_storage_expired_bytes") > 1000
    assert datetime.now(UTC).timestamp() - told.pop("pgresults_storage_last_change_timestamp_seconds") < 60
    assert told == {
        "pgresults_storage_keys": 3,
        "pgresults_storage_live": 2,
        "pgresults_storage_expired": 1,
        "pgresults_storage_estimated": 0,
        "pgresults_locks_held": 1,
        "pgresults_locks_waiting": 0,
    }
    assert samples["pgresults_expiration_overdue_seconds", ()] >= 3600


def test_what_was_swept_is_not_overdue(fresh_url: URL) -> None:
    store = ResultStore(result_storage=PostgresStorage(fresh_url))
    store.write(1, key="k", expiration=datetime.now(UTC) - timedelta(hours=1))
    assert parsed(succeeded(printed(fresh_url)))["pgresults_expiration_overdue_seconds", ()] >= 3600
    store.sweep()
    assert parsed(succeeded(printed(fresh_url)))["pgresults_expiration_overdue_seconds", ()] == 0
    store.close()


def test_who_waits_for_a_lock_is_counted(filled: PostgresStorage) -> None:
    store = ResultStore(result_storage=filled, lock_manager=filled.lock_manager())
    url = filled.database.url()

    def wait(holder: str) -> None:
        if store.acquire_lock("k", holder, timeout=30):
            store.release_lock("k", holder)

    waiters = [Thread(target=wait, args=(holder,)) for holder in ("you", "they")]
    for waiter in waiters:
        waiter.start()
    try:
        while of(parsed(succeeded(printed(url))), filled.name)["pgresults_locks_waiting"] < 2:
            pass
    finally:
        store.release_lock("k", "me")
        for waiter in waiters:
            waiter.join()


def test_names_of_any_kind_are_told_as_they_are(shared_url: URL) -> None:
    name = f'a "b"\\c\n{{d}} {uuid4().hex}'
    with psycopg.connect(psycopg_url(shared_url), autocommit=True) as connection:
        connection.execute("INSERT INTO pgresults.storage VALUES (gen_random_uuid(), %s, now())", [name])
        told = of(parsed(succeeded(printed(shared_url))), name)
        connection.execute("DELETE FROM pgresults.storage WHERE name = %s", [name])
    assert told["pgresults_storage_live"] == 0
    assert told["pgresults_locks_held"] == 0


def test_one_storage_alone(filled: PostgresStorage) -> None:
    samples = parsed(succeeded(printed(filled.database.url(), storage=filled.name)))
    storages = {dict(labels)["storage"] for _, labels in samples if "storage" in dict(labels)}
    assert storages == {filled.name}
    other = printed(filled.database.url(), storage="none-such")
    assert "there is no storage named 'none-such'" in other.stderr
    assert not of(parsed(succeeded(other)), "none-such")


@pytest.mark.parametrize("kind", [Kind.READER, Kind.AUDITOR, Kind.HISTORIAN, Kind.WRITER])
def test_a_role_sees_what_it_may_and_is_told_the_rest(filled: PostgresStorage, kind: Kind) -> None:
    with logged_in(filled.database.url(), kind) as url:
        result = printed(url)
    samples = parsed(succeeded(result))
    told = of(samples, filled.name)
    assert (told["pgresults_storage_live"], told["pgresults_locks_held"]) == (2, 1)
    sees_history = kind is not Kind.READER
    assert ("pgresults_storage_last_change_timestamp_seconds" in told) == sees_history
    assert (("pgresults_hidden", (("of", "last_change"),)) in samples) != sees_history
    assert ("last_change is left out: this role may not see it" in result.stderr) != sees_history


def test_a_role_without_a_right_on_the_results_is_told_no_zeros(filled: PostgresStorage) -> None:
    with logged_in(filled.database.url(), Kind.READER) as url:
        with psycopg.connect(psycopg_url(filled.database.url()), autocommit=True) as admin:
            admin.execute(f"REVOKE SELECT ON pgresults.result, pgresults.expirations FROM {url.username}")
        result = printed(url)
    samples = parsed(succeeded(result))
    hidden = {dict(labels)["of"] for name, labels in samples if name == "pgresults_hidden"}
    assert hidden == {"totals", "expirations", "last_change"}
    assert of(samples, filled.name) == {"pgresults_locks_held": 1, "pgresults_locks_waiting": 0}


def test_an_outage_is_up_0_and_nothing_else() -> None:
    result = printed(URL.create("postgresql", "u", "hidden", "localhost", 1, "d"))
    assert result.exit_code == 1
    assert parsed(result.stdout) == {("pgresults_up", ()): 0}
    assert "cannot be reached" in result.stderr
    assert "hidden" not in result.output


def test_a_schema_that_is_not_there_is_up_0(empty_url: URL) -> None:
    result = printed(empty_url)
    assert (result.exit_code, parsed(result.stdout)) == (1, {("pgresults_up", ()): 0})
    assert "pgresults db upgrade" in result.stderr


def test_the_age_of_a_seal_is_that_in_its_file(filled: PostgresStorage, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("PGRESULTS_SEAL_KEY", str(tmp_path / "seal.pem"))
    seal = ResultStore(result_storage=filled).seal()
    (tmp_path / "seal").write_bytes(seal.dump_bytes())
    (tmp_path / "none").write_text("{}")
    given = [part for name in ("seal", "none", "missing") for part in ("--seal", str(tmp_path / name))]
    result = printed(filled.database.url(), *given)
    told = of(parsed(succeeded(result)), filled.name)
    assert told["pgresults_seal_timestamp_seconds"] == pytest.approx(seal.sealed_at.timestamp())
    assert told["pgresults_seal_entries"] == seal.entries
    assert "No such file" in result.stderr
    assert "this is no seal" in result.stderr
    assert not {name for name in told if "verify" in name}


@contextmanager
def served(environment: dict[str, str], *arguments: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A server of metrics as a process, and where it is."""
    command = [PROGRAM, "metrics", "--listen", "127.0.0.1:0", *arguments]
    with subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split(" at ")[1].split(";")[0], process
        finally:
            process.kill()


def get(address: str, method: str = "GET", **headers: str) -> tuple[int, str, str]:
    """Status, type and body of an answer."""
    request = urllib.request.Request(address, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read().decode()


def test_the_server_answers_through_an_outage_and_ends_quietly(fresh_url: URL, server_url: URL) -> None:
    name = sql.Identifier(fresh_url.database or "")
    environment = os.environ | {"PGRESULTS_DATABASE_URL": psycopg_url(fresh_url)}
    with psycopg.connect(psycopg_url(server_url), autocommit=True) as admin, served(environment) as (address, process):
        status, kind, text = get(address)
        assert (status, kind.split(";")[0]) == (200, "text/plain")
        assert parsed(text)["pgresults_up", ()] == 1
        assert get(address, "HEAD")[::2] == (200, "")
        assert get(address, Accept="application/openmetrics-text; version=1.0.0")[2].endswith("# EOF\n")
        assert get(address.replace("/metrics", "/"))[0] == 404
        admin.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(name))
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [fresh_url.database])
        for _ in range(2):
            status, _, text = get(address)
            assert (status, parsed(text)) == (503, {("pgresults_up", ()): 0})
        admin.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(name))
        assert get(address)[0] == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert process.stderr is not None
        [said] = process.stderr.read().splitlines()
        assert "not currently accepting connections" in said


@pytest.mark.parametrize("place", ["9791", ":9791", "localhost:", "localhost:many", "localhost:99999"])
def test_a_place_that_is_none_is_wrong_usage(place: str) -> None:
    assert CliRunner().invoke(app, ["metrics", "--listen", place]).exit_code == 2


def test_once_and_listen_are_one_or_the_other() -> None:
    assert CliRunner().invoke(app, ["metrics", "--once", "--listen", "localhost:1"]).exit_code == 2
