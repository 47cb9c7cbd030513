"""Transactions: what is staged is stored with the rest of its tree or not at all, and no lock outlives them."""

# ruff: noqa: PT012 (what fails is the end of a block)

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import URL, create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from pgresults.errors import (
    ConfigurationError,
    InvalidArgument,
    InvalidKey,
    LockedError,
    LockLostError,
    MissingContextError,
    MissingResult,
    PayloadTooLarge,
    SerializationError,
    StorageUnavailable,
)
from pgresults.locking import MemoryLockManager
from pgresults.settings import Settings
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from pgresults.transactions import (
    CommitMode,
    IsolationLevel,
    Transaction,
    TransactionState,
    atransaction,
    get_transaction,
    transaction,
)
from tests.support.calls import Call
from tests.support.database import psycopg_url
from tests.support.proxy import Proxy

EAGER, LAZY, OFF = CommitMode
READ_COMMITTED, SERIALIZABLE = IsolationLevel
UNPICKLABLE = threading.Lock()


class Failure(Exception):  # noqa: N818 (not an error of the program)
    """What goes wrong in a test."""


Enter = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def enter(request: pytest.FixtureRequest) -> Enter:
    """Enters a transaction in either way; its methods are called in the same way with `do`."""

    @asynccontextmanager
    async def enter(*arguments: Any, **options: Any) -> Any:
        if request.param == "sync":
            with transaction(*arguments, **options) as txn:
                yield txn
        else:
            async with transaction(*arguments, **options) as txn:
                yield txn

    return enter


@pytest.fixture
def do(enter: Enter, request: pytest.FixtureRequest) -> Call:
    """Calls a method in the way of `enter`."""
    kind = request.node.callspec.params["enter"]

    async def do(target: Any, name: str, *arguments: Any) -> Any:
        if kind == "sync":
            return getattr(target, name)(*arguments)
        return await getattr(target, f"a{name}")(*arguments)

    return do


@pytest.fixture
def guarded(storage: PostgresStorage) -> ResultStore:
    return ResultStore(result_storage=storage, lock_manager=storage.lock_manager())


@pytest.fixture(autouse=True)
async def _closed(storage: PostgresStorage) -> Any:
    yield
    await storage.aclose()


def stored(store: ResultStore, *keys: str) -> dict[str, Any]:
    """The results that are there."""
    return {key: store.read(key).result for key in keys if store.exists(key)}


def held(connection: psycopg.Connection[Any], store: ResultStore) -> list[str]:
    """The keys whose locks are not released."""
    query = "SELECT key FROM pgresults.lock WHERE storage_id = %s AND NOT released ORDER BY key"
    return [key for (key,) in connection.execute(query, [store.result_storage.id])]


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

    async def test_a_record_keeps_its_metadata(self, enter: Enter, store: ResultStore) -> None:
        record = store.create_result_record("x", key="elsewhere")
        async with enter("k", store) as txn:
            txn.stage(record)
        assert store.read("k").result == "x"
        assert not store.exists("elsewhere")

    async def test_an_exception_stores_nothing(self, enter: Enter, store: ResultStore) -> None:
        with pytest.raises(Failure):
            async with enter("k", store) as txn:
                txn.stage(1)
                raise Failure
        assert txn.is_rolled_back()
        assert stored(store, "k") == {}

    async def test_nothing_staged_is_nothing_stored(self, enter: Enter, store: ResultStore) -> None:
        async with enter("k", store) as txn:
            pass
        assert txn.is_committed()
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

    async def test_without_a_key_there_is_nothing_to_read(self, enter: Enter, do: Call) -> None:
        async with enter() as txn:
            txn.stage(1)
            with pytest.raises(ConfigurationError):
                await do(txn, "read")
        assert txn.is_committed()

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
        with pytest.raises(ConfigurationError, match="async with"), transaction("c", store) as txn:
            txn.stage(1, on_commit_hooks=[hook])
        assert txn.is_rolled_back()


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

    async def test_an_exception_that_was_caught_rolls_back_all_the_same(self, enter: Enter, store: ResultStore) -> None:
        async with enter("a", store) as root:
            root.stage(1)
            with pytest.raises(Failure):
                async with enter("b", store):
                    raise Failure
        assert root.is_rolled_back()
        assert stored(store, "a") == {}

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


