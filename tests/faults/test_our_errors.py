"""Whatever is asked for or found, the error is one of ours, with its fields."""

import math
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL

from pgresults import flow, task
from pgresults.errors import (
    ConfigurationError,
    IntegrityError,
    InvalidArgument,
    MissingResult,
    PgResultsError,
    StorageUnavailable,
)
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.proxy import Proxy

END = ("infinity", "20000-01-01", "294276-12-31")


@pytest.mark.parametrize("seconds", [math.inf, 1e10, 1e300])
async def test_what_no_clock_can_count_is_for_ever(call: Any, guarded: ResultStore, seconds: float) -> None:
    assert await call(guarded, "acquire_lock", "k", "a", timeout=seconds)
    assert await call(guarded, "wait_for_lock", "free", timeout=seconds)
    await call(guarded, "release_lock", "k", "a")


@pytest.mark.parametrize("seconds", [math.nan, -1, -math.inf, "1"])
async def test_what_is_no_time_is_refused(call: Any, guarded: ResultStore, seconds: Any) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await call(guarded, "acquire_lock", "k", "a", timeout=seconds)
    assert refused.value.argument == "acquire_timeout"


async def test_a_url_that_leads_nowhere_is_no_outage(call: Any, fresh_url: URL) -> None:
    for url in (fresh_url.set(database="no_such_database"), fresh_url.set(username="nobody_of_this_name")):
        storage = PostgresStorage(url)
        with pytest.raises(ConfigurationError) as refused:
            await call(ResultStore(result_storage=storage), "exists", "k")
        assert refused.value.setting == "database_url"
        await storage.aclose()


async def test_a_read_leaves_nothing_unknown(call: Any, fresh_url: URL) -> None:
    with Proxy(fresh_url) as proxy:
        storage = PostgresStorage(proxy.url)
        store = ResultStore(result_storage=storage)
        await call(store, "write", 1, key="k")
        proxy.lose(b"data", times=100)  # a column that a read asks for
        with pytest.raises(StorageUnavailable) as failure:
            await call(store, "read", "k")
        assert failure.value.outcome_unknown is False
        await storage.aclose()


@pytest.mark.parametrize("provenance", ["[1]", '"text"', "1"])
async def test_a_damaged_description_is_damage(
    call: Any, store: ResultStore, connection: psycopg.Connection[Any], provenance: str
) -> None:
    await call(store, "write", 1, key="k")
    connection.execute(
        "UPDATE pgresults.result SET provenance = %s WHERE storage_id = %s", (provenance, store.result_storage.id)
    )
    with pytest.raises(IntegrityError) as damage:
        await call(store, "read", "k")
    assert (damage.value.key, damage.value.version) == ("k", 1)
    assert not store.verify().intact


async def test_a_head_that_was_removed_is_damage(
    call: Any, store: ResultStore, connection: psycopg.Connection[Any]
) -> None:
    for size in (1, 2_000_000):
        key = f"k{size}"
        await call(store, "write", bytes(size), key=key)
        connection.execute(
            "DELETE FROM pgresults.result WHERE storage_id = %s AND key = %s", (store.result_storage.id, key)
        )
        with pytest.raises(IntegrityError, match="verify"):
            await call(store, "write", bytes(size), key=key)
        with pytest.raises(MissingResult):
            await call(store, "read", key)


@pytest.mark.parametrize("moment", END)
async def test_an_expiration_beyond_all_dates_is_none(
    call: Any, store: ResultStore, connection: psycopg.Connection[Any], moment: str
) -> None:
    await call(store, "write", 1, key="k")
    connection.execute(
        "UPDATE pgresults.result SET expires_at = %s WHERE storage_id = %s", (moment, store.result_storage.id)
    )
    assert await call(store, "exists", "k")
    assert (await call(store, "read", "k")).expiration is None
    assert [found.key for found in await call(store, "find")] == ["k"]
    assert not (await call(store, "verify")).intact


@pytest.mark.parametrize("moment", ["-infinity", "4713-01-01 BC"])
async def test_an_expiration_before_all_dates_is_past(
    call: Any, store: ResultStore, connection: psycopg.Connection[Any], moment: str
) -> None:
    await call(store, "write", 1, key="k")
    connection.execute(
        "UPDATE pgresults.result SET expires_at = %s WHERE storage_id = %s", (moment, store.result_storage.id)
    )
    assert not await call(store, "exists", "k")
    with pytest.raises(MissingResult) as miss:
        await call(store, "read", "k")
    assert miss.value.reason == "expired"
    assert await call(store, "find") == []


@pytest.mark.parametrize("holder", ["\ud800", "a\0b", "", 1])
async def test_a_holder_that_cannot_be_named_is_refused(call: Any, guarded: ResultStore, holder: Any) -> None:
    await call(guarded, "write", 1, key="k")
    for name in ("acquire_lock", "release_lock", "is_lock_holder", "read"):
        with pytest.raises(PgResultsError) as refused:
            await call(guarded, name, "k", holder)
        assert isinstance(refused.value, InvalidArgument)


@pytest.mark.parametrize("part", ["name", "__name__", "__qualname__", "__module__"])
@pytest.mark.parametrize("name", ["\ud800", "a\0b"])
@pytest.mark.parametrize("made", [task, flow])
def test_a_name_that_cannot_be_recorded_is_refused(made: Any, name: str, part: str) -> None:
    def function() -> None:
        pytest.fail("it runs")

    options = {"name": name} if part == "name" else {}
    if not options:
        setattr(function, part, name)
    with pytest.raises(InvalidArgument) as refused:
        made(function, **options)
    assert refused.value.argument == "name"
