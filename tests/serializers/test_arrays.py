"""Arrays: pickled without a copy, or kept as ``.npy``; what comes back is what went in, or it is refused."""

import io
import pickle
import sys
from typing import Any

import numpy as np
import pytest

from pgresults import ResultStore
from pgresults.errors import ConfigurationError, SerializationError
from pgresults.serializers import BytesSerializer, NpySerializer, PickleSerializer, Serializer
from pgresults.serializers.parts import Arriving, Parts
from pgresults.sql.schema import CHUNK_SIZE
from pgresults.storage import PostgresStorage
from pgresults.transactions import transaction
from tests.support.calls import Call

ARRAYS: dict[str, Any] = {
    "integers": np.arange(5),
    "no rows": np.zeros((0, 3)),
    "no columns": np.zeros((2, 0, 3)),
    "a single one": np.array(3.5),
    "columns first": np.asfortranarray(np.ones((3, 4))),
    "a part": np.arange(20).reshape(4, 5)[::2, 1:],
    "read-only": np.frombuffer(b"abcd", "u1"),
    "days": np.array(["2020-01-01", "NaT"], "M8[D]"),
    "spans": np.array([1, 2], "m8[ms]"),
    "texts": np.array(["a", "bcä"]),
    "bytes": np.array([b"", b"x"]),
    "empty texts": np.zeros(2, "U0"),
    "other byte order": np.array([[1, 2]], ">i8"),
    "halves": np.array([1, np.nan, -0.0], "f2"),
    "complex": np.array([1 + 2j]),
    "truth": np.array([True, False]),
    "raw": np.zeros(2, "V4"),
    "records": np.array([(1, 2.0, [1, 2])], [("a", "i4"), ("b", ">f8"), ("c", "i2", (2,))]),
    "holes": np.zeros(2, np.dtype({"names": ["a"], "formats": ["i4"], "offsets": [4], "itemsize": 12})),
    "titles": np.zeros(2, np.dtype([(("title", "a"), "i4")])),
    "many": np.arange(400_000),
}


def same(one: Any, other: Any) -> bool:
    return (
        type(one) is type(other)
        and one.dtype == other.dtype
        and one.shape == other.shape
        and one.flags.f_contiguous >= (other.flags.f_contiguous and not other.flags.c_contiguous)
        and (one.tobytes() == other.tobytes() or (one.dtype.names is not None and (one == other).all()))
    )


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_comes_back(name: str) -> None:
    serializer, array = NpySerializer(), ARRAYS[name]
    payload = serializer.dumps(array)
    back = serializer.loads(payload)
    assert same(back, array)
    assert back.flags.writeable
    assert same(np.load(io.BytesIO(payload)), array)  # a file that NumPy reads
    written = io.BytesIO()
    np.save(written, array)
    assert same(serializer.loads(written.getvalue()), array)  # and reads of NumPy's


REFUSED: dict[str, Any] = {
    "objects": np.array([object()]),
    "objects in records": np.zeros(1, [("a", "O")]),
    "a masked one": np.ma.array([1]),
    "a record array": np.zeros(2, [("a", "i4")]).view(np.recarray),
    "the type of records": np.zeros(2, np.dtype((np.record, [("a", "i4")]))),
    "remarks": np.zeros(3, np.dtype("i4", metadata={"unit": "m"})),
    "remarks within": np.zeros(3, np.dtype([("a", np.dtype("i4", metadata={"unit": "m"}))])),
    "aligned": np.zeros(2, np.dtype([("a", "i1"), ("b", "i4")], align=True)),
    "a scalar": np.float64(1),
    "a list": [1],
}


if hasattr(np.dtypes, "StringDType"):  # since NumPy 2
    REFUSED["texts of any length"] = np.array(["x"], np.dtypes.StringDType())


@pytest.mark.parametrize("name", REFUSED)
async def test_what_would_come_back_otherwise_is_refused(storage: PostgresStorage, call: Call, name: str) -> None:
    store = ResultStore(result_storage=storage, serializer="npy")
    with pytest.raises(SerializationError, match="use pickle"):
        await call(store, "write", REFUSED[name], "k")
    assert not await call(store, "exists", "k")


