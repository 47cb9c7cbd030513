"""Prefect's own flows, tasks, serializers, blocks and lock managers in a store of ours; nothing of Prefect runs."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import URL

from pgresults import ResultRecord, ResultStore, task, transaction
from pgresults.cache_policies import INPUTS
from pgresults.errors import InvalidArgument
from pgresults.storage import PostgresStorage
from pgresults.transactions import IsolationLevel
from tests.support.calls import Call
from tests.support.database import psycopg_url
from tests.support.prefect_fixtures import MARKS, require_prefect

prefect: Any = require_prefect()
from prefect import cache_policies, tasks  # noqa: E402
from prefect import serializers as theirs  # noqa: E402
from prefect.filesystems import LocalFileSystem  # noqa: E402
from prefect.locking.filesystem import FileSystemLockManager  # noqa: E402
from prefect.locking.memory import MemoryLockManager  # noqa: E402

from pgresults.integrations.prefect import PostgresResultStorage  # noqa: E402

pytestmark = MARKS


@pytest.fixture
def unsaved(shared_url: URL) -> Iterator[PostgresResultStorage]:
    """A block of ours that no server of Prefect's knows."""
    block = PostgresResultStorage(url=psycopg_url(shared_url), name=f"test-{uuid4().hex}")
    yield block
    block.lock_manager().close()
    block.storage.close()


