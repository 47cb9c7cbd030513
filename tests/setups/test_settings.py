"""Servers and clients that are set in their own way: every operation works, and everything verifies."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import URL, create_engine

from pgresults import PostgresStorage, ResultStore, transaction
from pgresults.database import migrations
from pgresults.errors import ConfigurationError
from tests.support.database import psycopg_url

SETTINGS: list[Any] = [
    "default_transaction_isolation=serializable",
    "default_transaction_isolation=repeatable read",
    "default_transaction_deferrable=on",
    "DateStyle=SQL,DMY",
    "IntervalStyle=sql_standard",
    "TimeZone=Asia/Kathmandu",
    "bytea_output=escape",
    "standard_conforming_strings=off",
    "client_encoding=latin1",
    "search_path=nowhere",
    "extra_float_digits=-15",
    "xmloption=document",
    "statement_timeout=3000",
    "lock_timeout=100",
    "idle_session_timeout=100",
    "idle_in_transaction_session_timeout=100",
    pytest.param("statement_timeout=100", marks=pytest.mark.slow),  # a busy machine may not hold it
    "enable_seqscan=off",
    "jit_above_cost=0",
]
PROVENANCE = {"n": 2**70, "x": 0.1, "text": "é\\'\"\n", "deep": [{"a": None}]}


def with_options(url: URL, setting: str) -> str:
    """A URL whose sessions have a setting."""
    text = psycopg_url(url)
    options = quote("-c" + setting.replace("\\", "\\\\").replace(" ", "\\ "))
    return f"{text}{'&' if '?' in text else '?'}options={options}"


def workout(store: ResultStore) -> None:
    """Do everything there is to do once."""
    hour = timedelta(hours=1)
    store.write({"a": "é\\'"}, key="small", tags=["t", "ü\\"], provenance=PROVENANCE, expires_in=hour)
    store.write(bytes(3_000_000), key="large", provenance=PROVENANCE)
    store.write_many({f"many/{number}": number for number in range(20)}, tags=["t"], provenance=PROVENANCE)
    store.write({"a": 2}, key="small", provenance=PROVENANCE, tags=["t", "ü\\"])
    assert store.read("small", version=1).result == {"a": "é\\'"}
    assert len(store.read_many(["small", "many/1", "nothing"])) == 2
    store.touch("small", datetime.now(UTC) + hour)
    assert {found.key for found in store.find(tags=["ü\\"])} == {"small"}
    assert [listed.key for listed in store.expiring(2 * hour)] == ["small"]
    assert len(store.history("small", with_results=True)) == 3
    assert store.exists("small", as_of=datetime.now(UTC))
    with transaction("tree", store, isolation_level="SERIALIZABLE") as txn:
        with transaction("leaf", store, isolation_level="SERIALIZABLE") as leaf:
            leaf.stage(bytes(1_500_000))
        txn.stage([1])
    assert store.lock_manager is not None
    store.acquire_lock("small", "me", hold_timeout=60)
    store.write({"a": 3}, key="small", holder="me", provenance=PROVENANCE)
    assert [held.key for held in store.lock_manager.held_locks()] == ["small"]
    store.release_lock("small", "me")
    assert store.retain(versions=1) == 2
    store.redact("large", "it is private")
    store.delete("tree", "it is wrong")
    assert store.invalidate(tags=["t"]) > 0
    store.seal()
    store.sweep()
    asyncio.run(also_async(store))
    report = store.verify()
    assert report.intact, report


async def also_async(store: ResultStore) -> None:
    await store.awrite([1], key="async", provenance=PROVENANCE)
    async with transaction("async/tree", store, isolation_level="SERIALIZABLE") as txn:
        txn.stage(1)
    await store.atouch("async", None)
    assert (await store.aread("async")).result == [1]


def store_at(url: Any) -> ResultStore:
    storage = PostgresStorage(url, f"test-{uuid4().hex}")
    return ResultStore(result_storage=storage, lock_manager=storage.lock_manager())


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_session_that_is_set_in_its_own_way(fresh_url: URL, setting: str) -> None:
    store = store_at(with_options(fresh_url, setting))
    workout(store)
    store.result_storage.close()
    assert ResultStore(result_storage=PostgresStorage(fresh_url, store.result_storage.name)).verify().intact


def test_a_connection_of_the_callers_that_cannot_carry_every_text(fresh_url: URL) -> None:
    store = store_at(fresh_url)
    with (
        psycopg.connect(psycopg_url(fresh_url), client_encoding="latin1") as own,
        pytest.raises(ConfigurationError, match="utf8"),
        transaction("l", store, connection=own) as txn,
    ):
        txn.stage(1)
    assert not store.exists("l")
    store.result_storage.close()


@pytest.mark.parametrize("setting", [setting for setting in SETTINGS if "encoding" not in str(setting)])
def test_a_connection_of_the_callers(fresh_url: URL, setting: str) -> None:
    store = store_at(fresh_url)
    url = with_options(fresh_url, setting)
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"), json_deserializer=lambda text: text)
    with engine.begin() as connection, transaction("k", store, connection=connection, commit_mode="EAGER") as txn:
        txn.stage({"a": 1})
    with psycopg.connect(url) as own, transaction("l", store, connection=own) as txn:
        txn.stage(bytes(2_000_000))
    engine.dispose()
    assert store.read("k").result == {"a": 1}
    assert len(store.read("l").result) == 2_000_000
    assert store.verify().intact
    store.result_storage.close()


DATABASES = [
    "ENCODING 'UTF8' LOCALE_PROVIDER icu ICU_LOCALE 'und' LOCALE 'C'",
    "ENCODING 'UTF8' LOCALE 'C'",
    "ENCODING 'SQL_ASCII' LOCALE 'C'",
]


@pytest.fixture
def other_database(server_url: URL, request: pytest.FixtureRequest) -> Iterator[URL]:
    """A database of another kind."""
    name = f"pgresults_other_{uuid4().hex[:12]}"
    with psycopg.connect(psycopg_url(server_url), autocommit=True) as connection:
        try:
            connection.execute(sql.SQL(f"CREATE DATABASE {name} TEMPLATE template0 {request.param}"))
        except psycopg.errors.FeatureNotSupported as refused:
            pytest.skip(f"this server cannot: {refused}")
        url = server_url.set(database=name)
        migrations.upgrade(url.set(drivername="postgresql+psycopg"))
        yield url
        connection.execute(sql.SQL(f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.mark.parametrize("other_database", DATABASES, indirect=True)
def test_a_database_of_another_kind(other_database: URL) -> None:
    store = store_at(other_database)
    workout(store)
    store.result_storage.close()