class TestFailures:
    async def test_an_object_without_bytes_is_logged_and_rolls_back(
        self, enter: Enter, store: ResultStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        undone = []
        async with enter("a", store) as root:
            root.stage(1)
            async with enter("b", store) as child:
                child.stage(UNPICKLABLE, on_rollback_hooks=[undone.append])
        assert root.is_rolled_back()
        assert child.is_rolled_back()
        assert undone == [child]
        assert stored(store, "a", "b") == {}
        [record] = [record for record in caplog.records if record.name == "pgresults.transactions"]
        assert record.levelno == logging.WARNING
        assert "'a' is rolled back" in record.getMessage()

    async def test_it_logs_where_it_is_told(self, enter: Enter, store: ResultStore, caplog: Any) -> None:
        async with enter("a", store, logger=logging.getLogger("mine")) as txn:
            txn.stage(UNPICKLABLE)
        assert [record.name for record in caplog.records] == ["mine"]

    async def test_a_payload_beyond_the_limit(self, enter: Enter, shared_url: URL) -> None:
        storage = PostgresStorage(shared_url, f"test-{uuid4().hex}", settings=Settings(max_payload_bytes=1000))
        store, undone = ResultStore(result_storage=storage), []
        with pytest.raises(PayloadTooLarge):
            async with enter("a", store) as root:
                root.stage(1, on_rollback_hooks=[undone.append])
                async with enter("b", store) as child:
                    child.stage(bytes(2000), on_rollback_hooks=[undone.append])
        assert undone == [root, child]
        assert stored(store, "a", "b") == {}
        await storage.aclose()

    async def test_a_write_that_the_server_refuses_stores_nothing(
        self, enter: Enter, store: ResultStore, connection: Any
    ) -> None:
        name = f"refuse_{uuid4().hex}"
        storage_id = store.result_storage.id
        store.write(0, key="seen")
        connection.execute(
            f"CREATE FUNCTION pgresults.{name}() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$BEGIN IF new.storage_id = '{storage_id}' AND new.key = 'b' THEN RAISE 'no'; END IF; RETURN new; END$$;"
            f"CREATE TRIGGER {name} BEFORE INSERT ON pgresults.history FOR EACH ROW EXECUTE FUNCTION pgresults.{name}()"
        )
        try:
            with pytest.raises(StorageUnavailable, match="no"):
                async with enter() as root:
                    for key in "abc":
                        async with enter(key, store) as child:
                            child.stage(key, on_rollback_hooks=[lambda txn: txn.get_parent().set("undone", True)])
        finally:
            connection.execute(f"DROP TRIGGER {name} ON pgresults.history; DROP FUNCTION pgresults.{name}()")
        assert root.get("undone") is True
        assert root.is_rolled_back()
        assert stored(store, *"abc") == {}
        left = "SELECT count(*) FROM pgresults.payload WHERE storage_id = %s AND key <> 'seen'"
        assert connection.execute(left, [storage_id]).fetchone() == (0,)

    async def test_a_commit_whose_answer_is_lost_is_looked_for(self, enter: Enter, shared_url: URL) -> None:
        with Proxy(shared_url) as proxy:
            storage = PostgresStorage(proxy.url, f"test-{uuid4().hex}")
            store = ResultStore(result_storage=storage)
            store.write(0, key="warm")
            undone: list[Any] = []
            async with enter() as root:
                for key in "ab":
                    async with enter(key, store) as child:
                        child.stage(key, on_rollback_hooks=[undone.append])
                proxy.lose(b"COMMIT")
            assert proxy.losses == 0
            assert root.is_committed()
            assert undone == []
            assert [store.read(key).metadata.version for key in "ab"] == [1, 1]
            await storage.aclose()

    async def test_a_commit_that_stays_unknown_says_so(self, enter: Enter, shared_url: URL) -> None:
        with Proxy(shared_url) as proxy:
            storage = PostgresStorage(proxy.url, f"test-{uuid4().hex}", settings=Settings(connect_timeout=1))
            store = ResultStore(result_storage=storage)
            store.write(0, key="warm")
            with pytest.raises(StorageUnavailable) as caught:
                async with enter("a", store) as txn:
                    txn.stage(1)
                    proxy.lose(b"", times=100)
            assert caught.value.outcome_unknown
            await storage.aclose()


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


class TestLocks:
    def test_serializable_needs_a_manager(self, store: ResultStore) -> None:
        with pytest.raises(ConfigurationError, match="lock manager"):
            transaction("k", store, isolation_level=SERIALIZABLE)
        with transaction(isolation_level=SERIALIZABLE):
            with pytest.raises(ConfigurationError, match="lock manager"), transaction("k", store):
                pass
            assert get_transaction().key is None

    async def test_the_key_is_locked_from_begin_to_end(
        self, enter: Enter, guarded: ResultStore, connection: Any
    ) -> None:
        async with enter("k", guarded, isolation_level=SERIALIZABLE) as txn:
            assert held(connection, guarded) == ["k"]
            assert guarded.is_lock_holder("k")
            assert not guarded.is_lock_holder("k", holder="another")
            txn.stage(1)
        assert held(connection, guarded) == []
        row = connection.execute(
            "SELECT holder, fence > 0 FROM pgresults.history WHERE storage_id = %s", [guarded.result_storage.id]
        ).fetchone()
        assert row == (txn.holder, True)

    async def test_read_committed_locks_nothing(self, enter: Enter, guarded: ResultStore, connection: Any) -> None:
        async with enter("k", guarded):
            assert held(connection, guarded) == []

    @pytest.mark.parametrize("way", ["exception", "rollback", "off", "unserializable", "begin", "hook"])
    async def test_locks_are_released_on_every_way_out(
        self, enter: Enter, do: Call, guarded: ResultStore, connection: Any, way: str, monkeypatch: Any
    ) -> None:
        def fail(*_: Any) -> None:
            raise Failure

        mode = OFF if way == "off" else None
        try:
            async with enter("a", guarded, isolation_level=SERIALIZABLE, commit_mode=mode) as root:
                if way == "begin":
                    monkeypatch.setattr(PostgresStorage, "has", fail)
                async with enter("b", guarded) as child:
                    child.stage(UNPICKLABLE if way == "unserializable" else 1)
                if way == "exception":
                    raise Failure
                if way == "rollback":
                    await do(root, "rollback")
                root_hooks = [fail] if way == "hook" else []
                root.stage(1, on_commit_hooks=root_hooks) if not root.is_rolled_back() else None
        except Failure:
            assert way in ("exception", "begin", "hook")
        monkeypatch.undo()
        assert root.is_rolled_back()
        assert held(connection, guarded) == []
        assert stored(guarded, "a", "b") == {}

    async def test_they_are_released_at_every_step_of_a_cancellation(
        self, guarded: ResultStore, connection: Any
    ) -> None:
        async def work(key: str) -> None:
            async with (
                transaction(f"{key}/a", guarded, isolation_level=SERIALIZABLE) as root,
                transaction(f"{key}/b", guarded) as child,
            ):
                child.stage(1)
                root.stage(2)

        await work("warm")
        cancelled, tried = 0, 0
        while cancelled <= 10:  # a server that answers at once leaves few steps to be cancelled at: then once more
            for steps in range(0, 120, 2):
                tried += 1
                task = asyncio.create_task(work(str(tried)))
                for _ in range(steps):
                    await asyncio.sleep(0)
                task.cancel()
                outcome = (await asyncio.gather(task, return_exceptions=True))[0]
                cancelled += isinstance(outcome, asyncio.CancelledError)
                assert held(connection, guarded) == []
                assert len([key for key in "ab" if await guarded.aexists(f"{tried}/{key}")]) in (0, 2)

    async def test_a_tree_shares_a_lock(self, enter: Enter, guarded: ResultStore, connection: Any) -> None:
        async with enter("k", guarded, isolation_level=SERIALIZABLE) as root:
            async with enter("k", guarded, commit_mode=EAGER) as child:
                child.stage(1)
            assert held(connection, guarded) == ["k"]
            root.stage(2)
        assert held(connection, guarded) == []
        assert guarded.read("k").metadata.version == 2

    async def test_siblings_share_a_lock(self, enter: Enter, guarded: ResultStore, connection: Any) -> None:
        async with enter(isolation_level=SERIALIZABLE):
            async with enter("k", guarded) as first:
                first.stage(1)
            async with enter("k", guarded, commit_mode=EAGER) as second:
                second.stage(2)
            assert held(connection, guarded) == ["k"]
        assert held(connection, guarded) == []

    async def test_tasks_of_a_tree_share_a_lock(self, guarded: ResultStore, connection: Any) -> None:
        inside, leave = asyncio.Event(), asyncio.Event()

        async def stay() -> None:
            async with transaction("k", guarded, commit_mode=EAGER) as txn:
                inside.set()
                await leave.wait()
                txn.stage("stayed")

        async with transaction(isolation_level=SERIALIZABLE):
            staying = asyncio.create_task(stay())
            await inside.wait()
            async with transaction("k", guarded, commit_mode=EAGER, overwrite=True):
                pass
            assert held(connection, guarded) == ["k"]
            leave.set()
            await staying
        assert held(connection, guarded) == []

    async def test_the_holder_is_valid_in_threads_and_tasks(self, guarded: ResultStore) -> None:
        async with transaction("k", guarded, isolation_level=SERIALIZABLE) as txn:
            assert await asyncio.to_thread(guarded.is_lock_holder, "k")
            assert await asyncio.create_task(guarded.ais_lock_holder("k"))
            await asyncio.to_thread(guarded.write, "from a thread", "k")
            await asyncio.create_task(guarded.awrite("from a task", "k"))
            with ThreadPoolExecutor(1) as pool, pytest.raises(LockedError):
                pool.submit(guarded.write, "from outside", "k").result()
            txn.stage("from the transaction")
        assert guarded.read("k").metadata.version == 3

    @pytest.mark.timeout(30)
    async def test_one_runs_and_the_others_find_its_result(self, guarded: ResultStore) -> None:
        runs = []

        async def work(number: int) -> Any:
            async with transaction("k", guarded, isolation_level=SERIALIZABLE) as txn:
                if txn.is_committed():
                    return (await txn.aread()).result
                runs.append(number)
                txn.stage(number)
                return number

        assert len(set(await asyncio.gather(*map(work, range(10))))) == len(runs) == 1

    async def test_locks_in_memory(self, enter: Enter, storage: PostgresStorage) -> None:
        store = ResultStore(result_storage=storage, lock_manager=MemoryLockManager())
        async with enter("k", store, isolation_level=SERIALIZABLE) as txn:
            assert store.is_locked("k")
            txn.stage(1)
        assert not store.is_locked("k")
        assert stored(store, "k") == {"k": 1}


# Connections of the caller's


class Callers:
    """A caller's table and connection of some kind."""

    def __init__(self, url: URL, kind: str) -> None:
        self.url, self.kind = url, kind
        self.table = f"business_{uuid4().hex}"
        with psycopg.connect(psycopg_url(url), autocommit=True) as connection:
            connection.execute(f"CREATE TABLE {self.table} (n int)")

    @property
    def insert(self) -> str:
        return f"INSERT INTO {self.table} VALUES (1)"

    @asynccontextmanager
    async def connected(self) -> Any:
        """The connection, and how to execute, commit and roll back on it."""
        match self.kind:
            case "psycopg":
                with psycopg.connect(psycopg_url(self.url)) as connection:
                    yield connection
            case "psycopg async":
                async with await psycopg.AsyncConnection.connect(psycopg_url(self.url)) as connection:
                    yield connection
            case "Connection":
                engine = create_engine(self.url.set(drivername="postgresql+psycopg"))
                with engine.connect() as connection:
                    yield connection
                engine.dispose()
            case "Session":
                engine = create_engine(self.url.set(drivername="postgresql+psycopg"))
                with Session(engine) as session:
                    yield session
                engine.dispose()
            case "AsyncConnection":
                engine = create_async_engine(self.url.set(drivername="postgresql+psycopg"))
                async with engine.connect() as connection:
                    yield connection
                await engine.dispose()
            case "AsyncSession":
                engine = create_async_engine(self.url.set(drivername="postgresql+psycopg"))
                async with AsyncSession(engine) as session:
                    yield session
                await engine.dispose()

    async def execute(self, connection: Any, query: str) -> None:
        await self._maybe(connection.execute(query if self.kind.startswith("psycopg") else text(query)))

    async def end(self, connection: Any, how: str) -> None:
        await self._maybe(getattr(connection, how)())

    async def _maybe(self, outcome: Any) -> None:
        if hasattr(outcome, "__await__"):
            await outcome

    @asynccontextmanager
    async def enter(self, *arguments: Any, **options: Any) -> Any:
        if "sync" in self.kind.lower():
            async with transaction(*arguments, **options) as txn:
                yield txn
        else:
            with transaction(*arguments, **options) as txn:
                yield txn

    def rows(self) -> int:
        with psycopg.connect(psycopg_url(self.url)) as connection:
            return connection.execute(f"SELECT count(*) FROM {self.table}").fetchone()[0]


KINDS = ["psycopg", "psycopg async", "Connection", "Session", "AsyncConnection", "AsyncSession"]


@pytest.fixture(params=KINDS)
def caller(request: pytest.FixtureRequest, shared_url: URL) -> Callers:
    return Callers(shared_url, request.param)


class TestCallers:
    @pytest.mark.parametrize("ending", ["commit", "rollback"])
    @pytest.mark.parametrize("before", [True, False], ids=["begun", "idle"])
    async def test_results_go_with_the_callers_rows(
        self, caller: Callers, guarded: ResultStore, ending: str, before: bool
    ) -> None:
        async with caller.connected() as connection:
            if before:
                await caller.execute(connection, caller.insert)
            async with caller.enter("a", guarded, isolation_level=SERIALIZABLE, connection=connection) as root:
                root.stage(1)
                async with caller.enter("b") as child:
                    child.stage(2)
                assert child.connection is connection
            if not before:
                await caller.execute(connection, caller.insert)
            assert root.is_committed()
            assert not guarded.exists("a")
            await caller.end(connection, ending)
        there = ending == "commit"
        assert caller.rows() == there
        assert stored(guarded, "a", "b") == ({"a": 1, "b": 2} if there else {})
        assert not guarded.is_locked("a")
        assert guarded.acquire_lock("a", "next", timeout=5)

    async def test_a_failure_leaves_the_callers_rows_alone(self, caller: Callers, guarded: ResultStore) -> None:
        async with caller.connected() as connection:
            await caller.execute(connection, caller.insert)
            with pytest.raises(LockLostError):
                async with caller.enter("a", guarded, isolation_level=SERIALIZABLE, connection=connection) as root:
                    grant = guarded.lock_manager._grant("a", root.holder)
                    with psycopg.connect(psycopg_url(caller.url), autocommit=True) as taker:
                        taker.execute("UPDATE pgresults.lock SET token = %s WHERE token = %s", [uuid4(), grant.token])
                    async with caller.enter("0", guarded, isolation_level=READ_COMMITTED) as child:
                        child.stage(2)  # its key comes first: it is written when the other is refused
                    root.stage(1)
            await caller.execute(connection, caller.insert)
            await caller.end(connection, "commit")
        assert caller.rows() == 2
        assert stored(guarded, "0", "a") == {}

    async def test_an_exception_leaves_them_alone_too(self, caller: Callers, store: ResultStore) -> None:
        async with caller.connected() as connection:
            await caller.execute(connection, caller.insert)
            with pytest.raises(Failure):
                async with caller.enter("a", store, connection=connection) as txn:
                    txn.stage(1)
                    raise Failure
            await caller.end(connection, "commit")
        assert (caller.rows(), stored(store, "a")) == (1, {})

    @pytest.mark.timeout(30)
    async def test_who_wants_the_lock_waits_for_the_callers_end(self, caller: Callers, guarded: ResultStore) -> None:
        locks = guarded.lock_manager
        async with caller.connected() as connection:
            async with caller.enter("a", guarded, isolation_level=SERIALIZABLE, connection=connection) as txn:
                txn.stage(1)
            assert await locks.aacquire_lock("a", "impatient", 0) is False
            waiting = asyncio.create_task(asyncio.to_thread(locks.acquire_lock, "a", "next"))
            assert await asyncio.to_thread(locks.acquire_lock, "other", "caller", 10) is True
            assert await locks.aacquire_lock("another", "caller", 10) is True
            await caller.end(connection, "commit")
        assert await waiting is True

    @pytest.mark.parametrize("kind", ["psycopg", "psycopg async"])
    async def test_in_autocommit_it_is_a_transaction_of_its_own(
        self, store: ResultStore, shared_url: URL, kind: str
    ) -> None:
        caller = Callers(shared_url, kind)
        async with caller.connected() as connection:
            await caller._maybe(connection.set_autocommit(True))
            async with caller.enter("a", store, connection=connection) as root:
                root.stage(1)
            assert stored(store, "a") == {"a": 1}
            assert connection.pgconn.transaction_status == psycopg.pq.TransactionStatus.IDLE

    @pytest.mark.parametrize("wrong", [object(), "postgresql://", 1, threading])
    def test_what_is_no_connection_is_refused(self, store: ResultStore, wrong: Any) -> None:
        with pytest.raises(ConfigurationError, match="SQLAlchemy Connection"):
            transaction("k", store, connection=wrong)

    async def test_the_other_kind_is_refused(self, caller: Callers, guarded: ResultStore, connection: Any) -> None:
        async with caller.connected() as theirs:
            with pytest.raises(ConfigurationError, match=r"async|sync"):
                if "sync" in caller.kind.lower():
                    with transaction("a", guarded, isolation_level=SERIALIZABLE, connection=theirs) as txn:
                        txn.stage(1)
                else:
                    async with transaction("a", guarded, isolation_level=SERIALIZABLE, connection=theirs) as txn:
                        txn.stage(1)
        assert stored(guarded, "a") == {}
        assert held(connection, guarded) == []


# What peers get wrong


class TestPeersMistakes:
    async def test_1_a_childs_failed_write_leaves_neither_the_parent_nor_siblings(
        self, enter: Enter, guarded: ResultStore
    ) -> None:
        guarded.acquire_lock("b", "somebody")
        async with enter("root", guarded) as root:
            root.stage(0)
            async with enter("a", guarded) as sibling:
                sibling.stage(1)
            with pytest.raises(LockedError):
                async with enter("b", guarded, commit_mode=EAGER) as child:
                    child.stage(2)
        assert root.is_rolled_back()
        assert sibling.is_rolled_back()
        assert stored(guarded, "root", "a", "b") == {}

    async def test_2_an_outage_is_not_an_absence(self, enter: Enter, shared_url: URL) -> None:
        with Proxy(shared_url) as proxy:
            storage = PostgresStorage(proxy.url, settings=Settings(connect_timeout=1))
            proxy.refuse()
            with pytest.raises(StorageUnavailable):
                async with enter("k", ResultStore(result_storage=storage)):
                    pytest.fail("it must not begin")
        assert get_transaction() is None

    async def test_3_a_refused_lock_is_not_ignored(self, enter: Enter, storage: PostgresStorage) -> None:
        class Refusing(MemoryLockManager):
            def acquire_lock(self, *_: Any) -> bool:
                return False

            async def aacquire_lock(self, *_: Any) -> bool:
                return False

        store = ResultStore(result_storage=storage, lock_manager=Refusing())
        with pytest.raises(LockedError):
            async with enter("k", store, isolation_level=SERIALIZABLE):
                pytest.fail("it must not begin")
        assert stored(store, "k") == {}

    async def test_5_an_emptied_lock_table_stops_nobody(
        self, enter: Enter, guarded: ResultStore, connection: Any
    ) -> None:
        guarded.acquire_lock("k", "before")
        connection.execute("DELETE FROM pgresults.lock WHERE storage_id = %s", [guarded.result_storage.id])
        async with enter("k", guarded, isolation_level=SERIALIZABLE) as txn:
            txn.stage(1)
        assert stored(guarded, "k") == {"k": 1}

    @pytest.mark.timeout(20)
    async def test_6_no_time_to_wait_is_no_wait(self, call: Call, guarded: ResultStore) -> None:
        guarded.acquire_lock("k", "somebody")
        assert await call(guarded, "wait_for_lock", "k", timeout=0) is False

    async def test_7_no_payload_is_left_of_a_failed_write(
        self, enter: Enter, guarded: ResultStore, connection: Any
    ) -> None:
        with pytest.raises(LockLostError):
            async with enter("k", guarded, isolation_level=SERIALIZABLE) as txn:
                txn.stage(bytes(3_000_000))
                connection.execute("DELETE FROM pgresults.lock WHERE storage_id = %s", [guarded.result_storage.id])
        query = "SELECT count(*) FROM pgresults.payload WHERE storage_id = %s"
        assert connection.execute(query, [guarded.result_storage.id]).fetchone() == (0,)

    async def test_10_a_holder_that_lost_its_lock_does_not_write(
        self, enter: Enter, guarded: ResultStore, another_process: ResultStore, connection: Any
    ) -> None:
        with pytest.raises(LockLostError) as caught:
            async with enter("k", guarded, isolation_level=SERIALIZABLE) as txn:
                txn.stage("stale")
                fence = guarded.lock_manager._grant("k", txn.holder).fence
                query = """SELECT pg_terminate_backend(pid, 10000) FROM pg_locks WHERE locktype = 'advisory'
                    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""
                beacon = guarded.lock_manager._grant("k", txn.holder).beacon
                connection.execute(f"{query} AND objid = %s", [beacon & 0xFFFFFFFF])
                assert another_process.acquire_lock("k", "next", timeout=10)
                another_process.write("new", key="k", holder="next")
                another_process.release_lock("k", "next")
        assert (caught.value.key, caught.value.fence, caught.value.holder) == ("k", fence, txn.holder)
        assert stored(guarded, "k") == {"k": "new"}

    @pytest.fixture
    def another_process(self, storage: PostgresStorage) -> Iterator[ResultStore]:
        other = PostgresStorage(storage.database.url(), storage.name)
        yield ResultStore(result_storage=other, lock_manager=other.lock_manager())
        other.close()


def test_serialization_errors_name_what_failed(store: ResultStore) -> None:
    with pytest.raises(SerializationError), transaction("k", store) as txn:
        txn.stage(1)
        raise SerializationError("the block's own")
    assert txn.is_rolled_back()
