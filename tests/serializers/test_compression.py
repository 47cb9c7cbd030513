"""A compressed payload gives no more than the limit, and takes no more memory than that."""

import bz2
import gzip
import lzma
import subprocess
import sys
import zlib
from typing import Any

import pytest

from pgresults.errors import PayloadTooLarge
from pgresults.serializers import CompressedSerializer, JSONSerializer, PickleSerializer
from pgresults.serializers.compression import decompress
from pgresults.settings import temporary_settings
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore

LIBRARIES = [bz2, gzip, lzma, zlib]
LIMIT = 10_000


def named(library: Any) -> str:
    return str(library.__name__)


@pytest.mark.parametrize("library", LIBRARIES, ids=named)
def test_what_fits_comes_out_whole(library: Any) -> None:
    for size in (0, 1, LIMIT - 1, LIMIT):
        data = b"x" * size
        assert decompress(library, library.compress(data), LIMIT) == data


@pytest.mark.parametrize("library", LIBRARIES, ids=named)
def test_one_byte_too_many_is_refused(library: Any) -> None:
    with pytest.raises(PayloadTooLarge) as refused:
        decompress(library, library.compress(b"x" * (LIMIT + 1)), LIMIT)
    assert refused.value.limit == LIMIT


@pytest.mark.parametrize("library", [bz2, gzip, lzma], ids=named)
def test_streams_that_follow_count_together(library: Any) -> None:
    stream = library.compress(b"x" * 6_000)
    assert decompress(library, stream + stream, 12_000) == library.decompress(stream + stream)
    with pytest.raises(PayloadTooLarge):
        decompress(library, stream + stream, 11_999)


@pytest.mark.parametrize("library", LIBRARIES, ids=named)
def test_half_a_stream_is_no_payload(library: Any) -> None:
    serializer = CompressedSerializer(serializer=PickleSerializer(), compressionlib=named(library))
    payload = serializer.dumps(list(range(1000)))
    assert serializer.loads(payload) == list(range(1000))
    with pytest.raises((EOFError, zlib.error)):
        serializer.loads(payload[: len(payload) // 2])


BOMB = """
import lzma, resource, sys
from pgresults.errors import PayloadTooLarge
from pgresults.serializers import CompressedSerializer, PickleSerializer
from pgresults.settings import temporary_settings
payload = open(sys.argv[2], "rb").read()
serializer = CompressedSerializer(serializer=PickleSerializer(), compressionlib=sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with temporary_settings(max_payload_bytes=10_000_000):
    try:
        serializer.loads(payload)
    except PayloadTooLarge:
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("library", LIBRARIES, ids=named)
def test_a_bomb_takes_no_memory(library: Any, tmp_path: Any) -> None:
    (tmp_path / "bomb").write_bytes(library.compress(bytes(100_000_000)))
    ended = subprocess.run(
        (sys.executable, "-c", BOMB, named(library), str(tmp_path / "bomb")), capture_output=True, text=True, check=True
    )
    assert int(ended.stdout) * 1024 < 40_000_000


async def test_a_stored_bomb_is_refused_in_both_directions(call: Any, storage: PostgresStorage) -> None:
    serializer = CompressedSerializer(serializer=JSONSerializer(), compressionlib="zlib")
    store = ResultStore(result_storage=storage, serializer=serializer, cache_result_in_memory=False)
    await call(store, "write", "x" * 100_000, key="bomb")
    with temporary_settings(max_payload_bytes=50_000):
        small = PostgresStorage(storage.database.url(), storage.name)
        strict = ResultStore(result_storage=small, serializer=serializer, cache_result_in_memory=False)
        with pytest.raises(PayloadTooLarge):
            await call(strict, "read", "bomb")
        with pytest.raises(PayloadTooLarge):  # else it could never be read
            await call(strict, "write", "x" * 100_000, key="other")
        assert not await call(strict, "exists", "other")
        small.close()


def test_a_library_of_ones_own_is_measured_afterwards() -> None:
    serializer = CompressedSerializer(serializer=JSONSerializer(), compressionlib="tests.serializers.doubling")
    payload = serializer.dumps("x" * 10)
    assert serializer.loads(payload) == "x" * 10
    with temporary_settings(max_payload_bytes=5), pytest.raises(PayloadTooLarge):
        serializer.loads(payload)
