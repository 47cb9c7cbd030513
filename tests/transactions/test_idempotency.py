"""A transaction that ends well is done: whoever asks again under its key finds a result, staged or not."""

import pytest

from pgresults import ResultStore, task, transaction
from pgresults.storage import PostgresStorage
from tests.support.calls import Call
from tests.support.transactions import EAGER, OFF, SERIALIZABLE, Enter, Failure, stored


async def test_work_is_done_once_without_staging(enter: Enter, do: Call, store: ResultStore) -> None:
    done: list[bool] = []
    for _ in range(2):
        async with enter(key="k", store=store) as txn:
            if not txn.is_committed():
                done.append(True)
    assert done == [True]
    assert txn.is_committed()
    record = await do(txn, "read")
    assert (record.result, record.metadata.version) == (None, 1)


async def test_whoever_stages_nothing_stores_none_in_every_mode(enter: Enter, do: Call, guarded: ResultStore) -> None:
    async with enter(key="root", store=guarded):
        async with enter(key="lazy"):
            pass
        async with enter(key="eager", commit_mode=EAGER):
            pass
        assert stored(guarded, "lazy", "eager") == {"eager": None}
    async with enter(key="said", store=guarded, commit_mode=OFF) as said:
        assert await do(said, "commit")
    async with enter(key="locked", store=guarded, isolation_level=SERIALIZABLE):
        pass
    assert stored(guarded, "root", "lazy", "said", "locked") == dict.fromkeys(("root", "lazy", "said", "locked"))
    assert not guarded.is_locked("locked")


async def test_what_is_not_to_be_stored_is_not(enter: Enter, do: Call, store: ResultStore) -> None:
    async with enter(key="not written", store=store, write_on_commit=False):
        pass
    async with enter(key="left", store=store, commit_mode=OFF):
        pass
    async with enter(key="undone", store=store) as txn:
        await do(txn, "rollback")
    with pytest.raises(Failure):
        async with enter(key="failed", store=store):
            raise Failure
    assert stored(store, "not written", "left", "undone", "failed") == {}


async def test_what_was_stored_under_the_key_meanwhile_stays(enter: Enter, store: ResultStore) -> None:
    async with enter(key="k", store=store):
        store.write("by hand", key="k")
    async with enter(key="outer", store=store), enter(key="outer") as inner:
        inner.stage("by a child")
    assert stored(store, "k", "outer") == {"k": "by hand", "outer": "by a child"}
    assert [store.read(key).metadata.version for key in ("k", "outer")] == [1, 1]


async def test_overwriting_without_a_value_leaves_none(enter: Enter, store: ResultStore) -> None:
    store.write("before", key="k")
    async with enter(key="k", store=store, overwrite=True):
        pass
    assert stored(store, "k") == {"k": None}


def test_a_task_under_the_key_of_its_transaction_keeps_its_result(storage: PostgresStorage, store: ResultStore) -> None:
    @task(result_storage=storage, result_storage_key="report")
    def report() -> int:
        return 1000

    for _ in range(2):
        with transaction(key="report", store=store) as txn:
            assert report() == 1000
        assert txn.read().result == 1000
