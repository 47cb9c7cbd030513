"""A result is taken as it is when it is staged."""

import asyncio
import threading
from typing import Any

import pytest

from pgresults import ResultStore, task, transaction
from pgresults.cache_policies import INPUTS
from pgresults.errors import MissingResult
from pgresults.storage import PostgresStorage
from tests.support.calls import Call


async def staged(call: Call, store: ResultStore, value: Any, spoil: Any) -> Any:
    """What is stored of a value that is spoilt after it was staged."""
    async with transaction(key="k", store=store) as txn:
        txn.stage(value)
        spoil(value)
    return (await call(store, "read", "k")).result


async def test_what_happens_to_a_value_later_changes_nothing(call: Call, store: ResultStore) -> None:
    assert await staged(call, store, {"a": 1}, lambda value: value.update(a=2)) == {"a": 1}
    assert store.delete("k")
    assert await staged(call, store, [[1]], lambda value: value[0].append(2)) == [[1]]
    record = store.create_result_record([1], "k")
    store.delete("k")
    assert await staged(call, store, record, lambda value: value.result.append(2)) == [1]


def test_what_a_task_returned_is_what_is_stored_of_it(storage: PostgresStorage) -> None:
    @task(result_storage=storage, cache_policy=INPUTS)
    def load(number: int) -> list[int]:
        return [number]

    @task(result_storage=storage, cache_policy=INPUTS)
    def outer() -> list[int]:
        rows = load(1)
        rows.append(2)
        for more in load.map([3, 4]):
            more.clear()
        return rows

    assert outer() == [1, 2]
    assert [load(1), load(3), load(4)] == [[1], [3], [4]]
    with transaction():
        load(5).clear()
    assert load(5) == [5]


async def test_what_an_async_task_returned_is_what_is_stored_of_it(storage: PostgresStorage) -> None:
    @task(result_storage=storage, cache_policy=INPUTS)
    async def load(number: int) -> dict[str, Any]:
        return {"number": number, "rows": [number]}

    @task(result_storage=storage, cache_policy=INPUTS)
    async def outer() -> list[dict[str, Any]]:
        loaded = await asyncio.gather(*map(load, range(3)))
        for one in loaded:
            one["rows"].clear()
            one["more"] = True
        return loaded

    assert [one["rows"] for one in await outer()] == [[]] * 3
    assert await asyncio.gather(*map(load, range(3))) == [{"number": n, "rows": [n]} for n in range(3)]


def test_a_column_that_is_added_later_is_not_stored(storage: PostgresStorage) -> None:
    pandas = pytest.importorskip("pandas")

    @task(result_storage=storage, cache_policy=INPUTS)
    def load() -> Any:
        return pandas.DataFrame({"a": [1, 2]})

    @task(result_storage=storage, cache_policy=INPUTS)
    def outer() -> list[str]:
        frame = load()
        frame["b"] = 0
        frame.loc[0, "a"] = 999
        return list(frame)

    assert outer() == ["a", "b"]
    assert load().to_dict("list") == {"a": [1, 2]}


class Heavy:
    """Says in which thread it was serialized."""

    def __init__(self) -> None:
        self.threads: list[int] = []

    def __reduce__(self) -> Any:
        self.threads.append(threading.get_ident())
        return Heavy, ()


async def test_an_event_loop_does_not_wait_for_a_result_to_be_serialized(storage: PostgresStorage) -> None:
    @task(result_storage=storage, cache_policy=INPUTS)
    async def load() -> Heavy:
        return Heavy()

    heavy = await load()
    assert heavy.threads
    assert threading.get_ident() not in heavy.threads
    assert (await load()).threads == []


async def test_what_an_event_loop_cannot_serialize_is_said_at_the_commit(
    storage: PostgresStorage, caplog: pytest.LogCaptureFixture
) -> None:
    @task(result_storage=storage, cache_policy=INPUTS)
    async def load() -> Any:
        return (number for number in range(3))

    assert list(await load()) == [0, 1, 2]
    assert caplog.text.count("cannot be serialized") == 1
    assert list(await load()) == [0, 1, 2]


async def test_a_value_that_cannot_be_serialized_is_said_at_the_commit(
    call: Call, store: ResultStore, caplog: pytest.LogCaptureFixture
) -> None:
    async with transaction(key="k", store=store) as txn:
        txn.stage(lambda: (yield))  # can be pickled
        txn.stage(number for number in range(3))
        assert txn.is_staged()
    assert txn.is_rolled_back()
    assert "cannot be serialized" in caplog.text
    with pytest.raises(MissingResult):
        await call(store, "read", "k")


async def test_what_is_staged_again_replaces_what_could_not_be_stored(call: Call, store: ResultStore) -> None:
    async with transaction(key="k", store=store) as txn:
        txn.stage(number for number in range(3))
        txn.stage("fine")
    assert (await call(store, "read", "k")).result == "fine"


def test_what_is_not_to_be_stored_need_not_be_serializable(store: ResultStore) -> None:
    with transaction(key="k", store=store, write_on_commit=False) as txn:
        txn.stage(number for number in range(3))
    assert txn.is_committed()
    with transaction() as group:
        group.stage(number for number in range(3))
    assert group.is_committed()
    assert not store.exists("k")
