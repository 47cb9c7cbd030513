"""Tables that are partitioned by key: everything works, and no partition is a way around what keeps the history."""

import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL

from pgresults import PostgresStorage, ResultStore
from pgresults.database import migrations
from pgresults.errors import SchemaVersionError
from tests.setups.test_settings import workout
from tests.support.database import psycopg_url

PARTITIONED = ("result", "payload", "history")
CHANGES = ("DELETE FROM pgresults.{}", "UPDATE pgresults.{} SET actor = 'nobody'", "TRUNCATE pgresults.{}")


def partition(admin: psycopg.Connection[Any], parts: int = 3) -> None:
    """Make the tables as `pgresults db sql` prints them, but partitioned."""
    script = re.sub(
        rf"(CONSTRAINT (?:{'|'.join(PARTITIONED)})_pkey .*\n\))", r"\1 PARTITION BY HASH (key)", migrations.ddl()
    )
    admin.execute(script.replace("ALTER TABLE result SET (fillfactor = 80);", "").encode())
    for table in PARTITIONED:
        for number in range(parts):
            admin.execute(
                f"CREATE TABLE pgresults.{table}_p{number} PARTITION OF pgresults.{table}"
                f" FOR VALUES WITH (MODULUS {parts}, REMAINDER {number})"
            )


@pytest.fixture
def admin(empty_url: URL) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(psycopg_url(empty_url), autocommit=True) as connection:
        partition(connection)
        yield connection


@pytest.fixture
def store(empty_url: URL, admin: psycopg.Connection[Any]) -> Iterator[ResultStore]:
    storage = PostgresStorage(empty_url)
    yield ResultStore(result_storage=storage, lock_manager=storage.lock_manager())
    storage.close()


def test_everything_works(empty_url: URL, store: ResultStore, admin: psycopg.Connection[Any]) -> None:
    migrations.upgrade(empty_url)
    admin.execute("SELECT pgresults.project_documents()")
    workout(store)
    used = admin.execute("SELECT count(DISTINCT tableoid) FROM pgresults.history").fetchone()
    assert used == (3,)


def test_a_partition_that_lets_history_go_is_found_and_closed(empty_url: URL, store: ResultStore, admin: Any) -> None:
    store.write_many({f"k{number}": number for number in range(20)})
    report = store.verify()
    assert not report.intact
    findings = [finding.message for finding in report.findings]
    assert [name in " ".join(findings) for name in ("history_p0", "history_p1", "history_p2")] == [True] * 3
    assert all("pgresults db upgrade" in finding for finding in findings)
    with pytest.raises(SchemaVersionError, match="history_p0") as refusal:
        migrations.require_sound(empty_url)
    assert refusal.value.command == "pgresults db upgrade"
    migrations.upgrade(empty_url)
    assert migrations.require_sound(empty_url) == []
    assert store.verify().intact
    for part in ("history", "history_p0", "history_p1", "history_p2"):
        for change in CHANGES:
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
                admin.execute(change.format(part))
    admin.execute("SET session_replication_role = replica")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
        admin.execute("DELETE FROM pgresults.history_p0")
    admin.execute("RESET session_replication_role")
    with admin.transaction():
        admin.execute("SELECT pgresults.maintenance('why'); DELETE FROM pgresults.history_p1")


def test_no_partition_lets_go_what_is_on_hold(empty_url: URL, store: ResultStore, admin: Any) -> None:
    store.write_many({f"k{number}": number for number in range(20)})
    store.hold(prefix="", reason="case 7")
    assert "payload_p1" in " ".join(finding.message for finding in store.verify().findings)
    migrations.upgrade(empty_url)
    assert store.verify().intact
    ways = ("DELETE FROM pgresults.{}_p1", "TRUNCATE pgresults.{}_p1", "UPDATE pgresults.{}_p1 SET key = 'z' || key")
    for way in (way.format(table) for way in ways for table in ("payload", "result")):
        with pytest.raises(psycopg.Error) as refused:
            admin.execute(way)
        assert refused.value.sqlstate in ("PH001", "23514"), way  # or the key is not of that partition
    assert len(store.read_many([f"k{number}" for number in range(20)])) == 20


@pytest.mark.parametrize(
    ("switch", "table"),
    [
        ("DISABLE TRIGGER append_only", "history_p1"),
        ("ENABLE REPLICA TRIGGER append_only", "history_p1"),
        ("DISABLE TRIGGER record_entry", "result_p1"),
        ("DISABLE TRIGGER kept", "history_p1"),
        ("DISABLE TRIGGER append_only", "history"),
    ],
)
def test_a_trigger_that_is_off_on_a_partition_is_found(
    empty_url: URL, store: ResultStore, admin: Any, switch: str, table: str
) -> None:
    migrations.upgrade(empty_url)
    store.write_many({f"k{number}": number for number in range(20)})
    admin.execute(f"ALTER TABLE pgresults.{table} {switch}")
    assert table in " ".join(finding.message for finding in store.verify().findings)


def test_a_partition_that_comes_later_is_closed_as_well(empty_url: URL, store: ResultStore, admin: Any) -> None:
    migrations.upgrade(empty_url)
    admin.execute("CREATE TABLE pgresults.part (LIKE pgresults.history INCLUDING ALL)")
    with admin.transaction():
        admin.execute("ALTER TABLE pgresults.history DETACH PARTITION pgresults.history_p2")
        admin.execute(
            "ALTER TABLE pgresults.history ATTACH PARTITION pgresults.part FOR VALUES WITH (MODULUS 3, REMAINDER 2)"
        )
    store.write_many({f"k{number}": number for number in range(20)})
    assert not store.verify().intact
    migrations.upgrade(empty_url)
    assert store.verify().intact
