"""How code that was written for Prefect uses transactions."""

import asyncio
import json
from collections.abc import Generator
from typing import Any

import pytest

from pgresults import ResultStore, get_transaction, transaction
from pgresults.transactions import AsyncTransaction, BaseTransaction, Transaction
from tests.support.calls import Call
from tests.support.transactions import Enter, Failure, stored


async def test_no_hooks_may_be_said_as_none(enter: Enter, store: ResultStore) -> None:
    async with enter(key="k", store=store) as txn:
        txn.stage(1, None, None)
    assert stored(store, "k") == {"k": 1}


async def test_without_a_key_there_is_nothing_to_read(enter: Enter, do: Call) -> None:
    async with enter() as txn:
        assert await do(txn, "read") is None


async def test_a_record_is_stored_under_its_own_key(enter: Enter, store: ResultStore) -> None:
    elsewhere = store.create_result_record("x", key="elsewhere")
    nowhere = elsewhere.model_copy(update={"metadata": elsewhere.metadata.model_copy(update={"storage_key": None})})
    async with enter("k", store) as txn:
        txn.stage(elsewhere)
    assert stored(store, "k", "elsewhere") == {"elsewhere": "x"}
    async with enter("k", store) as txn:
        txn.stage(nowhere)
    assert stored(store, "k") == {"k": "x"}


def test_one_class_is_for_both_ways() -> None:
    assert AsyncTransaction is BaseTransaction is Transaction


class Later:
    """Something to await that is no coroutine."""

    def __init__(self, seen: list[Any]) -> None:
        self.seen = seen

    def __await__(self) -> Generator[Any, None, None]:
        yield from asyncio.sleep(0).__await__()
        self.seen.append("later")


@pytest.mark.parametrize("running", [True, False])
def test_async_hooks_are_waited_for_on_a_loop_or_none(store: ResultStore, running: bool) -> None:
    seen: list[Any] = []

    async def hook(txn: Transaction) -> None:
        await asyncio.sleep(0)
        seen.append((txn.key, get_transaction() is txn))

    def hooks() -> None:
        with transaction(key="k", store=store) as txn:
            txn.stage(1, on_commit_hooks=[hook, lambda _: Later(seen)])
        with transaction(key="undone", store=store) as txn:
            txn.stage(1, on_rollback_hooks=[hook])
            txn.rollback()

    async def on_a_loop() -> None:
        hooks()

    asyncio.run(on_a_loop()) if running else hooks()
    assert seen == [("k", True), "later", ("undone", True)]
    assert stored(store, "k", "undone") == {"k": 1}


async def test_an_async_hook_that_fails_on_a_running_loop_stores_nothing(store: ResultStore) -> None:
    async def hook(_: Transaction) -> None:
        raise Failure

    with pytest.raises(Failure), transaction(key="k", store=store) as txn:
        txn.stage(1, on_commit_hooks=[hook])
    assert stored(store, "k") == {}


def test_a_state_is_equal_to_its_name(store: ResultStore) -> None:
    with transaction(key="k", store=store) as txn:
        assert txn.state == "ACTIVE"
        txn.stage(1)
    assert txn.state == "COMMITTED"
    assert json.dumps({"state": txn.state}) == '{"state": "COMMITTED"}'
