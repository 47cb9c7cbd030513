"""Prefect's transactions on Postgres: a tree commits as one, and whoever lost a lock writes nothing."""

from pathlib import Path
from typing import Any

import pytest

from pgresults.store import ResultStore
from tests.support.prefect_fixtures import MARKS, SQL, require_prefect

prefect: Any = require_prefect()
from prefect import flow, task  # noqa: E402
from prefect.cache_policies import INPUTS, TASK_SOURCE  # noqa: E402
from prefect.filesystems import LocalFileSystem  # noqa: E402
from prefect.results import ResultRecord as TheirRecord  # noqa: E402
from prefect.results import ResultStore as TheirStore  # noqa: E402
from prefect.transactions import CommitMode, IsolationLevel, Transaction, transaction  # noqa: E402

from pgresults.integrations.prefect import PostgresResultStorage  # noqa: E402
from tests.support.listing import page  # noqa: E402

pytestmark = MARKS
SERIALIZABLE = IsolationLevel.SERIALIZABLE
ENTRIES = "SELECT count(*), count(DISTINCT xid::text) FROM history WHERE storage_id = %(storage)s"
"""How many entries, in how many database transactions."""


class Unpicklable:
    def __reduce__(self) -> Any:
        raise TypeError("cannot pickle it")


@pytest.fixture
def store(block: PostgresResultStorage) -> TheirStore:
    return TheirStore(result_storage=block, lock_manager=block.lock_manager())


def staging(store: TheirStore, key: str, value: Any, undone: list[str], **options: Any) -> Transaction:
    """A transaction that has staged a value and ended; its rollback will be noted."""
    with transaction(key=key, store=store, **options) as one:
        one.stage(value, on_rollback_hooks=[lambda _: undone.append(key)])
    return one


def test_a_tree_is_stored_in_one_database_transaction(store: TheirStore, sql: SQL, ours: ResultStore) -> None:
    with transaction(key="root", store=store) as root:
        staging(store, "a", 1, [])
        with transaction(key="b", store=store) as middle:
            staging(store, "c", 3, [])
            middle.stage(2)
        assert not ours.exists("a")
        root.stage(0)
    assert sql(ENTRIES) == [(4, 1)]
    assert {key: ours.read(key).result for key in ("root", "a", "b", "c")} == {"root": 0, "a": 1, "b": 2, "c": 3}


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_root_that_writes_nothing_here_stores_what_is_below_it(
    store: TheirStore, sql: SQL, tmp_path: Path, elsewhere: bool
) -> None:
    files = TheirStore(result_storage=LocalFileSystem(basepath=str(tmp_path)))
    with transaction(**({"key": "root", "store": files} if elsewhere else {})) as root:
        staging(store, "a", 1, [])
        staging(store, "b", 2, [])
        root.stage(0)
    assert root.is_committed()
    assert sql(ENTRIES) == [(2, 1)]


def test_members_with_the_same_key_are_versions_of_it(store: TheirStore, sql: SQL, ours: ResultStore) -> None:
    with transaction(key="k", store=store) as root:
        staging(store, "k", "nested", [])
        root.stage("root")
    assert sql(ENTRIES) == [(2, 1)]
    assert [ours.read("k", version=version).result for version in (1, 2)] == ["nested", "root"]


def test_a_nested_eager_transaction_does_not_wait(store: TheirStore, sql: SQL, ours: ResultStore) -> None:
    with transaction(key="root", store=store) as root:
        staging(store, "a", 1, [], commit_mode=CommitMode.EAGER)
        assert ours.read("a").result == 1
        store.write("at once", key="beside")
        assert ours.read("beside").result == "at once"
        root.stage(0)
    assert sql(ENTRIES) == [(3, 3)]


def test_what_cannot_be_serialized_has_the_whole_tree_rolled_back(store: TheirStore, ours: ResultStore) -> None:
    undone: list[str] = []
    with transaction() as root:
        for key, value in {"a": 1, "b": Unpicklable(), "c": 3}.items():
            staging(store, key, value, undone)
    assert root.is_rolled_back()
    assert sorted(undone) == ["a", "b", "c"]
    assert page(ours.result_storage) == []


def test_a_root_that_cannot_be_serialized_takes_what_is_below_it_along(store: TheirStore, ours: ResultStore) -> None:
    undone: list[str] = []
    with transaction(key="root", store=store) as root:
        staging(store, "a", 1, undone, isolation_level=SERIALIZABLE)
        root.stage(Unpicklable())
    assert root.is_rolled_back()
    assert undone == ["a"]
    assert page(ours.result_storage) == []
    assert not store.is_locked("a")


def test_a_hook_reads_what_waits_and_its_failure_undoes_it(store: TheirStore, ours: ResultStore) -> None:
    undone: list[str] = []
    read: list[Any] = []

    def fail(_: Transaction) -> None:
        read.append(TheirStore(result_storage=store.result_storage).read("a").result)
        raise ValueError("a hook failed")

    with transaction(key="root", store=store) as root:
        staging(store, "a", 1, undone)
        root.stage(0, on_commit_hooks=[fail])
    assert read == [1]
    assert undone == ["a"]
    assert page(ours.result_storage) == []


def test_the_locks_of_a_tree_are_kept_until_it_is_stored(store: TheirStore, ours: ResultStore) -> None:
    held: list[bool] = []
    with transaction(key="root", store=store) as root:
        staging(store, "a", 1, [], isolation_level=SERIALIZABLE)
        root.stage(0, on_commit_hooks=[lambda _: held.append(store.is_locked("a"))])
    assert held == [True]
    assert not store.is_locked("a")
    assert ours.history("a")[0].fence is not None


