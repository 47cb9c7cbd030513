"""Flows: their results, their settings for tasks, nesting."""

from typing import Any

import pytest
from pydantic import ValidationError

from pgresults import PostgresStorage, ResultStore, flow, get_result_store, should_persist_result, task
from pgresults.cache_policies import INPUTS
from pgresults.context import FlowRunContext
from pgresults.settings import temporary_settings
from tests.support.database import psycopg_url
from tests.support.listing import page


def test_a_flow_calls_its_function(storage: PostgresStorage) -> None:
    @flow
    def add(x: int, y: int = 1) -> int:
        return x + y

    assert add(1) == add(x=1, y=1) == 2
    assert add.name == "add"
    assert add.persist_result is None
    with pytest.raises(TypeError, match="missing"):
        add()  # type: ignore[call-arg]


async def test_async_flows_await_tasks(storage: PostgresStorage) -> None:
    @task(cache_policy=INPUTS)
    async def double(x: int) -> int:
        return 2 * x

    @flow(result_storage=storage)
    async def run() -> list[int]:
        return [await double(1), await double(1), await double(2)]

    assert await run() == [2, 2, 4]
    assert len(page(storage)) == 3
    await storage.aclose()


def test_its_result_lies_under_the_id_of_its_run(storage: PostgresStorage) -> None:
    @flow(result_storage=storage, result_serializer="json")
    def run() -> str:
        context = FlowRunContext.get()
        assert context is not None
        assert should_persist_result()
        return context.flow_run.id.hex

    key = run()
    store = ResultStore(result_storage=storage).update_for_flow(run)
    assert store.read(key).result == key
    assert store.serializer.type == "json"


def test_tasks_take_over_what_the_flow_says(storage: PostgresStorage) -> None:
    @task
    def inner() -> tuple[bool, Any]:
        return should_persist_result(), get_result_store().serializer.type

    @flow(result_storage=storage, result_serializer="json")
    def outer() -> Any:
        return inner(), inner.with_options(persist_result=False)()

    assert list(map(tuple, outer())) == [(True, "json"), (False, "json")]
    assert outer.with_options(persist_result=False)()[0][0] is False
    assert not should_persist_result()


def test_a_flow_in_a_flow_is_a_run_of_its_own(storage: PostgresStorage) -> None:
    @flow
    def inner() -> Any:
        context = FlowRunContext.get()
        assert context is not None
        return context.flow.name, context.flow_run.id

    @flow
    def outer() -> Any:
        context = FlowRunContext.get()
        assert context is not None
        return inner(), (context.flow.name, context.flow_run.id)

    (inner_name, inner_id), (outer_name, outer_id) = outer()
    assert (inner_name, outer_name) == ("inner", "outer")
    assert inner_id != outer_id
    assert FlowRunContext.get() is None


def test_the_settings_decide_where_nothing_is_said(storage: PostgresStorage) -> None:
    @task
    def work() -> bool:
        return should_persist_result()

    @flow
    def run() -> tuple[bool, bool]:
        return should_persist_result(), work()

    url = psycopg_url(storage.database.url())
    with temporary_settings(results__persist_by_default=True, database_url=url):
        assert run() == (True, True)
    with temporary_settings(tasks__default_persist_result=True, database_url=url):
        assert (work(), run()) == (True, (False, False))


def test_a_failed_flow_stores_nothing(storage: PostgresStorage) -> None:
    @flow(result_storage=storage)
    def fail() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert page(storage) == []
    with pytest.raises(TypeError, match="no option 'cache_policy'"):
        flow(cache_policy=INPUTS)(print)  # type: ignore[call-overload]
    with pytest.raises((TypeError, ValidationError)):
        ResultStore(result_storge=storage)  # type: ignore[call-arg]
