"""What every store does, sync and async."""

from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL

from pgresults.errors import InvalidArgument, MissingResult, PayloadTooLarge, PgResultsError, SerializationError
from pgresults.serializers import JSONSerializer, PickleSerializer
from pgresults.settings import Settings
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.database import psycopg_url
from tests.support.listing import page
from tests.support.values import SURROGATE, past, soon


async def test_what_was_written_is_read(call: Any, store: ResultStore) -> None:
    stored = await call(store, "write", {"rows": 3}, key="report")
    record = await call(store, "read", "report")
    assert record.result == {"rows": 3}
    assert record.metadata == stored
    assert record.metadata.model_dump() == stored.model_dump()
    assert (stored.version, stored.size) == (1, len(record.serialize_result()))


async def test_nothing_is_a_result(call: Any, store: ResultStore) -> None:
    await call(store, "write", None, key="k")
    assert await call(store, "exists", "k")
    assert (await call(store, "read", "k")).result is None


async def test_a_key_is_made_when_none_is_given(call: Any, store: ResultStore) -> None:
    first, second = [(await call(store, "write", n)).storage_key for n in range(2)]
    assert first != second
    assert [(await call(store, "read", key)).result for key in (first, second)] == [0, 1]


async def test_a_record_is_stored_under_its_own_key(call: Any, store: ResultStore) -> None:
    record = store.create_result_record("draft", key="k", expiration=soon())
    stored = await call(store, "persist_result_record", record)
    assert await call(store, "read", "k") == record
    assert stored == record.metadata
    assert record.metadata.version is None


async def test_versions_count_on_after_a_delete(call: Any, store: ResultStore) -> None:
    for expected in (1, 2):
        assert (await call(store, "write", expected, key="k")).version == expected
    assert await call(store, "delete", "k", reason="wrong input")
    assert not await call(store, "delete", "k")
    assert (await call(store, "write", 3, key="k")).version == 3


async def test_storages_do_not_see_each_other(call: Any, store: ResultStore) -> None:
    other = PostgresStorage(store.result_storage.database.url(), name=f"{store.result_storage.name}-other")
    await call(store, "write", "mine", key="k")
    assert not await call(ResultStore(result_storage=other), "exists", "k")
    await other.aclose()


# Payloads and their serializers


async def test_a_reader_needs_no_serializer_of_its_own(call: Any, store: ResultStore) -> None:
    writer = store.model_copy(update={"serializer": JSONSerializer()})
    await call(writer, "write", {"at": datetime(2030, 1, 1, tzinfo=UTC)}, key="k")
    record = await call(store, "read", "k")
    assert record.result == {"at": datetime(2030, 1, 1, tzinfo=UTC)}
    assert record.serializer == JSONSerializer()
    assert store.serializer == PickleSerializer()


async def test_what_cannot_be_serialized_is_not_written(call: Any, store: ResultStore) -> None:
    await call(store, "write", "before", key="k")
    with pytest.raises(SerializationError):
        await call(store, "write", (n for n in range(3)), key="k")
    json = store.model_copy(update={"serializer": JSONSerializer()})
    for odd in (object(), SURROGATE + "\0"):
        try:
            await call(json, "write", odd, key="odd")
        except SerializationError:
            continue
        assert (await call(json, "read", "odd")).result == odd
    assert (await call(store, "read", "k")).metadata.version == 1


async def test_payloads_above_the_limit_are_refused(call: Any, shared_url: URL, storage: PostgresStorage) -> None:
    small = PostgresStorage(shared_url, name=storage.name, settings=Settings(max_payload_bytes=1000))
    store = ResultStore(result_storage=small)
    with pytest.raises(PayloadTooLarge) as refusal:
        await call(store, "write", bytes(1000), key="k")
    assert (refusal.value.key, refusal.value.limit) == ("k", 1000)
    assert refusal.value.size > 1000
    assert not await call(store, "exists", "k")
    await call(small, "write_path", "p", bytes(1000))
    with pytest.raises(PayloadTooLarge):
        await call(small, "write_path", "p", bytes(1001))
    assert await call(small, "read_path", "p") == bytes(1000)
    await small.aclose()


@pytest.mark.parametrize("content", [b"", b"\0\xff", bytes(2_500_000)])
async def test_bytes_are_kept_as_they_are(call: Any, storage: PostgresStorage, content: bytes) -> None:
    await call(storage, "write_path", "p", content)
    assert await call(storage, "read_path", "p") == content
    with pytest.raises(MissingResult):
        await call(storage, "read_path", "q")


async def test_exists_touches_no_payload(call: Any, fresh_url: URL) -> None:
    storage = PostgresStorage(fresh_url)
    store = ResultStore(result_storage=storage)
    await call(store, "write", bytes(3_000_000), key="k")
    with psycopg.connect(psycopg_url(fresh_url), autocommit=True) as connection:
        connection.execute("DROP TABLE pgresults.payload CASCADE")
    assert await call(store, "exists", "k")
    assert not await call(store, "exists", "l")
    with pytest.raises(PgResultsError):
        await call(store, "read", "k")
    await storage.aclose()


# Pages


def test_pages_go_through_all_results_in_order(store: ResultStore) -> None:
    keys = [f"a/{n:02}" for n in range(7)] + ["a%", "a_", "b"]
    for key in keys:
        store.write(key, key=key)
    store.write("old", key="a/old", expiration=past())
    store.delete("a/03")
    expected = sorted(key for key in keys if key.startswith("a") and key != "a/03")
    found: list[str] = []
    while listed := page(store.result_storage, "a", after=found[-1] if found else "", limit=2):
        found += [one.key for one in listed]
    assert found == expected
    assert [listed.key for listed in page(store.result_storage, "a%")] == ["a%"]


async def test_a_serializer_comes_back_as_it_was_given(call: Any, storage: PostgresStorage) -> None:
    plain = JSONSerializer(object_encoder=None, object_decoder=None)
    store = ResultStore(result_storage=storage, serializer=plain, cache_result_in_memory=False)
    looks_like_a_set = {"__class__": "builtins.set", "data": [1, 2, 3]}
    await call(store, "write", looks_like_a_set, key="k")
    record = await call(ResultStore(result_storage=storage), "read", "k")
    assert record.result == looks_like_a_set
    assert record.serializer == plain


@pytest.mark.parametrize("page", [{"prefix": "\udcff"}, {"after": "a\0"}, {"limit": -1}, {"limit": "1"}])
async def test_a_page_is_asked_for_in_earnest(call: Any, store: ResultStore, page: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        await call(store, "find", **page)


def test_isolation_levels(store: ResultStore) -> None:
    assert store.supports_isolation_level("READ_COMMITTED")
    assert not store.supports_isolation_level("SERIALIZABLE")
    store.lock_manager = store.result_storage.lock_manager()
    assert store.supports_isolation_level("SERIALIZABLE")
    with pytest.raises(ValueError, match="CHAOS"):
        store.supports_isolation_level("CHAOS")
