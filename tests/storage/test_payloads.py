"""Payloads of every size come back as they were; what was tampered with is noticed before it is unpickled."""

import os
import threading
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgresults.errors import IntegrityError
from pgresults.serializers import JSONSerializer
from pgresults.sql.schema import CHUNK_SIZE
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore

SIZES = [0, 1, CHUNK_SIZE - 1, CHUNK_SIZE, CHUNK_SIZE + 1, 2 * CHUNK_SIZE, 7 * CHUNK_SIZE + 12345]


def payload_rows(connection: psycopg.Connection[Any], storage: PostgresStorage) -> list[tuple[int, int]]:
    return connection.execute(
        "SELECT chunk, octet_length(data) FROM pgresults.payload WHERE storage_id = %s ORDER BY chunk", [storage.id]
    ).fetchall()


@pytest.mark.parametrize("size", SIZES)
async def test_every_size_comes_back(call: Any, storage: PostgresStorage, connection: Any, size: int) -> None:
    content = os.urandom(size)
    await call(storage, "write_path", "p", content)
    assert await call(storage, "read_path", "p") == content
    rows = payload_rows(connection, storage)
    assert [number for number, _ in rows] == list(range(max(1, -(-size // CHUNK_SIZE))))
    assert sum(length for _, length in rows) == size


@pytest.mark.parametrize("size", SIZES)
async def test_objects_of_every_size_come_back(call: Any, store: ResultStore, size: int) -> None:
    result = os.urandom(size)
    stored = await call(store, "write", result, key="k")
    record = await call(store, "read", "k")
    assert type(record.result) is bytes
    assert record.result == result
    assert record.metadata.sha256 == stored.sha256


async def test_bytes_are_not_blown_up(call: Any, store: ResultStore, connection: Any) -> None:
    stored = await call(store, "write", os.urandom(10**6), key="k")
    ((_, length),) = payload_rows(connection, store.result_storage)
    assert stored.size == length < 1_001_000


async def test_the_old_payload_stays_for_the_history(call: Any, storage: PostgresStorage, connection: Any) -> None:
    for content in (b"old", b"new" * CHUNK_SIZE):
        await call(storage, "write_path", "p", content)
    assert await call(storage, "read_path", "p") == b"new" * CHUNK_SIZE
    assert [length for _, length in payload_rows(connection, storage)].count(3) == 1


class Explosive:
    """A pickle that, loaded, makes a file; the ballast comes after that in the stream."""

    def __init__(self, path: Path, ballast: bytes) -> None:
        self.path, self.ballast = path, ballast

    def __reduce__(self) -> tuple[Any, ...]:
        return _explode, (str(self.path), self.ballast)


def _explode(path: str, ballast: bytes) -> bytes:
    Path(path).touch()
    return ballast


TAMPERING = {
    "flipped byte": (
        "UPDATE pgresults.payload SET data = set_byte(data, octet_length(data) - 20, "
        "get_byte(data, octet_length(data) - 20) # 1) WHERE storage_id = %s AND chunk = {last}"
    ),
    "truncated": "UPDATE pgresults.payload SET data = substr(data, 1, octet_length(data) - 1)"
    " WHERE storage_id = %s AND chunk = {last}",
    "extended": "UPDATE pgresults.payload SET data = data || 'x' WHERE storage_id = %s AND chunk = {last}",
    "emptied": "UPDATE pgresults.payload SET data = '' WHERE storage_id = %s AND chunk = {last}",
    "first chunk missing": "DELETE FROM pgresults.payload WHERE storage_id = %s AND chunk = 0",
    "last chunk missing": "DELETE FROM pgresults.payload WHERE storage_id = %s AND chunk = {last}",
    "all further chunks missing": "DELETE FROM pgresults.payload WHERE storage_id = %s AND chunk >= least({last}, 1)",
    "chunks renumbered": "UPDATE pgresults.payload SET chunk = chunk + 10 WHERE storage_id = %s AND chunk = {last}",
    "size changed": "UPDATE pgresults.result SET size = size - 1 WHERE storage_id = %s",
    "size enlarged": "UPDATE pgresults.result SET size = size + 1 WHERE storage_id = %s",
    "digest changed": "UPDATE pgresults.result SET sha256 = sha256('x') WHERE storage_id = %s",
    "digest removed": "UPDATE pgresults.result SET sha256 = NULL WHERE storage_id = %s",
    "size beyond all memory": "UPDATE pgresults.result SET size = 1::bigint << 62 WHERE storage_id = %s",
    "size below nothing": "UPDATE pgresults.result SET size = -1 WHERE storage_id = %s",
    "size removed": "UPDATE pgresults.result SET size = NULL WHERE storage_id = %s",
}


@pytest.mark.parametrize("last", [0, 2])
@pytest.mark.parametrize("statement", TAMPERING.values(), ids=TAMPERING)
async def test_tampering_is_noticed_before_unpickling(
    call: Any, store: ResultStore, connection: Any, tmp_path: Path, statement: str, last: int
) -> None:
    await call(store, "write", Explosive(tmp_path / "exploded", bytes(last * CHUNK_SIZE + 1000)), key="k")
    assert len(payload_rows(connection, store.result_storage)) == last + 1
    changed = connection.execute(statement.format(last=last), [store.result_storage.id])
    assert changed.rowcount > 0
    with pytest.raises(IntegrityError, match="'k', version 1") as caught:
        await call(store, "read", "k")
    assert (caught.value.key, caught.value.version) == ("k", 1)
    with pytest.raises(IntegrityError):
        await call(store.result_storage, "read_path", "k")
    assert not (tmp_path / "exploded").exists()


async def test_an_untampered_payload_is_unpickled(call: Any, store: ResultStore, tmp_path: Path) -> None:
    await call(store, "write", Explosive(tmp_path / "exploded", b""), key="k")
    await call(store, "read", "k")
    assert (tmp_path / "exploded").exists()


async def test_a_write_mends_what_was_tampered_with(call: Any, store: ResultStore, connection: Any) -> None:
    await call(store, "write", 1, key="k")
    connection.execute("DELETE FROM pgresults.payload WHERE storage_id = %s", [store.result_storage.id])
    with pytest.raises(IntegrityError):
        await call(store, "read", "k")
    await call(store, "write", 2, key="k")
    assert (await call(store, "read", "k")).result == 2


def test_a_reader_of_chunks_never_sees_half_of_two_versions(store: ResultStore) -> None:
    """Readers of a payload in chunks race a writer: each sees one version, whole."""
    contents = [bytes([n]) * (2 * CHUNK_SIZE + n) for n in range(8)]
    done = threading.Event()
    store.result_storage.write_path("p", contents[0])

    def write() -> None:
        try:
            for content in contents:
                store.result_storage.write_path("p", content)
        finally:
            done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        assert store.result_storage.read_path("p") in contents
    writer.join()
    assert store.result_storage.read_path("p") == contents[-1]


async def test_large_json_is_kept_as_text(call: Any, store: ResultStore, connection: Any) -> None:
    json = store.model_copy(update={"serializer": JSONSerializer()})
    await call(json, "write", ["ü" * 1000] * 2000, key="k")
    assert (await call(store, "read", "k")).result == ["ü" * 1000] * 2000
