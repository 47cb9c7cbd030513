"""A stored result that can no longer be loaded is computed again; who reads it is told what can be done."""

import sys
from types import ModuleType
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import URL

from pgresults import PostgresStorage, ResultStore, task
from pgresults.cache_policies import INPUTS
from pgresults.errors import IntegrityError, SerializationError
from pgresults.tasks import explain
from tests.support.calls import Call
from tests.support.work import called, calls


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module with a class that a test may take away."""
    module = ModuleType("shop")
    exec("class Order: pass", vars(module))
    monkeypatch.setitem(sys.modules, "shop", module)
    return module


@task(cache_policy=INPUTS)
def load(number: int) -> Any:
    """Give an order, while there are any."""
    called(number)
    order = getattr(sys.modules["shop"], "Order", None)
    return number if order is None or number == 3 else order()


@task(cache_policy=INPUTS)
async def aload(number: int) -> Any:
    """Give an order, while there are any."""
    return load.fn(number)


async def test_a_task_computes_it_again_and_says_why(
    storage: PostgresStorage, shop: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    work, awork = load.with_options(result_storage=storage), aload.with_options(result_storage=storage)
    for _ in range(2):
        assert type(work(1)) is type(await awork(1)) is shop.Order
    assert calls == [1, 1]
    del shop.Order
    told = explain(work, 1)
    assert not told.hit
    assert "computes it again" in told.reason
    assert "Order" in told.reason
    assert (work(1), await awork(1)) == (1, 1)
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert repr(told.key) in caplog.text
    assert "get attribute 'Order'" in caplog.text
    assert (work(1), await awork(1)) == (1, 1)
    assert calls == [1] * 4
    assert explain(work, 1).hit
    assert len(caplog.records) == 2


@pytest.mark.parametrize("apart", [False, True])
def test_a_map_computes_again_what_cannot_be_loaded(
    storage: PostgresStorage, shop: ModuleType, shared_url: URL, caplog: pytest.LogCaptureFixture, apart: bool
) -> None:
    keys = PostgresStorage(shared_url, f"keys-{uuid4().hex}")
    policy = INPUTS.configure(key_storage=keys) if apart else INPUTS
    work = load.with_options(result_storage=storage, cache_policy=policy)
    assert work.map([1, 2, 3])[2] == 3
    del shop.Order
    assert work.map([1, 2, 3]) == [1, 2, 3]
    assert sorted(calls) == [1, 1, 2, 2, 3]
    assert work.map([1, 2, 3]) == [1, 2, 3]
    assert sorted(calls) == [1, 1, 2, 2, 3]
    assert {record.levelname for record in caplog.records} == {"WARNING"}
    keys.close()


def test_a_task_under_a_lock_computes_it_again(storage: PostgresStorage, shop: ModuleType) -> None:
    locked = INPUTS.configure(isolation_level="SERIALIZABLE", lock_manager=storage.lock_manager())
    work = load.with_options(result_storage=storage, cache_policy=locked)
    work(1)
    del shop.Order
    assert (work(1), work(1)) == (1, 1)
    assert calls == [1, 1]


async def test_a_read_says_the_ways_out(call: Call, store: ResultStore, shop: ModuleType) -> None:
    await call(store, "write", shop.Order(), key="order")
    del shop.Order
    with pytest.raises(SerializationError, match=r"version 1 of .*imported.*write it.*read_path.*delete") as told:
        await call(store, "read", "order")
    assert (told.value.key, told.value.serializer_type) == ("order", "pickle")
    assert "get attribute 'Order'" in str(told.value.__cause__)
    with pytest.raises(SerializationError):
        await call(store, "read_many", ["order"])
    assert store.result_storage.read_path("order")


def test_what_was_tampered_with_is_no_reason_to_compute_again(
    storage: PostgresStorage, shop: ModuleType, connection: psycopg.Connection[Any]
) -> None:
    work = load.with_options(result_storage=storage)
    work(3)
    connection.execute("UPDATE pgresults.payload SET data = 'x' WHERE storage_id = %s", [storage.id])
    with pytest.raises(IntegrityError):
        work(3)
    assert calls == [3]
