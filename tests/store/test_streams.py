"""Results that are written and read piece by piece: stored when closed or not at all, checked before they are read."""

import io
import os
import random
import shutil
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgresults import PostgresStorage, ResultStore
from pgresults.errors import (
    IntegrityError,
    InvalidArgument,
    InvalidKey,
    LockedError,
    MissingResult,
    PayloadTooLarge,
)
from pgresults.operations import results as operations
from pgresults.settings import Settings
from pgresults.sql.schema import CHUNK_SIZE
from pgresults.store.stream_writing import ResultWriter
from tests.support.calls import Call
from tests.support.listing import page
from tests.support.streams import read_all, write_pieces

LARGE = random.Random(7).randbytes(3 * CHUNK_SIZE + 12_345)


@pytest.mark.parametrize("metadata", ["beside", "apart"])
@pytest.mark.parametrize("content", [b"", b"few", LARGE[:CHUNK_SIZE], LARGE], ids=["nothing", "few", "one", "many"])
async def test_what_was_written_is_read(
    store: ResultStore, apart: ResultStore, call: Call, metadata: str, content: bytes
) -> None:
    used = store if metadata == "beside" else apart
    stored = await write_pieces(call, used, "k", content, tags=["t"], provenance={"run": 7})
    assert (stored.version, stored.size, stored.serializer.type) == (1, len(content), "bytes")
    assert await read_all(call, used, "k") == content
    record = await call(used, "read", "k")
    assert record.result == content
    assert record.metadata.provenance["run"] == 7
    assert [one.key for one in await call(used, "find", tags=["t"])] == ["k"]
    assert (await call(used, "verify")).intact


async def test_it_can_be_read_from_anywhere(store: ResultStore, call: Call) -> None:
    await write_pieces(call, store, "k", LARGE)
    file = await call(store, "open_read", "k")
    awaited = isinstance(file, io.BufferedReader)

    async def read(size: int) -> bytes:
        return file.read(size) if awaited else await file.read(size)  # type: ignore[no-any-return]

    places = [0, CHUNK_SIZE - 5, 2 * CHUNK_SIZE, len(LARGE) - 3, 17, CHUNK_SIZE]
    for place in places:
        assert file.seek(place) == place
        assert await read(100) == LARGE[place : place + 100]
        assert file.tell() == min(place + 100, len(LARGE))
    assert file.seek(-10, io.SEEK_END) == len(LARGE) - 10
    assert file.seek(4, io.SEEK_CUR) == len(LARGE) - 6
    assert await read(-1) == LARGE[-6:]
    assert await read(1) == b""
    file.seek(len(LARGE) + 5)
    assert await read(5) == b""
    assert file.metadata.size == len(LARGE)
    with pytest.raises(ValueError, match=r"-1|negative"):
        file.seek(-1)
    file.close()


async def test_any_payload_can_be_read_as_a_file(store: ResultStore, call: Call) -> None:
    await call(store, "write", {"a": 1}, "k")
    assert await read_all(call, store, "k") == await call(store.result_storage, "read_path", "k")


def test_libraries_take_them_for_files(store: ResultStore) -> None:
    with store.open_write("archive") as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr("large", LARGE)
        archive.writestr("small", b"small")
    with store.open_read("archive") as file, zipfile.ZipFile(file) as archive:
        assert archive.read("small") == b"small"
        assert archive.read("large") == LARGE
    with store.open_write("lines") as lines:
        lines.writelines([b"one\n", bytearray(b"two\n"), memoryview(b"three")])
    assert list(store.open_read("lines")) == [b"one\n", b"two\n", b"three"]
    with store.open_read("lines") as source, store.open_write("copy") as target:
        shutil.copyfileobj(source, target)
    assert store.read("copy").result == b"one\ntwo\nthree"


async def test_after_an_exception_nothing_is_stored(store: ResultStore, call: Call) -> None:
    file = await call(store, "open_write", "k")

    async def failing() -> None:
        if isinstance(file, ResultWriter):
            with file:
                file.write(LARGE)
                raise ZeroDivisionError
        async with file:
            await file.write(LARGE)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await failing()
    assert file.closed
    assert file.metadata is None
    assert not await call(store, "exists", "k")
    assert page(store.result_storage) == []  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # as of any file that nobody closes
async def test_what_is_never_closed_is_never_stored(
    store: ResultStore, call: Call, connection: psycopg.Connection[Any]
) -> None:
    file = await call(store, "open_write", "k")
    written = file.write(LARGE)
    assert len(LARGE) == (written if isinstance(written, int) else await written)
    del file
    mine = (store.result_storage.id,)  # type: ignore[union-attr]
    row = connection.execute("SELECT count(*) FROM pgresults.payload WHERE storage_id = %s", mine).fetchone()
    assert row == (0,)
    assert not await call(store, "exists", "k")


async def test_what_cannot_be_written_is_refused(store: ResultStore, call: Call) -> None:
    with pytest.raises(InvalidKey):
        await call(store, "open_write", "")
    with pytest.raises(InvalidArgument):
        await call(store, "open_write", "k", expiration=datetime.now())
    file = store.open_write("k")
    with pytest.raises(InvalidArgument, match="not a str"):
        file.write("text")
    file.write(b"x")
    file.close()
    file.close()
    for late in (lambda: file.write(b"y"), file.flush):
        with pytest.raises(InvalidArgument, match="closed"):
            late()
    assert store.read("k").metadata.version == 1