def test_a_lost_lock_has_the_whole_tree_refused(store: TheirStore, ours: ResultStore, block: Any) -> None:
    undone: list[str] = []
    with transaction() as root:
        staging(store, "a", 1, undone)
        staging(store, "b", 2, undone, isolation_level=SERIALIZABLE)
        staging(store, "c", 3, undone, isolation_level=SERIALIZABLE)
        block.lock_manager().break_lock("b", "a test")
    assert root.is_rolled_back()
    assert undone == ["c", "b", "a"]
    assert page(ours.result_storage) == []
    assert not store.is_locked("c")


def test_who_lost_the_lock_overwrites_nothing(store: TheirStore, ours: ResultStore, block: Any) -> None:
    late = Transaction(key="k", store=store, isolation_level=SERIALIZABLE)
    late.__enter__()
    block.lock_manager().break_lock("k", "a test")
    ours.write("by the next holder", key="k")
    late.stage("late")
    with pytest.raises(ValueError, match="does not hold"):  # Prefect gives back what it does not have any more
        late.__exit__(None, None, None)
    late.reset()
    assert [entry.action for entry in ours.history("k")] == ["break", "write"]
    assert ours.read("k").result == "by the next holder"


def test_a_key_storage_and_its_payload_are_stored_together(block: PostgresResultStorage, sql: SQL) -> None:
    keys = PostgresResultStorage(url=block.url, name=f"{block.name}-keys")
    keys.save(keys.name)
    locked = INPUTS.configure(key_storage=keys, lock_manager=keys.lock_manager(), isolation_level=SERIALIZABLE)

    @task(cache_policy=locked, result_storage=block)
    def double(number: int) -> int:
        return 2 * number

    @flow
    def doubling() -> int:
        return double(4)

    assert doubling() == doubling() == 8
    [(stored,)] = sql("SELECT xid::text FROM history WHERE storage_id = %(storage)s")
    [(pointed,)] = sql(f"SELECT xid::text FROM history WHERE storage_id = '{keys.storage.id}' AND fence IS NOT NULL")
    assert stored == pointed


def test_the_tasks_of_a_flows_transaction_are_stored_together_with_their_runs(
    block: PostgresResultStorage, sql: SQL
) -> None:
    @task(cache_policy=INPUTS)
    def double(number: int) -> int:
        return 2 * number

    @flow(result_storage=block, persist_result=True)
    def doubling() -> list[int]:
        with transaction():
            return [double(1), *double.map([2, 3]).result(), double.submit(4).result()]

    assert doubling() == [2, 4, 6, 8]
    tasks = " AND provenance ? 'task'"
    assert sql(ENTRIES + tasks) == [(4, 1)]
    described = sql(
        "SELECT DISTINCT provenance #>> '{flow,name}', provenance #>> '{task,name}' FROM history"
        " WHERE storage_id = %(storage)s" + tasks
    )
    assert described == [("doubling", "double")]


def test_a_task_is_stored_together_with_those_it_calls(block: PostgresResultStorage, sql: SQL) -> None:
    @task(cache_policy=INPUTS + TASK_SOURCE, result_storage=block)
    def inner(number: int) -> int:
        return number + 1

    @task(cache_policy=INPUTS + TASK_SOURCE, result_storage=block)
    def outer(number: int) -> int:
        return inner(number) * 2

    @flow
    def nested() -> int:
        return outer(1)

    assert nested() == nested() == 4
    assert sql(ENTRIES) == [(2, 1)]
    named = "SELECT provenance #>> '{task,name}' FROM history WHERE storage_id = %(storage)s ORDER BY 1"
    assert sql(named) == [("inner",), ("outer",)]


def test_a_rollback_stores_nothing(block: PostgresResultStorage, ours: ResultStore) -> None:
    undone = []

    @task(cache_key_fn=lambda *_: "first", result_storage=block)
    def first() -> int:
        return 1

    @first.on_rollback
    def undo(_: Any) -> None:
        undone.append(1)

    @task
    def second() -> None:
        raise ValueError("broken")

    @flow
    def both() -> None:
        with transaction():
            first()
            second()

    with pytest.raises(ValueError, match="broken"):
        both()
    assert undone == [1]
    assert not ours.exists("first")


def test_prefects_transaction_with_our_storage_and_locks(store: TheirStore, block: PostgresResultStorage) -> None:
    with transaction(key="key", store=store, isolation_level=SERIALIZABLE) as first:
        assert block.storage.lock_manager().is_locked("key")
        first.stage("value")
    with transaction(key="key", store=store, isolation_level=SERIALIZABLE) as again:
        assert again.is_committed()
        record = again.read()
        assert isinstance(record, TheirRecord)
        assert record.result == "value"
    assert not block.lock_manager().is_locked("key")


def test_our_store_is_no_store_of_prefects(ours: ResultStore) -> None:
    with pytest.raises(ValueError, match="ResultStore"), transaction(key="key", store=ours):
        pass


@pytest.mark.skipif(not hasattr(prefect.transactions, "atransaction"), reason="this Prefect has no async transactions")
async def test_async_transactions_are_stored_together(store: TheirStore, sql: SQL) -> None:
    atransaction = prefect.transactions.atransaction
    async with atransaction(key="root", store=store, isolation_level=SERIALIZABLE) as root:
        async with atransaction(key="a", store=store, isolation_level=SERIALIZABLE) as nested:
            nested.stage(1)
        root.stage(0)
    assert sql(ENTRIES) == [(2, 1)]
    assert not store.is_locked("a")
    async with atransaction() as root, atransaction(key="b", store=store) as nested:
        nested.stage(1)
    assert sql(ENTRIES) == [(3, 2)]
