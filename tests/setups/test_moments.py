"""Times and numbers beyond all measure, of callers and of operators: a right answer, or who gave them is told."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pgresults.errors import InvalidArgument, MissingResult
from pgresults.store import ResultStore
from tests.support.calls import Call

BC = "0044-03-15 BC"
FAR = ["infinity", "20000-01-01", "294276-12-31 23:59:59 UTC", "9999-12-31 23:59:59.999999+00"]
PAST = ["-infinity", BC, "4714-11-24 BC"]


def set_by_hand(store: ResultStore, connection: Any, moment: str) -> None:
    with connection.transaction():
        connection.execute("ALTER TABLE pgresults.result DISABLE TRIGGER record_entry")
        query = "UPDATE pgresults.result SET expires_at = %s::timestamptz WHERE storage_id = %s"
        connection.execute(query, [moment, store.result_storage.id])
        connection.execute("ALTER TABLE pgresults.result ENABLE TRIGGER record_entry")


@pytest.mark.parametrize("moment", [*FAR, *PAST])
async def test_what_an_operator_says_is_one_thing_everywhere(
    call: Call, store: ResultStore, connection: Any, moment: str
) -> None:
    store.write(1, key="k", tags=["t"], expires_in=timedelta(hours=1))
    set_by_hand(store, connection, moment)
    lives = moment in FAR
    assert await call(store, "exists", "k") is lives
    assert ("k" in await call(store, "read_many", ["k"])) is lives
    for conditions in ({}, {"tags": ["t"]}, {"prefix": "k"}):
        assert [found.key for found in await call(store, "find", **conditions)] == ["k"] * lives
    if lives:
        read = await call(store, "read", "k")
        (expires,) = {read.metadata.expiration, (await call(store, "find"))[0].expires_at}
        assert read.result == 1
        assert expires == (datetime.max.replace(tzinfo=UTC) if moment == FAR[-1] else None)
    else:
        with pytest.raises(MissingResult, match="expired"):
            await call(store, "read", "k")
    assert "expires_at" in (await call(store, "verify")).findings[0].message
    shown = connection.execute(
        "SELECT expired FROM pgresults.expirations WHERE storage_id = %s", [store.result_storage.id]
    )
    assert shown.fetchall() == [(not lives,)]
    connection.execute("SELECT * FROM pgresults.expirations")
    assert await call(store, "sweep") == (not lives)


@pytest.mark.parametrize("span", [timedelta.max, timedelta(days=10**6), timedelta(hours=2)])
async def test_whatever_expires_at_all_is_within_a_span_beyond_measure(
    call: Call, store: ResultStore, span: timedelta
) -> None:
    store.write(1, key="soon", expires_in=timedelta(hours=1))
    store.write(1, key="never")
    assert [listed.key for listed in await call(store, "expiring", span)] == ["soon"]


@pytest.mark.parametrize("span", [timedelta.min, -timedelta(days=1), timedelta()])
async def test_nothing_expires_in_the_past(call: Call, store: ResultStore, span: timedelta) -> None:
    store.write(1, key="soon", expires_in=timedelta(hours=1))
    assert await call(store, "expiring", span) == []


@pytest.mark.parametrize("age", [timedelta.max, timedelta(days=365 * 5000)])
async def test_nothing_is_older_than_millennia(call: Call, store: ResultStore, age: timedelta) -> None:
    for number in range(2):
        store.write(number, key="k")
    assert await call(store, "retain", age=age) == 0
    assert await call(store, "retain", age=timedelta()) == 1


@pytest.mark.parametrize("moment", [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)])
async def test_the_first_and_the_last_moment_are_moments(call: Call, store: ResultStore, moment: datetime) -> None:
    await call(store, "write", 1, "k")
    is_last = moment.year == 9999
    assert (await call(store, "verify", since=moment)).intact
    assert bool(await call(store, "find", written_after=moment)) is not is_last
    assert await call(store, "exists", "k", as_of=moment) is is_last
    await call(store, "touch", "k", moment)
    assert await call(store, "exists", "k") is is_last


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("expiring", {"within": timedelta(1), "limit": 10**20}),
        ("expiring", {"within": timedelta(1), "limit": 0}),
        ("retain", {"versions": 10**30}),
        ("sweep", {"batch_size": 10**30}),
        ("read", {"key": "k", "version": 10**30}),
        ("verify", {"since": datetime(2020, 1, 1)}),
    ],
)
async def test_what_no_server_can_count_is_refused(call: Call, store: ResultStore, name: str, given: Any) -> None:
    await call(store, "write", 1, "k")
    with pytest.raises(InvalidArgument) as refusal:
        await call(store, name, **given)
    assert refusal.value.argument in given


async def test_so_is_a_number_of_locks_to_forget(call: Call, guarded: ResultStore) -> None:
    with pytest.raises(InvalidArgument, match="batch_size"):
        await call(guarded.lock_manager, "forget_released", 10**12)
