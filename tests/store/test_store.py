"""What every store does, sync and async."""

import json
import math
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from types import MappingProxyType
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import URL

from pgresults.database.programs import perform
from pgresults.errors import (
    InvalidArgument,
    InvalidKey,
    LockedError,
    MissingResult,
    PayloadTooLarge,
    PgResultsError,
    SerializationError,
)
from pgresults.records.keys import MAX_KEY_BYTES
from pgresults.serializers import JSONSerializer, PickleSerializer
from pgresults.settings import Settings
from pgresults.storage import PostgresStorage
from pgresults.storage.cache import ResultCache
from pgresults.store import ResultStore
from tests.support.database import psycopg_url
from tests.support.listing import page

SURROGATE = "\ud800"
TOKYO = timezone(timedelta(hours=9))


def soon() -> datetime:
    return datetime.now(UTC) + timedelta(hours=1)


def past() -> datetime:
    return datetime.now(UTC) - timedelta(seconds=1)


def set_expiration(connection: psycopg.Connection, store: ResultStore, moment: str) -> None:
    statement = f"UPDATE pgresults.result SET expires_at = {moment} WHERE storage_id = %s"
    connection.execute(statement, [store.result_storage.id])


def write_elsewhere(result: str, key: str, url: URL, name: str) -> None:
    """Write from another process."""
    code = """if True:
        import sys
        from pgresults.storage import PostgresStorage
        from pgresults.store.store import ResultStore
        result, key, url, name = sys.argv[1:]
        ResultStore(result_storage=PostgresStorage(url, name)).write(result, key=key)
        """
    subprocess.run([sys.executable, "-c", code, result, key, psycopg_url(url), name], check=True)


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


# Keys


@pytest.mark.parametrize(
    "key",
    [
        "%s",
        "a'b\"c\\",
        "k%(key)s",
        ":key",
        "日本/🎈",
        " ",
        "\n",
        "a" * MAX_KEY_BYTES,
        "\u0301",
        "../x",
        "$1",
        "NULL",
        "{}",
    ],
)
async def test_any_text_is_a_key(call: Any, store: ResultStore, key: str) -> None:
    assert not await call(store, "exists", key)
    await call(store, "write", key, key=key)
    assert await call(store, "exists", key)
    assert (await call(store, "read", key)).result == key
    assert await call(store, "delete", key)