@pytest.fixture(params=["memory", "files"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """A lock manager of Prefect's."""
    return MemoryLockManager() if request.param == "memory" else FileSystemLockManager(tmp_path)


SERIALIZERS = {
    "pickle": theirs.PickleSerializer(),
    "json": theirs.JSONSerializer(dumps_kwargs={"sort_keys": True}),
    "compressed": theirs.CompressedSerializer(
        serializer=theirs.JSONSerializer(dumps_kwargs={"sort_keys": True}), compressionlib="zlib"
    ),
    "compressed/json": theirs.CompressedJSONSerializer(),
}


@pytest.mark.parametrize("kind", SERIALIZERS)
def test_their_serializers_are_ours(storage: PostgresStorage, kind: str) -> None:
    serializer = SERIALIZERS[kind]
    store = ResultStore(result_storage=storage, serializer=serializer)
    assert store.serializer.type == kind
    assert store.serializer == store.update_for_flow(prefect.flow(lambda: None, name="f")).serializer
    if kind == "compressed":
        assert store.serializer.serializer.dumps_kwargs == {"sort_keys": True}

    @task(result_storage=storage, result_serializer=serializer, cache_policy=INPUTS)
    def double(number: int) -> dict[str, int]:
        return {"number": 2 * number}

    assert [double(4), double(4)] == [{"number": 8}] * 2
    assert double.cache_info().hits == 1
    assert store.find()[0].serializer == kind


class Own(theirs.Serializer):  # type: ignore[misc, name-defined, unused-ignore]
    type: str = "their-own"

    def dumps(self, obj: Any) -> bytes:
        return repr(obj).encode()

    def loads(self, blob: bytes) -> Any:
        return blob.decode()


def test_a_serializer_of_their_users_is_to_be_made_one_of_ours(storage: PostgresStorage) -> None:
    advice = r"'their-own'.* subclass of pgresults\.serializers\.Serializer"
    with pytest.raises(Exception, match=advice):
        ResultStore(result_storage=storage, serializer=Own())

    @task(result_storage=storage, result_serializer=Own(), cache_policy=INPUTS)
    def double(number: int) -> int:
        return 2 * number

    with pytest.raises(InvalidArgument, match=advice):
        double(1)


async def test_our_block_stands_for_its_storage(unsaved: PostgresResultStorage, call: Call) -> None:
    keys = PostgresResultStorage(url=unsaved.url, name=f"{unsaved.name}-keys")
    store = ResultStore(result_storage=unsaved, metadata_storage=keys, lock_manager=keys.lock_manager())
    await call(store, "write", 1, key="k")
    assert (store.result_storage, store.metadata_storage) == (unsaved.storage, keys.storage)
    assert (await call(store, "read", "k")).result == 1
    locked = INPUTS.configure(key_storage=keys, lock_manager=keys.lock_manager(), isolation_level="SERIALIZABLE")

    @task(result_storage=unsaved, cache_policy=locked)
    def double(number: int) -> int:
        return 2 * number

    assert [double(2), double(2)] == [4, 4]
    assert double.cache_info().hits == 1
    assert len(ResultStore(result_storage=keys).find()) == 2


async def test_what_their_flows_and_tasks_say_holds(unsaved: PostgresResultStorage, manager: Any, call: Call) -> None:
    policy = cache_policies.INPUTS.configure(key_storage=unsaved, lock_manager=manager)
    their_task = prefect.task(lambda: None, name="t", cache_policy=policy, result_serializer="json")
    their_flow = prefect.flow(lambda: None, name="f", result_serializer=theirs.JSONSerializer())
    their_flow.result_storage = unsaved  # Prefect takes saved ones only
    of_flow = await call(ResultStore(), "update_for_flow", their_flow)
    assert (of_flow.result_storage, of_flow.serializer.type) == (unsaved.storage, "json")
    of_task = await call(of_flow, "update_for_task", their_task)
    assert (of_task.metadata_storage, of_task.lock_manager) == (unsaved.storage, manager)


async def test_their_lock_managers_give_locks(storage: PostgresStorage, manager: Any, call: Call) -> None:
    store = ResultStore(result_storage=storage, lock_manager=manager)
    assert await call(store, "acquire_lock", "k", "me")
    assert await call(store, "is_locked", "k")
    assert not await call(store, "acquire_lock", "k", "you", 0.01)
    await call(store, "release_lock", "k", "me")
    assert await call(store, "wait_for_lock", "k")
    async with transaction(key="k", store=store, isolation_level=IsolationLevel.SERIALIZABLE) as txn:
        assert manager.is_locked("k")
        txn.stage(1)
    assert not manager.is_locked("k")
    assert store.read("k").result == 1


async def test_one_computes_under_their_locks(storage: PostgresStorage) -> None:
    ran: list[int] = []
    locked = INPUTS.configure(
        lock_manager=MemoryLockManager(), isolation_level=prefect.transactions.IsolationLevel.SERIALIZABLE
    )

    @task(result_storage=storage, cache_policy=locked)
    async def double(number: int) -> int:
        ran.append(number)
        await asyncio.sleep(0)
        return 2 * number

    assert await asyncio.gather(*(double(1) for _ in range(4))) == [2] * 4
    assert ran == [1]


def test_what_keeps_results_elsewhere_is_refused_with_advice(storage: PostgresStorage, tmp_path: Path) -> None:
    files = LocalFileSystem(basepath=str(tmp_path))
    advice = "LocalFileSystem.* PostgresStorage.*`pgresults import prefect`"
    for use in (
        lambda: ResultStore(result_storage=files),
        lambda: ResultStore(result_storage=storage, metadata_storage=files),
        lambda: task(result_storage=files)(print),
        lambda: INPUTS.configure(key_storage=files),
    ):
        with pytest.raises((TypeError, InvalidArgument), match=advice):
            use()


def test_their_policies_are_refused_with_ours(storage: PostgresStorage) -> None:
    with pytest.raises(TypeError, match=r"from pgresults\.cache_policies import INPUTS"):
        task(result_storage=storage, cache_policy=cache_policies.INPUTS)(print)
    with pytest.raises(TypeError, match=r"pgresults\.cache_policies"):
        INPUTS + cache_policies.TASK_SOURCE


def test_their_hash_of_inputs_makes_keys(storage: PostgresStorage) -> None:
    @task(result_storage=storage, cache_key_fn=tasks.task_input_hash)
    def double(number: int) -> int:
        return 2 * number

    assert [double(1), double(1), double(2)] == [2, 2, 4]
    assert double.cache_info()[:2] == (1, 2)


async def test_their_stores_and_records_are_told_apart_from_ours(storage: PostgresStorage, call: Call) -> None:
    their_store = prefect.results.ResultStore(result_storage=LocalFileSystem(basepath="unused"))
    with pytest.raises(InvalidArgument, match=r"of pgresults, not prefect\.results\.ResultStore"):
        transaction(key="k", store=their_store)
    metadata = prefect.results.ResultRecordMetadata(storage_key="k", serializer=theirs.JSONSerializer())
    record = prefect.results.ResultRecord(result={"a": 1}, metadata=metadata)
    store = ResultStore(result_storage=storage)
    with pytest.raises(InvalidArgument, match=r"ResultRecord\.deserialize\(record\.serialize\(\)\)"):
        await call(store, "persist_result_record", record)
    await call(store, "persist_result_record", ResultRecord.deserialize(record.serialize()))
    assert (await call(store, "read", "k")).result == {"a": 1}
