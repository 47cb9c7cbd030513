"""Expiration, and misses that say why."""

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from pgresults.errors import InvalidArgument, MissingResult
from pgresults.store import ResultStore
from tests.support.listing import page
from tests.support.values import TOKYO, past, set_expiration, soon


async def test_an_expired_result_is_gone(call: Any, store: ResultStore) -> None:
    when = past()
    await call(store, "write", "old", key="k", expiration=when)
    assert not await call(store, "exists", "k")
    with pytest.raises(MissingResult, match="expired") as miss:
        await call(store, "read", "k")
    assert (miss.value.key, miss.value.reason, miss.value.at, miss.value.by) == ("k", "expired", when, None)
    assert page(store.result_storage) == []


async def test_a_result_lives_until_it_expires(call: Any, store: ResultStore, connection: psycopg.Connection) -> None:
    when = soon().astimezone(TOKYO)
    stored = await call(store, "write", "fresh", key="k", expiration=when)
    assert stored.expiration == when
    assert stored.expiration.tzinfo is UTC
    record = await call(store, "read", "k")
    assert record.expiration == when
    set_expiration(connection, store, "clock_timestamp()")
    assert not await call(store, "exists", "k")
    with pytest.raises(MissingResult, match="expired"):
        await call(store, "read", "k")


async def test_misses_say_why(call: Any, store: ResultStore) -> None:
    with pytest.raises(MissingResult) as miss:
        await call(store, "read", "k")
    assert (miss.value.reason, miss.value.at, miss.value.by) == ("never written", None, None)
    written = await call(store, "write", 1, key="k")
    await call(store, "delete", "k")
    with pytest.raises(MissingResult) as miss:
        await call(store, "read", "k")
    assert miss.value.reason == "deleted"
    assert written.created_at < miss.value.at <= datetime.now(UTC) + timedelta(seconds=5)
    assert "@" in miss.value.by
    assert miss.value.by in str(miss.value)


async def test_a_write_brings_back_what_expired_or_was_deleted(call: Any, store: ResultStore) -> None:
    await call(store, "write", 1, key="k", expiration=past())
    await call(store, "write", 2, key="k")
    assert (await call(store, "read", "k")).result == 2
    await call(store, "delete", "k")
    await call(store, "write", 3, key="k")
    assert (await call(store, "read", "k")).result == 3


@pytest.mark.parametrize(
    "moment", [datetime(2030, 1, 1), "tomorrow", 3600, timedelta(hours=1), datetime.min.replace(tzinfo=TOKYO)]
)
async def test_only_aware_moments_are_expirations(call: Any, store: ResultStore, moment: Any) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        await call(store, "write", 1, key="k", expiration=moment)
    assert refusal.value.argument == "expiration"
    assert not await call(store, "exists", "k")


async def test_the_last_moment_of_all_is_a_moment(call: Any, store: ResultStore) -> None:
    moment = datetime.max.replace(tzinfo=UTC)
    await call(store, "write", 1, key="k", expiration=moment)
    assert (await call(store, "read", "k")).expiration == moment


async def test_the_first_moment_of_all_is_long_past(call: Any, store: ResultStore) -> None:
    moment = datetime.min.replace(tzinfo=UTC)
    await call(store, "write", 1, key="k", expiration=moment)
    with pytest.raises(MissingResult) as miss:
        await call(store, "read", "k")
    assert miss.value.at == moment


async def test_a_relative_expiration_is_the_servers(call: Any, store: ResultStore) -> None:
    span = timedelta(hours=1)
    for number, size in enumerate((10, 2_000_000), 1):
        stored = await call(store, "write", bytes(size), key="k", expires_in=span)
        assert stored.version == number
        assert stored.expiration - stored.created_at <= span
        assert stored == (await call(store, "read", "k")).metadata
    first = await call(store, "write", 1, key="first", expires_in=span)
    assert first.expiration == first.created_at + span  # no clock of this process has a part in it
    many = await call(store, "write_many", {"a": 1, "b": bytes(2_000_000)}, expires_in=span)
    assert all(one.expiration == one.created_at + span for one in many.values())
    assert store.verify().intact


@pytest.mark.parametrize("span", [timedelta(0), timedelta(seconds=-1), timedelta.max, 60])
async def test_a_relative_expiration_is_a_time_to_come(call: Any, store: ResultStore, span: Any) -> None:
    with pytest.raises(InvalidArgument, match="expires_in"):
        await call(store, "write", 1, key="k", expires_in=span)
    with pytest.raises(InvalidArgument, match="not both"):
        await call(store, "write", 1, key="k", expiration=datetime.now(UTC) + timedelta(1), expires_in=timedelta(1))
    assert not store.exists("k")