@given(st.text(min_size=1, max_size=700))
@example("ä" * (MAX_KEY_BYTES // 2))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_key_is_itself_alone_or_refused(store: ResultStore, key: str) -> None:
    try:
        encoded = key.encode()
        storable = b"\0" not in encoded and len(encoded) <= MAX_KEY_BYTES
    except UnicodeEncodeError:
        storable = False
    if not storable:
        with pytest.raises(InvalidKey):
            store.write(1, key=key)
        return
    store.write(key, key=key)
    assert store.read(key).result == key
    assert [listed.key for listed in page(store.result_storage, prefix=key, limit=1)] == [key]


@pytest.mark.parametrize("key", ["", "a\0b", "\0", SURROGATE, "x" * (MAX_KEY_BYTES + 1), "ä" * 1025, 3, b"k", ()])
async def test_what_cannot_be_a_key_is_refused_everywhere(call: Any, store: ResultStore, key: Any) -> None:
    with pytest.raises(InvalidKey) as refusal:
        await call(store, "write", 1, key=key)
    assert refusal.value.reason in str(refusal.value)
    for method in ("read", "exists", "delete"):
        with pytest.raises(InvalidKey):
            await call(store, method, key)
    assert page(store.result_storage) == []


def test_the_longest_keys_fit_every_index(store: ResultStore, connection: psycopg.Connection) -> None:
    key = "".join(chr(0x10000 + (n * n * 7919 + n * 104729) % 0xF0000) for n in range(MAX_KEY_BYTES // 4))
    for _ in range(2):
        store.write(b"x" * 1_100_000, key=key, expiration=soon())
    assert store.read(key).metadata.version == 2
    assert store.delete(key)
    for table in ("result", "payload", "history"):
        (size,) = connection.execute(
            f"SELECT max(octet_length(key)) FROM pgresults.{table} WHERE storage_id = %s", [store.result_storage.id]
        ).fetchone()
        assert size == len(key.encode()) == MAX_KEY_BYTES


# Expiration and misses


async def test_an_expired_result_is_gone(call: Any, store: ResultStore) -> None:
    when = past()
    await call(store, "write", "old", key="k", expiration=when)
    assert not await call(store, "exists", "k")
    with pytest.raises(MissingResult, match="expired") as miss:
        await call(store, "read", "k")
    assert (miss.value.key, miss.value.reason, miss.value.at, miss.value.by) == ("k", "expired", when, None)
    assert page(store.result_storage) == []


async def test_a_result_lives_until_it_expires(call: Any, store: ResultStore, connection: psycopg.Connection) -> None:
    when = soon().astimezone(TOKYO)
    stored = await call(store, "write", "fresh", key="k", expiration=when)
    assert stored.expiration == when
    assert stored.expiration.tzinfo is UTC
    record = await call(store, "read", "k")
    assert record.expiration == when
    set_expiration(connection, store, "clock_timestamp()")
    assert not await call(store, "exists", "k")
    with pytest.raises(MissingResult, match="expired"):
        await call(store, "read", "k")


async def test_misses_say_why(call: Any, store: ResultStore) -> None:
    with pytest.raises(MissingResult) as miss:
        await call(store, "read", "k")
    assert (miss.value.reason, miss.value.at, miss.value.by) == ("never written", None, None)
    written = await call(store, "write", 1, key="k")
    await call(store, "delete", "k")
    with pytest.raises(MissingResult) as miss:
        await call(store, "read", "k")
    assert miss.value.reason == "deleted"
    assert written.created_at < miss.value.at <= datetime.now(UTC) + timedelta(seconds=5)
    assert "@" in miss.value.by
    assert miss.value.by in str(miss.value)


async def test_a_write_brings_back_what_expired_or_was_deleted(call: Any, store: ResultStore) -> None:
    await call(store, "write", 1, key="k", expiration=past())
    await call(store, "write", 2, key="k")
    assert (await call(store, "read", "k")).result == 2
    await call(store, "delete", "k")
    await call(store, "write", 3, key="k")
    assert (await call(store, "read", "k")).result == 3


@pytest.mark.parametrize(
    "moment", [datetime(2030, 1, 1), "tomorrow", 3600, timedelta(hours=1), datetime.min.replace(tzinfo=TOKYO)]
)
async def test_only_aware_moments_are_expirations(call: Any, store: ResultStore, moment: Any) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        await call(store, "write", 1, key="k", expiration=moment)
    assert refusal.value.argument == "expiration"
    assert not await call(store, "exists", "k")


async def test_the_last_moment_of_all_is_a_moment(call: Any, store: ResultStore) -> None:
    moment = datetime.max.replace(tzinfo=UTC)
    await call(store, "write", 1, key="k", expiration=moment)
    assert (await call(store, "read", "k")).expiration == moment


async def test_the_first_moment_of_all_is_long_past(call: Any, store: ResultStore) -> None:
    moment = datetime.min.replace(tzinfo=UTC)
    await call(store, "write", 1, key="k", expiration=moment)
    with pytest.raises(MissingResult) as miss:
        await call(store, "read", "k")
    assert miss.value.at == moment


# What goes with a result


async def test_tags_and_provenance_are_kept(call: Any, store: ResultStore, connection: psycopg.Connection) -> None:
    provenance = {"input": {"rows": [1, 2.5, None, True]}, "π": "\\u0000 is no NUL"}
    stored = await call(store, "write", 1, key="k", tags=("nightly", "eu", "nightly"), provenance=provenance)
    record = await call(store, "read", "k")
    assert record.metadata.provenance == stored.provenance
    assert record.metadata.provenance.items() >= provenance.items()
    assert record.metadata.provenance["process"].keys() == {"host", "pid", "user"}
    rows = connection.execute(
        "SELECT tags FROM pgresults.live_results WHERE storage = %s", [store.result_storage.name]
    ).fetchall()
    assert rows == [(["nightly", "eu", "nightly"],)]


async def test_a_generator_of_tags_is_not_used_up(call: Any, store: ResultStore, connection: Any) -> None:
    await call(store, "write", 1, key="k", tags=(tag for tag in "ab"))
    row = connection.execute("SELECT tags FROM pgresults.result WHERE storage_id = %s", [store.result_storage.id])
    assert row.fetchone() == (["a", "b"],)


@pytest.mark.parametrize("tags", ["nightly", [""], ["a\0"], [SURROGATE], [1], [None], 7])
async def test_what_is_no_list_of_tags_is_refused(call: Any, store: ResultStore, tags: Any) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        await call(store, "write", 1, key="k", tags=tags)
    assert refusal.value.argument == "tags"
    assert not await call(store, "exists", "k")


NESTED: list[Any] = []
for _ in range(100_000):
    NESTED = [NESTED]


@pytest.mark.parametrize(
    "provenance",
    [
        pytest.param(value, id=name)
        for name, value in {
            "nan": {"a": math.nan},
            "infinity": {"a": [math.inf]},
            "no number": {"a": 10**5000},
            "nul": {"a": "b\0c"},
            "nul in a name": {"a\0": 1},
            "surrogate": {"a": SURROGATE},
            "numbers as names": {"a": {2: "a", 10: "b"}},
            "set": {"a": {1, 2}},
            "bytes": {"a": b"xy"},
            "generator": {"a": iter([1])},
            "object": {"a": object()},
            "too deep": {"a": NESTED},
            "deep": {"a": json.loads("[" * 400 + "]" * 400)},
            "mapping that is no dict": {"a": MappingProxyType({})},
            "taken": {"process": 1},
            "list": [1, 2],
            "text": "why",
        }.items()
    ],
)
async def test_what_is_no_json_object_is_no_provenance(call: Any, store: ResultStore, provenance: Any) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        await call(store, "write", 1, key="k", provenance=provenance)
    assert refusal.value.argument == "provenance"
    assert not await call(store, "exists", "k")


@pytest.mark.parametrize("text", ["a\0b", SURROGATE, 7])
async def test_holders_and_reasons_are_texts(call: Any, store: ResultStore, text: Any) -> None:
    await call(store, "write", 1, key="k")
    with pytest.raises(InvalidArgument) as refusal:
        await call(store, "write", 2, key="k", holder=text)
    assert refusal.value.argument == "holder"
    with pytest.raises(InvalidArgument) as refusal:
        await call(store, "delete", "k", reason=text)
    assert refusal.value.argument == "reason"
    assert (await call(store, "read", "k")).metadata.version == 1


@pytest.mark.parametrize("name", ["", "a\0b", SURROGATE, 7, None, "x" * 2049])
def test_what_cannot_name_a_storage_is_refused(shared_url: URL, name: Any) -> None:
    with pytest.raises(InvalidArgument):
        PostgresStorage(shared_url, name=name)


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
        connection.execute("DROP TABLE pgresults.payload")
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


# The memory


async def test_the_memory_saves_deserializing(call: Any, store: ResultStore) -> None:
    await call(store, "write", {"a": 1}, key="k")
    first, second = await call(store, "read", "k"), await call(store, "read", "k")
    assert first.result is second.result
    forgetful = store.model_copy(update={"cache_result_in_memory": False})
    assert (await call(forgetful, "read", "k")).result is not first.result


async def test_the_memory_is_never_stale(call: Any, store: ResultStore, shared_url: URL) -> None:
    other = ResultStore(result_storage=store.result_storage, cache=ResultCache(10, 1000))
    await call(store, "write", "old", key="k")
    assert (await call(store, "read", "k")).result == "old"
    await call(other, "write", "new", key="k", expiration=soon())
    assert (await call(store, "read", "k")).result == "new"
    write_elsewhere("newest", "k", shared_url, store.result_storage.name)
    record = await call(store, "read", "k")
    assert (record.result, record.metadata.version, record.expiration) == ("newest", 3, None)
    await call(other, "delete", "k")
    with pytest.raises(MissingResult, match="deleted"):
        await call(store, "read", "k")


async def test_the_memory_serves_nothing_expired(call: Any, store: ResultStore, connection: Any) -> None:
    await call(store, "write", "old", key="k", expiration=soon())
    await call(store, "read", "k")
    assert len(store.cache) == 1
    connection.execute(
        "UPDATE pgresults.result SET expires_at = now() WHERE storage_id = %s", [store.result_storage.id]
    )
    with pytest.raises(MissingResult, match="expired"):
        await call(store, "read", "k")


async def test_the_memory_does_not_outlive_an_expiry_that_was_put_off(
    call: Any, store: ResultStore, connection: Any
) -> None:
    await call(store, "write", "kept", key="k", expiration=soon())
    await call(store, "read", "k")
    set_expiration(connection, store, "NULL")
    assert (await call(store, "read", "k")).expiration is None


@pytest.mark.parametrize(("entries", "size"), [(4, 7_000), (3, 11), (1, 100_000), (1000, 30_000)])
def test_the_memory_is_bounded(store: ResultStore, entries: int, size: int) -> None:
    store.cache = ResultCache(entries, size)
    for n in range(12):
        store.write(bytes(200 * n), key=str(n))
        assert store.read(str(n)).result == bytes(200 * n)
        assert store.cache.record((store.result_storage.id, str(n)), uuid4()) is None
        kept = [n for n in range(12) if store.cache.payload_id((store.result_storage.id, str(n)))]
        assert len(kept) == len(store.cache) <= entries
        assert sum(200 * n for n in kept) <= size


def test_the_memory_holds_no_more_entries_than_allowed(store: ResultStore) -> None:
    store.cache = ResultCache(4, 7)
    for n in range(8):
        store.result_storage.write_path(str(n), b"")
        found = perform(store.result_storage._fetch(str(n)))
        store.cache.keep((store.result_storage.id, str(n)), found.head, store.create_result_record(n))
    assert 0 < len(store.cache) <= 4


async def test_a_serializer_comes_back_as_it_was_given(call: Any, storage: PostgresStorage) -> None:
    plain = JSONSerializer(object_encoder=None, object_decoder=None)
    store = ResultStore(result_storage=storage, serializer=plain, cache_result_in_memory=False)
    looks_like_a_set = {"__class__": "builtins.set", "data": [1, 2, 3]}
    await call(store, "write", looks_like_a_set, key="k")
    record = await call(ResultStore(result_storage=storage), "read", "k")
    assert record.result == looks_like_a_set
    assert record.serializer == plain


@pytest.mark.parametrize("page", [{"prefix": "\udcff"}, {"after": "a\0"}, {"limit": -1}, {"limit": 10**30}])
async def test_a_page_is_asked_for_in_earnest(call: Any, storage: PostgresStorage, page: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        await call(storage, "page", **page)


async def test_one_text_is_not_several_keys(call: Any, store: ResultStore) -> None:
    await call(store, "write_many", {"a": 1, "b": 2})
    with pytest.raises(InvalidArgument) as refusal:
        await call(store, "read_many", "ab")
    assert (refusal.value.argument, refusal.value.value) == ("keys", "ab")


async def test_of_several_results_all_are_stored_or_none(call: Any, store: ResultStore) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    stored = await call(store, "write_many", {"a": 1, "b": 2}, expiration=soon, tags=["t"])
    assert [(key, stored[key].version, stored[key].expiration) for key in "ab"] == [("a", 1, soon), ("b", 1, soon)]
    guarded = store.model_copy(update={"lock_manager": store.result_storage.lock_manager()})
    await call(guarded, "acquire_lock", "c", holder="another")
    with pytest.raises(LockedError) as refusal:
        await call(guarded, "write_many", {"a": 10, "c": 30, "d": 40})
    assert (refusal.value.key, refusal.value.holder) == ("c", "another")
    found = await call(store, "read_many", ["d", "c", "b", "a"])
    assert {key: (one.result, one.metadata.version) for key, one in found.items()} == {"a": (1, 1), "b": (2, 1)}
    await call(guarded, "release_lock", "c", holder="another")
