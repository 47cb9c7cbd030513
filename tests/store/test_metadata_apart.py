"""Metadata apart from payloads: both are changed together, and one points to the other."""

import pickle
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import URL

from pgresults import NullStorage, PostgresStorage, ResultStore, flow, transaction
from pgresults.errors import InvalidArgument, LockedError, MissingResult
from pgresults.serializers import JSONSerializer, PickleSerializer
from tests.support.calls import Call
from tests.support.listing import page


async def test_metadata_lies_under_the_key_and_points_to_the_payload(
    apart: ResultStore, keys: PostgresStorage, call: Call
) -> None:
    stored = await call(apart, "write", {"a": 1}, key="k")
    payload = page(apart.result_storage)
    assert [row.key for row in page(keys)] == ["k"]
    assert [row.key for row in payload] == [stored.storage_key] != ["k"]
    assert await call(apart, "exists", "k")
    for _ in range(2):
        record = await call(apart, "read", "k")
        assert (record.result, record.metadata.storage_key) == ({"a": 1}, stored.storage_key)
    await call(apart, "write", 2, key="k")
    assert (await call(apart, "read", "k")).result == 2
    assert (await call(apart, "read", "k", version=1)).result == {"a": 1}
    assert await call(apart, "delete", "k")
    assert not await call(apart, "delete", "k")
    assert not await call(apart, "exists", "k")
    with pytest.raises(MissingResult, match="deleted"):
        await call(apart, "read", "k")


async def test_both_are_written_or_none(apart: ResultStore, keys: PostgresStorage, call: Call) -> None:
    apart.lock_manager = keys.lock_manager()
    apart.acquire_lock("k", "other")
    with pytest.raises(LockedError):
        await call(apart, "write", 1, key="k", holder="me")
    assert page(apart.result_storage) == page(keys) == []
    apart.release_lock("k", "other")


def test_in_a_transaction_both_wait_for_the_commit(apart: ResultStore, keys: PostgresStorage) -> None:
    with transaction("k", apart) as txn:
        txn.stage(1)
        assert page(apart.result_storage) == page(keys) == []
    assert apart.read("k").result == 1


async def test_two_databases_get_both_one_after_the_other(storage: PostgresStorage, fresh_url: URL, call: Call) -> None:
    keys = PostgresStorage(fresh_url, "keys")
    store = ResultStore(result_storage=storage, metadata_storage=keys)
    await call(store, "write", 1, key="k")
    assert (await call(store, "read", "k")).result == 1
    await keys.aclose()


@pytest.mark.parametrize("kept", ["beside", "nowhere else", "apart"])
async def test_what_is_written_says_how_to_read_it(
    storage: PostgresStorage, keys: PostgresStorage, call: Call, kept: str
) -> None:
    metadata_storage = {"beside": None, "nowhere else": NullStorage(), "apart": keys}[kept]
    options = {"result_storage": storage, "metadata_storage": metadata_storage}
    store = ResultStore(**options, serializer=JSONSerializer())
    tomorrow = datetime.now(UTC) + timedelta(hours=1)
    written = await call(store, "write", {"a": 1}, key="k", expiration=tomorrow, provenance={"by": "me"})
    record = await call(ResultStore(**options, serializer=PickleSerializer()), "read", "k")
    assert (record.result, record.metadata, record.expiration) == ({"a": 1}, written, tomorrow)
    assert record.metadata.model_dump() == written.model_dump()


async def test_a_transaction_within_a_flow_names_its_serializer(storage: PostgresStorage, call: Call) -> None:
    @flow(result_storage=storage, result_serializer="json")
    def first() -> None:
        with transaction(key="k") as txn:
            txn.stage({"a": 1})

    @flow(result_storage=storage, result_serializer="pickle")
    def second() -> Any:
        with transaction(key="k") as txn:
            return txn.read().result

    first()
    assert second() == {"a": 1}
    assert (await call(ResultStore(result_storage=storage), "read", "k")).result == {"a": 1}
    assert {row.serializer for row in page(storage)} == {"json", "pickle"}  # also the results of the flows


