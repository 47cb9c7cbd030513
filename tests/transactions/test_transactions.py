"""Transactions: what is staged is stored when they end, or not at all."""

# ruff: noqa: PT012 (what fails is the end of a block)

from typing import Any

import pytest

from pgresults.errors import (
    InvalidArgument,
    InvalidKey,
    MissingContextError,
    MissingResult,
    SerializationError,
)
from pgresults.store import ResultStore
from pgresults.transactions import CommitMode, TransactionState, atransaction, get_transaction, transaction
from tests.support.calls import Call
from tests.support.transactions import EAGER, LAZY, OFF, SERIALIZABLE, Enter, Failure, stored


class TestOne:
    async def test_it_stores_what_was_staged(self, enter: Enter, store: ResultStore) -> None:
        txn = transaction("k", store)
        assert txn.is_pending()
        async with enter("k", store) as txn:
            assert txn.is_active()
            assert get_transaction() is txn
            txn.stage(1)
            txn.stage({"a": 2})
            assert txn.is_staged()
            assert not store.exists("k")
        assert txn.is_committed()
        assert get_transaction() is None
        assert store.read("k").result == {"a": 2}
        assert store.read("k").metadata.version == 1

    async def test_an_exception_stores_nothing(self, enter: Enter, store: ResultStore) -> None:
        with pytest.raises(Failure):
            async with enter("k", store) as txn:
                txn.stage(1)
                raise Failure
        assert txn.is_rolled_back()
        assert stored(store, "k") == {}

    async def test_none_is_a_result(self, enter: Enter, store: ResultStore) -> None:
        async with enter("k", store) as txn:
            txn.stage(None)
        assert stored(store, "k") == {"k": None}

    @pytest.mark.parametrize("mode", [LAZY, EAGER, None])
    async def test_it_commits_at_its_end(self, enter: Enter, store: ResultStore, mode: CommitMode | None) -> None:
        async with enter("k", store, commit_mode=mode) as txn:
            txn.stage(1)
        assert stored(store, "k") == {"k": 1}
        assert txn.state is TransactionState.COMMITTED

    async def test_off_rolls_back_what_nobody_committed(self, enter: Enter, do: Call, store: ResultStore) -> None:
        async with enter("k", store, commit_mode=OFF) as txn:
            txn.stage(1)
        assert txn.is_rolled_back()
        async with enter("other", store, commit_mode=OFF) as txn:
            txn.stage(2)
            assert await do(txn, "commit") is True
            assert await do(txn, "commit") is False
            assert await do(txn, "rollback") is False
        assert stored(store, "k", "other") == {"other": 2}

    async def test_a_rollback_is_final(self, enter: Enter, do: Call, store: ResultStore) -> None:
        async with enter("k", store) as txn:
            txn.stage(1)
            assert await do(txn, "rollback") is True
            assert await do(txn, "rollback") is False
            assert await do(txn, "commit") is False
            with pytest.raises(MissingContextError):
                txn.stage(2)
        assert stored(store, "k") == {}

    async def test_a_live_result_commits_it_at_once(self, enter: Enter, do: Call, guarded: ResultStore) -> None:
        guarded.write("there", key="k")
        async with enter("k", guarded, isolation_level=SERIALIZABLE) as txn:
            assert txn.is_committed()
            assert (await do(txn, "read")).result == "there"
            assert not guarded.is_locked("k")
            txn.stage("not stored")
        assert stored(guarded, "k") == {"k": "there"}

    async def test_overwrite_runs_anyway(self, enter: Enter, store: ResultStore) -> None:
        store.write("old", key="k")
        async with enter("k", store, overwrite=True) as txn:
            assert txn.is_active()
            txn.stage("new")
        assert stored(store, "k") == {"k": "new"}

    async def test_write_on_commit_may_be_off(self, enter: Enter, store: ResultStore) -> None:
        called = []
        async with enter("k", store, write_on_commit=False) as txn:
            txn.stage(1, on_commit_hooks=[called.append])
        assert (txn.is_committed(), called, stored(store, "k")) == (True, [txn], {})

    async def test_it_is_entered_once(self, enter: Enter, store: ResultStore) -> None:
        async with enter("k", store) as txn:
            with pytest.raises(MissingContextError):
                txn.__enter__()
            assert get_transaction() is txn
        with pytest.raises(MissingContextError):
            txn.__enter__()
        with pytest.raises(MissingContextError):
            transaction("k", store).stage(1)

    async def test_reading_what_is_not_there(self, enter: Enter, do: Call, store: ResultStore) -> None:
        async with enter("k", store) as txn:
            with pytest.raises(MissingResult):
                await do(txn, "read")

    def test_bad_keys_are_refused(self, store: ResultStore) -> None:
        with pytest.raises(InvalidKey):
            transaction("", store)

    def test_it_is_one_thing_under_two_names(self) -> None:
        assert atransaction is transaction


class TestValues:
    async def test_they_are_copied_and_found_in_parents(self, enter: Enter) -> None:
        async with enter() as outer:
            outer.set("list", [1])
            outer.set("own", "outer")
            async with enter() as inner:
                inner.set("own", "inner")
                inner.get("list").append(2)
                assert (inner.get("list"), inner.get("own"), outer.get("own")) == ([1], "inner", "outer")
                assert inner.get("missing", default=None) is None
                with pytest.raises(ValueError, match="'missing'"):
                    inner.get("missing")
                with pytest.raises(InvalidArgument):
                    outer.get("missing")


class TestOptions:
    @pytest.mark.parametrize(
        ("option", "value"),
        [("isolation_level", "SERIALISABLE"), ("isolation_level", 2), ("commit_mode", "eager"), ("store", "default")],
    )
    def test_what_is_none_is_refused(self, store: ResultStore, option: str, value: Any) -> None:
        with pytest.raises(InvalidArgument, match=option) as refused:
            transaction("k", **{"store": store, option: value})
        assert (refused.value.argument, refused.value.value) == (option, value)

    def test_a_name_means_its_member(self, guarded: ResultStore) -> None:
        options: Any = {"isolation_level": "SERIALIZABLE", "commit_mode": "EAGER"}
        with transaction("k", guarded, **options) as txn:
            assert (txn.isolation_level, txn.commit_mode) == (SERIALIZABLE, EAGER)
            assert guarded.is_lock_holder("k")


def test_serialization_errors_name_what_failed(store: ResultStore) -> None:
    with pytest.raises(SerializationError), transaction("k", store) as txn:
        txn.stage(1)
        raise SerializationError("the block's own")
    assert txn.is_rolled_back()
