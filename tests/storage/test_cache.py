"""What is remembered of a storage: never stale, and bounded."""

import subprocess
import sys
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import URL

from pgresults.database.programs import perform
from pgresults.errors import MissingResult
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
