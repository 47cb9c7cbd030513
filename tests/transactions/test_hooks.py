"""Hooks of transactions: their order, and what a failure of theirs does."""

# ruff: noqa: PT012 (what fails is the end of a block)

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from pgresults.store import ResultStore
from pgresults.transactions import Transaction, transaction
from tests.support.transactions import Enter, Failure, stored


class TestHooks:
    @pytest.fixture
    def calls(self) -> list[str]:
        return []

    def hook(self, calls: list[str], name: str) -> Callable[[Any], None]:
        return lambda txn: calls.append(f"{name} {txn.key} {txn.state.value}")

    async def test_their_order(self, enter: Enter, store: ResultStore, calls: list[str]) -> None:
        def present(txn: Transaction) -> None:
            calls.append(f"stored {stored(store, 'a', 'b')}")

        with pytest.raises(Failure):
            async with enter("a", store) as outer:
                outer.stage(1, on_rollback_hooks=[self.hook(calls, "1"), self.hook(calls, "2")])
                async with enter("b", store) as inner:
                    inner.stage(2, on_rollback_hooks=[self.hook(calls, "3"), self.hook(calls, "4")])
                raise Failure
        assert calls == ["2 a ROLLED_BACK", "1 a ROLLED_BACK", "4 b ROLLED_BACK", "3 b ROLLED_BACK"]
        calls.clear()
        async with enter("a", store) as outer:
            outer.stage(1, on_commit_hooks=[self.hook(calls, "1"), present])
            async with enter("b", store) as inner:
                inner.stage(2, on_commit_hooks=[self.hook(calls, "2"), self.hook(calls, "3")])
        assert calls == ["2 b STAGED", "3 b STAGED", "1 a STAGED", "stored {}"]

    async def test_a_commit_hook_that_fails(self, enter: Enter, store: ResultStore, calls: list[str]) -> None:
        def fail(_: Any) -> None:
            raise Failure

        with pytest.raises(Failure):
            async with enter("a", store) as txn:
                txn.stage(1, on_rollback_hooks=[self.hook(calls, "undo")], on_commit_hooks=[fail])
        assert calls == ["undo a ROLLED_BACK"]
        assert stored(store, "a") == {}

    async def test_a_rollback_hook_that_fails(
        self, enter: Enter, store: ResultStore, calls: list[str], caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(_: Any) -> None:
            raise ZeroDivisionError

        with pytest.raises(Failure):
            async with enter("a", store) as txn:
                txn.stage(1, on_rollback_hooks=[self.hook(calls, "undo"), fail])
                raise Failure
        assert calls == ["undo a ROLLED_BACK"]
        assert "a rollback hook of transaction 'a' failed" in caplog.text

    async def test_they_may_be_coroutine_functions(self, store: ResultStore, calls: list[str]) -> None:
        async def hook(txn: Transaction) -> None:
            await asyncio.sleep(0)
            calls.append(txn.key)

        async with transaction("a", store) as txn:
            txn.stage(1, on_commit_hooks=[hook])

        def thread() -> None:
            with transaction("b", store) as txn:
                txn.stage(1, on_commit_hooks=[hook])

        await asyncio.to_thread(thread)
        assert calls == ["a", "b"]