def test_a_store_with_metadata_apart_travels(apart: ResultStore) -> None:
    apart.write(1, key="k")
    assert pickle.loads(pickle.dumps(apart)).read("k").result == 1


async def test_the_history_of_a_key_is_that_of_what_it_pointed_to(
    apart: ResultStore, keys: PostgresStorage, call: Call
) -> None:
    first = await call(apart, "write", {"a": 1}, key="k")
    await call(apart, "write", 2, key="k")
    assert [entry.version for entry in await call(apart, "history", "k")] == [1, 2]
    with_results = await call(apart, "history", "k", with_results=True)
    assert [entry.result for entry in with_results] == [{"a": 1}, 2]
    await call(apart.model_copy(update={"metadata_storage": None}), "delete", first.storage_key)
    with_results = await call(apart, "history", "k", with_results=True)
    assert [(entry.has_result, entry.result) for entry in with_results] == [(False, None), (True, 2)]
    assert [found.key for found in await call(apart, "find")] == ["k"]


async def test_both_expire_together(apart: ResultStore, keys: PostgresStorage, call: Call) -> None:
    later = datetime.now(UTC) + timedelta(days=1)
    await call(apart, "write", 1, key="k", expiration=datetime.now(UTC) + timedelta(hours=1))
    await call(apart, "touch", "k", later)
    assert [row.expires_at for row in [*page(apart.result_storage), *page(keys)]] == [later, later]
    assert [row.key for row in await call(apart, "expiring", timedelta(days=2))] == ["k"]
    await call(apart, "touch", "k", datetime.now(UTC) - timedelta(seconds=1))
    with pytest.raises(MissingResult, match="expired"):
        await call(apart, "read", "k")
    assert await call(apart, "sweep", dry_run=True) == await call(apart, "sweep") == 2
    with pytest.raises(MissingResult):
        await call(apart, "touch", "k", later)


async def test_a_redacted_payload_is_gone_with_its_metadata(
    apart: ResultStore, keys: PostgresStorage, call: Call, connection: Any
) -> None:
    await call(apart, "write", "secret", key="k")
    await call(apart, "write", "secret, too", key="k")
    assert await call(apart, "redact", "k", "by law") == 2
    query = "SELECT count(*) FROM pgresults.payload WHERE storage_id = ANY(%s)"
    assert connection.execute(query, [[apart.result_storage.id, keys.id]]).fetchone() == (0,)
    with pytest.raises(MissingResult, match="redacted"):
        await call(apart, "read", "k", version=1)
    with pytest.raises(MissingResult, match="never written"):
        await call(apart, "redact", "nosuch", "by law")


async def test_what_must_not_be_redacted_stays_whole(apart: ResultStore, keys: PostgresStorage, call: Call) -> None:
    apart.lock_manager = keys.lock_manager()
    await call(apart, "write", "secret", key="k")
    with pytest.raises(InvalidArgument):
        await call(apart, "redact", "k", "")
    apart.acquire_lock("k", "other")
    with pytest.raises(LockedError):
        await call(apart, "redact", "k", "by law")
    apart.release_lock("k", "other")
    assert (await call(apart, "read", "k")).result == "secret"


async def test_both_are_deleted_or_none(apart: ResultStore, keys: PostgresStorage, call: Call) -> None:
    apart.lock_manager = keys.lock_manager()
    await call(apart, "write", 1, key="k")
    apart.acquire_lock("k", "other")
    with pytest.raises(LockedError):
        await call(apart, "delete", "k")
    assert len(page(apart.result_storage)) == len(page(keys)) == 1
    apart.release_lock("k", "other")
    assert await call(apart, "delete", "k")
    assert page(apart.result_storage) == page(keys) == []