@pytest.mark.parametrize("damage", [b"", b"x", b"\x93NUMPY\x09\x00", NpySerializer().dumps(np.arange(5))[:-1]])
def test_what_is_no_array_is_not_read(damage: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        NpySerializer().loads(damage)


@pytest.mark.parametrize("serializer", ["npy", "pickle"])
async def test_a_store_keeps_arrays(storage: PostgresStorage, call: Call, serializer: str) -> None:
    for store in (
        ResultStore(result_storage=storage, serializer=serializer),
        ResultStore(result_storage=storage, serializer=serializer, cache_result_in_memory=False),
    ):
        for name in ("integers", "many", "columns first", "records"):
            stored = await call(store, "write", ARRAYS[name], "k")
            outline = stored.provenance["object"]
            assert (outline["type"], outline["shape"]) == ("numpy.ndarray", list(ARRAYS[name].shape))
            for _ in range(2):  # what one caller does to it does not reach the next
                back = (await call(store, "read", "k")).result
                assert same(back, ARRAYS[name])
                back.fill(0)
        many = {f"{name}": ARRAYS[name] for name in ("integers", "many")}
        await call(store, "write_many", many)
        found = await call(store, "read_many", list(many))
        assert all(same(found[name].result, array) for name, array in many.items())


async def test_a_pickle_is_a_pickle(storage: PostgresStorage, call: Call) -> None:
    """Whoever reads it without us: Prefect's serializer, and Python's own."""
    large = {"array": np.arange(CHUNK_SIZE), "bytes": bytes(CHUNK_SIZE), "text": "ä" * CHUNK_SIZE, "small": [1]}
    await call(ResultStore(result_storage=storage), "write", large, "k")
    payload = await call(storage, "read_path", "k")
    assert payload == PickleSerializer().dumps(large)
    back = pickle.loads(payload)
    assert same(back.pop("array"), large.pop("array"))
    assert back == large


async def test_what_is_staged_is_what_it_was_then(storage: PostgresStorage) -> None:
    array, store = np.arange(CHUNK_SIZE), ResultStore(result_storage=storage)
    with transaction("k", store=store) as running:
        running.stage(array)
        array.fill(0)
    assert same(store.read("k").result, np.arange(CHUNK_SIZE))


async def test_what_changes_while_it_is_written_is_not_stored(
    storage: PostgresStorage, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    array, pieces = np.arange(CHUNK_SIZE), Parts.pieces

    def changing(self: Parts, size: int) -> Any:
        for piece in pieces(self, size):
            yield piece
            array[-1] = 0

    monkeypatch.setattr(Parts, "pieces", changing)
    store = ResultStore(result_storage=storage)
    with pytest.raises(SerializationError, match="changed by somebody else"):
        await call(store, "write", array, "k")
    assert not await call(store, "exists", "k")
    monkeypatch.undo()
    await call(store, "write", array, "k")
    assert same((await call(store, "read", "k")).result, array)


@pytest.mark.parametrize("sizes", [(), (1,), (7, 9), (8,), (8, 8), (3, 20, 1), (0, 5, 0), (16, 1)])
def test_parts_are_cut_into_pieces(sizes: tuple[int, ...]) -> None:
    content = bytes(range(sum(sizes)))
    starts = [sum(sizes[:number]) for number in range(len(sizes))]
    parts = Parts(
        tuple(memoryview(content)[start : start + size] for start, size in zip(starts, sizes, strict=True)),
        len(content),
    )
    assert list(parts.pieces(8)) == [content[start : start + 8] for start in range(0, len(content), 8)]
    assert parts.joined() == content


def test_a_payload_grows_by_what_arrives() -> None:
    arriving, piece = Arriving(), bytes(range(256)) * 4096
    for _ in range(40):
        arriving.append(piece)
    assert bytes(arriving.whole()) == piece * 40


class Shouting(PickleSerializer):
    """One of a user's own, made of one of ours."""

    type: str = "shouting"

    def dumps(self, obj: Any) -> bytes:
        return b"!" + super().dumps(obj)

    def loads(self, blob: bytes) -> Any:
        return super().loads(blob[1:])


class Twice(BytesSerializer):
    """Another one."""

    type: str = "twice"

    def dumps(self, obj: Any) -> bytes:
        return super().dumps(obj) * 2

    def loads(self, blob: bytes) -> Any:
        return super().loads(blob[: len(blob) // 2])


@pytest.mark.parametrize("serializer", [Shouting(), Twice()])
async def test_a_serializer_of_ones_own_is_asked(storage: PostgresStorage, call: Call, serializer: Serializer) -> None:
    store, large = ResultStore(result_storage=storage, serializer=serializer), bytes(range(256)) * (CHUNK_SIZE // 100)
    await call(store, "write", large, "k")
    assert await call(storage, "read_path", "k") == serializer.dumps(large)
    assert (await call(store, "read", "k")).result == large


@pytest.mark.parametrize("given", [b"few", bytearray(b"x" * 2 * CHUNK_SIZE), memoryview(b"abcdef")[::2], np.eye(3)])
async def test_bytes_are_kept_whatever_has_them(storage: PostgresStorage, call: Call, given: Any) -> None:
    store = ResultStore(result_storage=storage, serializer="bytes")
    await call(store, "write", given, "k")
    assert (await call(store, "read", "k")).result == memoryview(given).tobytes()


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    payload = NpySerializer().dumps(np.arange(3))
    monkeypatch.setitem(sys.modules, "numpy", None)
    for use in (lambda: NpySerializer().loads(payload), lambda: NpySerializer().dumps([1])):
        with pytest.raises(ConfigurationError, match=r"pip install 'pgresults\[npy\]'"):
            use()
