"""What users write, for type checkers: every line must be understood as its comment says."""

from datetime import timedelta
from typing import Any, assert_type

from pgresults import PostgresStorage, ResultRecord, ResultStore, flow, task, transaction, unmapped
from pgresults.cache_policies import INPUTS, TASK_SOURCE
from pgresults.records.records import ResultRecordMetadata
from pgresults.tasks import Explanation, explain


@task
def plain(x: int, by: float = 2.0) -> str:
    """Take a number."""
    return str(x * by)


@task(cache_policy=INPUTS + TASK_SOURCE, cache_expiration=timedelta(days=1), result_storage="reports")
def configured(x: int) -> list[int]:
    """Take a number."""
    return [x]


@task(persist_result=True)
async def later(x: int) -> bytes:
    """Take a number."""
    return bytes(x)


@flow(result_serializer="json")
async def main() -> dict[str, int]:
    """Call everything."""
    assert_type(plain(1, by=3.0), str)
    assert_type(configured(1), list[int])
    assert_type(await later(1), bytes)
    assert_type(configured.with_options(refresh_cache=True)(2), list[int])
    assert_type(configured.map([1, 2]), list[list[int]])
    assert_type(await later.amap([1, 2]), list[bytes])
    assert_type(await configured.amap(x=[1, 2]), list[list[int]])
    assert_type(plain.map([1, 2], by=unmapped(3.0)), list[str])
    assert_type(configured.cache_info().hits, int)
    assert_type(configured.is_cached(1), bool)
    assert_type(await later.ais_cached(1), bool)
    assert_type(configured.invalidate(), int)
    assert_type(explain(plain, 1, by=2.0), Explanation)
    return {"done": 1}


@plain.on_rollback
def undo(txn: Any) -> None:
    """Undo it."""


def stores(storage: PostgresStorage) -> None:
    """Use a store."""
    store = ResultStore(result_storage=storage, lock_manager=storage.lock_manager())
    assert_type(store.write({"a": 1}, key="k"), ResultRecordMetadata)
    assert_type(store.read("k"), ResultRecord[Any])
    assert_type(store.create_result_record(1), ResultRecord[int])
    assert_type(store.exists("k"), bool)
    assert_type(store.read_many(["k"]), dict[str, ResultRecord[Any]])
    with transaction("k", store) as txn:
        txn.stage(1)
        assert_type(txn.is_committed(), bool)


async def run() -> None:
    """Await the flow."""
    assert_type(await main(), dict[str, int])
