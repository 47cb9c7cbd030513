"""Trees of transactions: what is staged is stored with the rest of its tree or not at all."""

# ruff: noqa: PT012 (what fails is the end of a block)

import asyncio
from contextlib import suppress

import pytest
from sqlalchemy import URL

from pgresults.errors import ConfigurationError, MissingContextError, RolledBackError
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from pgresults.transactions import CommitMode, transaction
from tests.support.calls import Call
from tests.support.transactions import EAGER, READ_COMMITTED, SERIALIZABLE, Enter, Failure, stored


class TestTrees:
    async def test_a_root_stores_everything_at_once(self, enter: Enter, store: ResultStore) -> None:
        async with enter() as root:
            for key in "abc":
                async with enter(key, store) as child:
                    child.stage(key)
                assert child.is_staged()
                assert child.get_parent() is root
            assert root.children[-1] is child
            assert stored(store, *"abc") == {}
        assert stored(store, *"abc") == {"a": "a", "b": "b", "c": "c"}
        assert all(child.is_committed() for child in root.children)

    @pytest.mark.parametrize("mode", list(CommitMode))
    async def test_children_inherit(self, enter: Enter, guarded: ResultStore, mode: CommitMode) -> None:
        async with (
            enter(store=guarded, commit_mode=mode, isolation_level=SERIALIZABLE) as root,
            enter("k") as child,
            enter("l", commit_mode=EAGER, isolation_level=READ_COMMITTED) as grandchild,
        ):
            assert (child.commit_mode, child.isolation_level, child.store) == (mode, SERIALIZABLE, guarded)
            assert (grandchild.commit_mode, grandchild.isolation_level) == (EAGER, READ_COMMITTED)
            assert root.holder == child.holder == grandchild.holder

    async def test_an_eager_child_does_not_wait(self, enter: Enter, store: ResultStore) -> None:
        with pytest.raises(Failure):
            async with enter("a", store) as root:
                root.stage(1)
                async with enter("b", store, commit_mode=EAGER) as child:
                    child.stage(2)
                assert stored(store, "b") == {"b": 2}
                raise Failure
        assert stored(store, "a", "b") == {"b": 2}

    async def test_a_childs_rollback_rolls_the_parents_back(self, enter: Enter, do: Call, store: ResultStore) -> None:
        async with enter("a", store) as root:
            root.stage(1)
            async with enter("b", store) as middle:
                middle.stage(1)
                async with enter("c", store) as sibling:
                    sibling.stage(3)
                async with enter("d", store) as child:
                    child.stage(2)
                    await do(child, "rollback")
                assert middle.is_rolled_back()
                assert sibling.is_rolled_back()
            assert root.is_rolled_back()
        assert stored(store, *"abcd") == {}

    async def test_a_block_that_goes_on_after_a_caught_failure_ends_in_an_error(
        self, enter: Enter, store: ResultStore
    ) -> None:
        failure = Failure()
        with pytest.raises(RolledBackError, match=r"transaction of 'a'.*Failure.*rollback\(\)") as told:
            async with enter("a", store) as root:
                root.stage(1)
                with pytest.raises(Failure):
                    async with enter("b", store):
                        raise failure
                assert root.is_rolled_back()
        assert (told.value.key, told.value.__cause__) == ("a", failure)
        assert stored(store, "a") == {}

    async def test_staging_after_a_caught_failure_says_why_it_cannot(self, enter: Enter, store: ResultStore) -> None:
        with pytest.raises(RolledBackError, match="without a key") as told:
            async with enter() as root:
                with suppress(Failure):
                    async with enter("b", store):
                        raise Failure
                root.stage(1)
        assert isinstance(told.value, MissingContextError)
        assert isinstance(told.value.__cause__, Failure)

    async def test_the_failure_of_a_grandchild_is_told_once_and_by_its_own_block(
        self, enter: Enter, store: ResultStore
    ) -> None:
        with pytest.raises(RolledBackError, match="of 'inner'"):
            async with enter("outer", store) as outer, enter("inner", store):
                with suppress(Failure):
                    async with enter("b", store):
                        raise Failure
        assert outer.is_rolled_back()

    async def test_an_error_that_leaves_the_block_goes_first(self, enter: Enter, store: ResultStore) -> None:
        with pytest.raises(ZeroDivisionError):
            async with enter("a", store):
                with suppress(Failure):
                    async with enter("b", store):
                        raise Failure
                raise ZeroDivisionError

    async def test_who_rolls_back_after_a_caught_failure_is_not_told_of_it(
        self, enter: Enter, do: Call, store: ResultStore
    ) -> None:
        async with enter("a", store) as root:
            with suppress(Failure):
                async with enter("b", store):
                    raise Failure
            assert await do(root, "rollback") is False
        assert root.is_rolled_back()

    async def test_siblings_of_a_caught_failure_are_not_lost_in_silence(
        self, enter: Enter, guarded: ResultStore
    ) -> None:
        guarded.write("there", key="a")
        with pytest.raises(RolledBackError):
            async with enter("a", guarded) as root:
                assert root.is_committed()
                async with enter("b", guarded) as sibling:
                    sibling.stage(1)
                with suppress(Failure):
                    async with enter("c", guarded):
                        raise Failure
        assert sibling.is_rolled_back()
        assert stored(guarded, *"abc") == {"a": "there"}

    async def test_who_comes_after_the_end_stores_alone(self, store: ResultStore) -> None:
        began, ended = asyncio.Event(), asyncio.Event()

        async def late() -> None:
            async with transaction("late", store) as txn:
                began.set()
                await ended.wait()
                txn.stage(1)

        async def later() -> None:
            await ended.wait()
            async with transaction("later", store) as txn:
                txn.stage(2)
            assert txn.get_parent() is root

        async with transaction("root", store) as root:
            members = [asyncio.create_task(late()), asyncio.create_task(later())]
            await began.wait()
            root.stage(0)
        ended.set()
        await asyncio.gather(*members)
        assert stored(store, "root", "late", "later") == {"root": 0, "late": 1, "later": 2}

    async def test_a_child_that_ends_after_its_parents_rollback(
        self, enter: Enter, do: Call, store: ResultStore
    ) -> None:
        async with enter("a", store) as root:
            async with enter("b", store) as child:
                child.stage(1)
                await do(root, "rollback")
            assert child.is_rolled_back()
        assert stored(store, "b") == {}

    async def test_children_of_what_is_committed_already(self, enter: Enter, guarded: ResultStore) -> None:
        guarded.write("there", key="a")
        async with enter("a", guarded, isolation_level=SERIALIZABLE) as root:
            assert root.is_committed()
            async with enter("b", guarded) as child:
                child.stage("b")
        assert child.is_committed()
        assert stored(guarded, "a", "b") == {"a": "there", "b": "b"}
        assert not guarded.is_locked("b")

    async def test_different_databases_do_not_commit_as_one(
        self, enter: Enter, store: ResultStore, fresh_url: URL
    ) -> None:
        elsewhere = ResultStore(result_storage=PostgresStorage(fresh_url))
        with pytest.raises(ConfigurationError, match="different databases"):
            async with enter("a", store) as root:
                root.stage(1)
                async with enter("b", elsewhere) as child:
                    child.stage(1)
        assert (stored(store, "a"), stored(elsewhere, "b")) == ({}, {})
        await elsewhere.result_storage.aclose()