async def test_the_limit_holds_before_the_end(storage: PostgresStorage, call: Call) -> None:
    bounded = PostgresStorage(storage.database.url(), storage.name, settings=Settings(max_payload_bytes=1_000))
    store = ResultStore(result_storage=bounded)
    with store.open_write("k") as file:
        file.write(bytes(900))
        with pytest.raises(PayloadTooLarge) as refusal:
            file.write(bytes(101))
        assert (refusal.value.key, refusal.value.size, refusal.value.limit) == ("k", 1_001, 1_000)
    assert store.read("k").metadata.size == 900
    bounded.close()


async def test_expirations_are_counted_from_the_end(store: ResultStore, call: Call) -> None:
    stored = await write_pieces(call, store, "k", b"x", expires_in=timedelta(hours=1))
    assert stored.expiration - stored.created_at == timedelta(hours=1)
    later = datetime.now(UTC) + timedelta(hours=2)
    assert (await write_pieces(call, store, "k", b"x", expiration=later)).expiration == later


async def test_locks_hold_at_both_ends(guarded: ResultStore, call: Call) -> None:
    await call(guarded, "acquire_lock", "k", holder="another")
    with pytest.raises(LockedError):
        await call(guarded, "open_write", "k")
    await call(guarded, "release_lock", "k", holder="another")
    file = await call(guarded, "open_write", "k")
    await call(guarded, "acquire_lock", "k", holder="another")
    with pytest.raises(LockedError):
        file.close() if isinstance(file, ResultWriter) else await file.close()
    assert not await call(guarded, "exists", "k")
    await call(guarded, "release_lock", "k", holder="another")


DAMAGES: dict[str, str] = {
    "changed": "UPDATE pgresults.payload"
    " SET data = set_byte(data, 5, 1 # get_byte(data, 5)) WHERE key = 'damaged stream' AND chunk = 2",
    "missing": "DELETE FROM pgresults.payload WHERE key = 'damaged stream' AND chunk = 1",
    "cut off": "DELETE FROM pgresults.payload WHERE key = 'damaged stream' AND chunk = 3",
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_nothing_is_given_out_of_a_damaged_payload(
    store: ResultStore, call: Call, connection: psycopg.Connection[Any], damage: str
) -> None:
    await write_pieces(call, store, "damaged stream", LARGE)
    file = await call(store, "open_read", "damaged stream")
    connection.execute(DAMAGES[damage])
    with pytest.raises(IntegrityError) as refusal:
        await call(store, "open_read", "damaged stream")
    assert (refusal.value.key, refusal.value.version) == ("damaged stream", 1)
    with pytest.raises((IntegrityError, MissingResult)):  # nor of one that was intact when it was opened
        file.read() if isinstance(file, io.BufferedReader) else await file.read()


async def test_what_was_superseded_is_not_mixed_with_what_is(store: ResultStore, call: Call) -> None:
    await write_pieces(call, store, "k", LARGE)
    file = await call(store, "open_read", "k")
    await write_pieces(call, store, "k", LARGE[::-1])
    with pytest.raises(MissingResult):
        file.read() if isinstance(file, io.BufferedReader) else await file.read()
    assert await read_all(call, store, "k") == LARGE[::-1]


@pytest.mark.parametrize("forge", ["signature", "payload"])
async def test_what_is_not_signed_is_not_opened(
    storage: PostgresStorage, call: Call, connection: psycopg.Connection[Any], forge: str
) -> None:
    signing = PostgresStorage(storage.database.url(), storage.name, settings=Settings(signing_key="a" * 32))
    signed = ResultStore(result_storage=signing)
    await write_pieces(call, signed, "k", LARGE)
    assert await read_all(call, signed, "k") == LARGE
    if forge == "signature":
        await write_pieces(call, ResultStore(result_storage=storage), "k", LARGE)
    else:
        connection.execute(
            "UPDATE pgresults.result SET sha256 = sha256('forged'), size = 6 WHERE key = 'k' AND storage_id = %s",
            (storage.id,),
        )
    with pytest.raises(IntegrityError, match=r"signed|signature"):
        await call(signed, "open_read", "k")
    await call(signing, "close")


@pytest.mark.parametrize("missing", ["never written", "deleted"])
async def test_why_there_is_nothing_to_open(store: ResultStore, call: Call, missing: str) -> None:
    if missing == "deleted":
        await write_pieces(call, store, "k", LARGE)
        await call(store, "delete", "k")
    with pytest.raises(MissingResult) as failure:
        await call(store, "open_read", "k")
    assert failure.value.reason == missing


async def test_a_write_is_repeated_after_a_lost_connection(
    store: ResultStore, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    operation, tries = operations.write, []

    def losing(upload: Any, *, repeated: bool = False) -> Any:
        tries.append(repeated)
        begun = operation(upload, repeated=repeated)
        if len(tries) > 1:
            return (yield from begun)
        yield next(begun)  # the payload is uploaded, and lost with the connection
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(operations, "write", losing)
    stored = await write_pieces(call, store, "k", LARGE)
    assert (tries, stored.version) == ([False, True], 1)
    assert (await call(store, "read", "k")).result == LARGE


async def test_of_a_large_payload_little_is_in_memory(store: ResultStore) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    piece = random.Random(1).randbytes(1 << 20)
    store.write(piece, "warm up")
    before = highest = resident()
    with store.open_write("k") as target:
        for _ in range(96):
            target.write(piece)
        highest = max(highest, resident())
    highest = max(highest, resident())
    with store.open_read("k") as source:
        while source.read(1 << 20):
            highest = max(highest, resident())
    assert highest - before < 48 << 20
