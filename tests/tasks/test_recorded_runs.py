"""Every result says from which task and flow it comes, whoever stores it in the end."""

from collections.abc import Callable
from typing import Any

import pytest

from pgresults import PostgresStorage, ResultStore, flow, task, transaction
from pgresults.cache_policies import INPUTS
from pgresults.transactions import get_transaction

SCOPE: dict[str, Any] = {}


@pytest.fixture(autouse=True)
def _stored_here(storage: PostgresStorage) -> None:
    SCOPE.update(persist_result=True, result_storage=storage)


def runs(store: ResultStore) -> set[tuple[str, str | None]]:
    return {(found.task or "-", found.flow) for found in store.find()}


def tasks(**options: Any) -> tuple[Any, Any, Any]:
    """A task that calls one that calls another."""

    @task(**SCOPE, **options)
    def inner(x: int) -> int:
        return x + 1

    @task(**SCOPE, **options)
    def middle(x: int) -> int:
        return int(inner(x)) * 2

    @task(**SCOPE, **options)
    def outer(x: int) -> int:
        return int(middle(x)) - 1

    return inner, middle, outer


def called(outer: Any) -> None:
    outer(1)


def in_a_flow(outer: Any) -> None:
    @flow(name="nightly", **SCOPE)
    def run() -> int:
        return int(outer(1))

    run()


def in_a_transaction(outer: Any) -> None:
    with transaction():
        outer(1)


def mapped(outer: Any) -> None:
    outer.map([1])


def mapped_together(outer: Any) -> None:
    outer.map([1], store_within=60)


@pytest.mark.parametrize("how", [called, in_a_transaction, mapped, mapped_together], ids=lambda how: how.__name__)
def test_each_task_of_a_tree_is_the_one_it_says(store: ResultStore, how: Callable[[Any], None]) -> None:
    inner, middle, outer = tasks(cache_policy=INPUTS)
    how(outer)
    assert runs(store) == {("inner", None), ("middle", None), ("outer", None)}
    assert [inner.invalidate(), middle.invalidate(), outer.invalidate()] == [1, 1, 1]
    assert store.find() == []


def test_each_says_its_flow_as_well(store: ResultStore) -> None:
    _, _, outer = tasks(cache_policy=INPUTS)
    in_a_flow(outer)
    assert {(name, run) for name, run in runs(store) if name != "-"} == {
        ("inner", "nightly"),
        ("middle", "nightly"),
        ("outer", "nightly"),
    }


async def test_async_tasks_say_the_same(store: ResultStore) -> None:
    @task(cache_policy=INPUTS, **SCOPE)
    async def inner(x: int) -> int:
        return x + 1

    @task(cache_policy=INPUTS, **SCOPE)
    async def outer(x: int) -> int:
        return sum(await inner.amap([x, x + 1]))

    await outer(1)
    assert sorted(found.task or "-" for found in store.find()) == ["inner", "inner", "outer"]


def test_what_a_transaction_of_a_task_stages_is_the_tasks(store: ResultStore) -> None:
    @task(**SCOPE)
    def work() -> None:
        with transaction(key="staged", store=store) as staged:
            staged.stage(1)
        with transaction(key="written", store=store):
            pass
        store.write(2, key="at once")

    with transaction():
        work()
        assert get_transaction() is not None
    said = {found.key: found.task for found in store.find()}
    assert said["staged"] == said["at once"] == "work"
    assert said.get("written", "work") == "work"
