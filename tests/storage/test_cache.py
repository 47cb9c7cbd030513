"""What is remembered of a storage: never stale, and bounded."""

import io
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import URL

from pgresults.database.programs import perform
from pgresults.errors import MissingResult
from pgresults.operations import results
from pgresults.storage.cache import ResultCache
from pgresults.store import ResultStore
from tests.support.database import psycopg_url
from tests.support.values import set_expiration, soon


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


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each fetch from the database, whether a payload came with it."""
    seen: list[bool] = []
    original = results.read

    def read(*args: Any) -> Any:
        found = yield from original(*args)
        seen.append(found is not None and found.payload is not None)
        return found

    monkeypatch.setattr(results, "read", read)
    return seen


async def test_the_memory_saves_the_transfer(call: Any, store: ResultStore, fetched: list[bool]) -> None:
    await call(store, "write", {"a": 1}, key="k")
    for _ in range(3):
        assert (await call(store, "read", "k")).result == {"a": 1}
    assert fetched == [True, False, False]
    forgetful = store.model_copy(update={"cache_result_in_memory": False})
    assert (await call(forgetful, "read", "k")).result == {"a": 1}
    assert fetched[-1]


SPOILED: list[tuple[Any, Callable[[Any], Any]]] = [
    ([1, 2], lambda result: result.append(3)),
    ({"a": [1]}, lambda result: result["a"].clear()),
    (([1],), lambda result: result[0].append(2)),
    ({1, 2}, lambda result: result.clear()),
    (bytearray(b"ab"), lambda result: result.clear()),
    (deque([1]), lambda result: result.pop()),
    (SimpleNamespace(x=1), lambda result: setattr(result, "x", 2)),
]


@pytest.mark.parametrize(("value", "spoil"), SPOILED)
async def test_what_a_caller_does_to_a_result_is_not_read_again(
    call: Any, store: ResultStore, value: Any, spoil: Callable[[Any], Any]
) -> None:
    await call(store, "write", value, key="k")
    for _ in range(3):
        result = (await call(store, "read", "k")).result
        assert result == value
        spoil(result)
        assert result != value


def test_a_frame_is_read_as_it_was_stored(store: ResultStore) -> None:
    pandas = pytest.importorskip("pandas")
    store.write(pandas.DataFrame({"a": [1, 2]}), key="k")
    for _ in range(3):
        result = store.read("k").result
        assert list(result["a"]) == [1, 2]
        result.loc[0, "a"] = 999


async def test_what_is_used_up_by_reading_comes_anew(call: Any, store: ResultStore) -> None:
    await call(store, "write", iter([1, 2]), key="iterator")
    await call(store, "write", io.BytesIO(b"content"), key="file")
    for _ in range(3):
        assert list((await call(store, "read", "iterator")).result) == [1, 2]
        assert (await call(store, "read", "file")).result.read() == b"content"


async def test_what_cannot_be_changed_is_not_made_again(call: Any, store: ResultStore) -> None:
    value = ("a" * 1000, 1.5, (None, b"x"))
    await call(store, "write", value, key="k")
    first, second, third = [(await call(store, "read", "k")).result for _ in range(3)]
    assert first == value
    assert first is second is third


@pytest.mark.parametrize("depth", [1, 8, 9, 400])
def test_what_is_nested_deeply_is_read_again(store: ResultStore, depth: int) -> None:
    value: Any = ("x",)
    for _ in range(depth):
        value = (value,)
    store.write(value, key="k")
    for _ in range(3):
        assert store.read("k").result == value


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
        kept = [n for n in range(12) if store.cache.kept((store.result_storage.id, str(n)))]
        assert len(kept) == len(store.cache) <= entries
        assert sum(200 * n for n in kept) <= size


def test_the_memory_holds_no_more_entries_than_allowed(store: ResultStore) -> None:
    store.cache = ResultCache(4, 7)
    for n in range(8):
        store.result_storage.write_path(str(n), b"")
        found = perform(store.result_storage._fetch(str(n)))
        store.cache.keep((store.result_storage.id, str(n)), found.head, found.payload, n)
    assert 0 < len(store.cache) <= 4
