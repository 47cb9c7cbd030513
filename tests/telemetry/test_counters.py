"""What is counted and measured."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL

from pgresults import PostgresStorage, ResultStore, task
from pgresults.cache_policies import INPUTS
from pgresults.database.programs import call, perform
from pgresults.errors import LockedError, StorageUnavailable
from pgresults.operations.registry import ping
from pgresults.operations.requests import Operation
from pgresults.settings import current_settings
from tests.telemetry.conftest import Telemetry


def test_hits_and_misses_of_single_and_of_mapped_calls(telemetry: Telemetry, storage: PostgresStorage) -> None:
    @task(result_storage=storage, cache_policy=INPUTS, name="counted")
    def double(n: int) -> int:
        return 2 * n

    double(1)
    double(1)
    double.map(range(5))
    double.map(range(5))
    assert telemetry.total("pgresults.task.misses", pgresults_task_name="counted") == 5
    assert telemetry.total("pgresults.task.hits", pgresults_task_name="counted") == 7
    info = double.cache_info()
    assert (info.hits, info.misses) == (7, 5)


def test_bytes_are_those_that_the_metadata_says(telemetry: Telemetry, store: ResultStore) -> None:
    size = store.write(b"x" * 1000, key="a").size or 0
    many = store.write_many({"b": b"y" * 2000, "c": b"z"})
    store.read("a")
    store.read_many(["b", "c"])
    assert size > 1000
    total = size + sum(one.size or 0 for one in many.values())
    assert telemetry.total("pgresults.payload.written") == total
    assert telemetry.total("pgresults.payload.read") == total
    named = {"db_system_name": "postgresql", "db_operation_name": "BATCH write"}
    assert telemetry.total("pgresults.payload.written", **named) == total - size


def test_each_call_of_a_client_is_measured_once(telemetry: Telemetry, store: ResultStore) -> None:
    store.write(1, key="a")
    asyncio.run(store.aread("a"))
    with pytest.raises(StorageUnavailable):
        ResultStore(result_storage=PostgresStorage("postgresql://u@localhost:1/d")).read("k")
    measured = {
        (point.attributes["db.operation.name"], point.attributes.get("error.type")): point
        for point in telemetry.points("db.client.operation.duration")
    }
    assert {name: point.count for name, point in measured.items()} == {
        ("write", None): 1,
        ("read", None): 1,
        ("read", "pgresults.errors.StorageUnavailable"): 1,
    }
    assert list(measured["write", None].explicit_bounds) == [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10]
    assert set(measured["write", None].attributes) == {
        "db.system.name",
        "db.namespace",
        "db.operation.name",
        "server.address",
    }


def test_what_another_transaction_undid_is_a_conflict_and_a_retry(
    telemetry: Telemetry, storage: PostgresStorage
) -> None:
    tries = []

    def start(_: bool) -> Operation[None]:
        yield from ping()
        tries.append(1)
        if len(tries) == 1:
            raise psycopg.errors.SerializationFailure

    perform(call(storage.database, start))
    assert len(tries) == 2
    assert telemetry.total("pgresults.conflicts", error_type="40001") == 1
    assert telemetry.total("pgresults.retries", error_type="40001") == 1


def test_a_lost_connection_is_a_retry_and_no_conflict(
    telemetry: Telemetry, store: ResultStore, connection: psycopg.Connection[Any]
) -> None:
    store.write(1, key="a")
    connection.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE application_name = 'pgresults' AND datname = current_database() AND state = 'idle'"
    )
    assert store.read("a").result == 1
    assert telemetry.total("pgresults.retries") >= 1
    assert telemetry.total("pgresults.conflicts") == 0
    [read] = telemetry.spans("read")
    assert [event.name for event in read.events] == ["retry"] * telemetry.total("pgresults.retries")


def test_a_write_that_a_lock_keeps_out_is_a_conflict(telemetry: Telemetry, guarded: ResultStore) -> None:
    guarded.acquire_lock("k", "me")
    with pytest.raises(LockedError):
        guarded.write(1, key="k", holder="you")
    guarded.release_lock("k", "me")
    assert telemetry.total("pgresults.conflicts", error_type="pgresults.errors.LockedError") == 1


@contextmanager
def _few_connections(url: URL, number: int) -> Iterator[PostgresStorage]:
    """A storage in a database of its own: pools are counted by database, those of other tests' too."""
    settings = current_settings().model_copy(update={"pool_size": number, "pool_overflow": 0, "connect_timeout": 0.1})
    few = PostgresStorage(url, settings=settings)
    yield few
    few.close()


def test_pools_say_what_is_idle_in_use_and_allowed(telemetry: Telemetry, fresh_url: URL) -> None:
    with _few_connections(fresh_url, 2) as few:
        store = ResultStore(result_storage=few)
        store.write(1, key="k")
        assert _pool(telemetry, few) == {"idle": 1, "used": 0, "max": 2}
        with few.database._pools.connection():
            assert _pool(telemetry, few) == {"idle": 0, "used": 1, "max": 2}
            with few.database._pools.connection(), pytest.raises(StorageUnavailable):
                store.read("k")
        assert telemetry.total("db.client.connection.timeouts") == 1

        async def on_a_loop() -> None:
            await store.aread("k")
            assert _pool(telemetry, few) == {"idle": 3, "used": 0, "max": 4}

        asyncio.run(on_a_loop())


def _pool(telemetry: Telemetry, storage: PostgresStorage) -> dict[str, int]:
    """What the pools of a storage's database are said to be now."""
    said = storage.database.described.attributes
    name = f"{said['server.address']}/{said['db.namespace']}"
    found = {}
    for metric in ("count", "max"):
        telemetry.forget()
        for point in telemetry.points(f"db.client.connection.{metric}"):
            if point.attributes["db.client.connection.pool.name"] == name:
                found[point.attributes.get("db.client.connection.state", metric)] = point.value
    return found
