"""Frames and tables kept as Arrow's files: what comes back is what went in, or it is refused."""

import datetime as dt
import io
import sys
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from pgresults import ResultStore
from pgresults.errors import ConfigurationError, SerializationError
from pgresults.serializers import ArrowSerializer
from pgresults.storage import PostgresStorage
from tests.support.calls import Call

DAYS = pd.date_range("2020-01-01", periods=2)
Frame = pd.DataFrame


def objects(*values: Any) -> Any:
    return Frame({"a": pd.Series(values, dtype=object)})


def said(**attrs: Any) -> Any:
    frame = Frame({"a": [1]})
    frame.attrs.update(attrs)
    return frame


PANDAS: dict[str, Any] = {
    "days": Frame({"a": [1, 2]}, index=DAYS),
    "moments of a zone": Frame({"a": pd.date_range("2020-10-24", periods=3, tz="Europe/Berlin")}),
    "an index of a zone": Frame({"a": [1, 2]}, index=DAYS.tz_localize("UTC")),
    "an offset": Frame({"a": pd.to_datetime(["2020-01-01T00:00+02:00"])}),
    "seconds": Frame({"a": np.array(["2020-01-01", "NaT"], "M8[s]")}),
    "spans": Frame({"a": pd.to_timedelta([1, 2], unit="s")}),
    "months": Frame({"a": pd.period_range("2020-01", periods=2, freq="M")}),
    "an index of months": Frame({"a": [1, 2]}, index=pd.period_range("2020-01", periods=2, freq="M")),
    "intervals": Frame({"a": pd.interval_range(0, 2)}),
    "categories": Frame({"a": pd.Categorical(["x", None], ["y", "x", "z"], ordered=True)}),
    "categories of numbers": Frame({"a": pd.Categorical([3, 1], [3, 2, 1])}),
    "an index of categories": Frame({"a": [1]}, index=pd.CategoricalIndex(["x"])),
    "nothing": Frame(),
    "no rows": Frame({"a": pd.Series([], dtype="i8"), "b": pd.Series([], dtype="datetime64[us, UTC]")}),
    "no columns": Frame(index=[1, 2, 3]),
    "levels": Frame({"a": [1, 2]}, index=pd.MultiIndex.from_tuples([(1, "x"), (2, "y")], names=["n", None])),
    "levels without rows": Frame({"a": []}, index=pd.MultiIndex.from_tuples([], names=["n", "m"])),
    "columns in levels": Frame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)])),
    "numbered columns": Frame(np.eye(3)),
    "columns with numbers": Frame([[1, 2]], columns=[7, 3]).rename_axis(columns="n"),
    "a counting index": Frame({"a": [1, 2]}, index=pd.RangeIndex(5, 9, 2, name="n")),
    "names of several kinds": Frame({("a", "b"): [1]}).rename_axis(index=5),
    "numbers or nothing": Frame({"a": pd.array([1, None], dtype="Int64"), "b": pd.array([True, None], "boolean")}),
    "floats": Frame({"a": [1.0, np.nan, -0.0], "b": np.array([1, 2, 3], "f4"), "c": np.array([1, 2, 3], "f2")}),
    "unsigned": Frame({"a": np.array([255], "u1"), "b": np.array([2**64 - 1], "u8")}),
    "texts": Frame({"a": ["x", None]}, index=["ä", ""]),
    "types of Arrow": Frame({"a": pd.array([1, None], dtype="int64[pyarrow]")}),
    "decimals": objects(Decimal("1.50"), None),
    "dates": objects(dt.date(2020, 1, 1)),
    "bytes": objects(b"x", None),
    "truth or nothing": objects(True, None),
    "attributes": said(x={"y": [1]}),
}


@pytest.mark.parametrize("compression", [None, "zstd", "lz4"])
@pytest.mark.parametrize("name", PANDAS)
def test_a_frame_of_pandas_comes_back(name: str, compression: Any) -> None:
    frame = PANDAS[name]
    serializer = ArrowSerializer(compression=compression)
    back = serializer.loads(serializer.dumps(frame))
    pd.testing.assert_frame_equal(back, frame, check_exact=True, check_freq=True)
    assert list(back.dtypes) == list(frame.dtypes)
    assert (back.attrs, type(back.columns), type(back.index)) == (frame.attrs, type(frame.columns), type(frame.index))
    for number in range(back.shape[1]):
        if len(back):  # it can be changed as any other
            back.iloc[0, number] = back.iloc[0, number]


REFUSED: dict[str, Any] = {
    "objects": objects(1, "x"),
    "numbers as objects": objects(1, 2),
    "a number among decimals": objects(Decimal("1.5"), 1),
    "decimals of other places": objects(Decimal("1.5"), Decimal("1.50")),
    "NaN among bytes": objects(b"x", np.nan),
    "lists": Frame({"a": [[1], [2, 3]]}),
    "categories of several types": Frame({"a": pd.Categorical([1, "y"])}),
    "names of several types": Frame([[1, 2]], columns=[0, "a"]),
    "a name twice": Frame([[1, 2]], columns=["a", "a"]),
    "days as names": Frame([[1, 2]], columns=DAYS),
    "holidays": Frame(
        {"a": [1]}, index=pd.date_range("2020", periods=1, freq=pd.offsets.CDay(holidays=["2019-12-25"]))
    ),
    "complex": Frame({"a": [1j]}),
    "other byte order": Frame({"a": np.array([1], ">i4")}),
    "a sparse one": Frame({"a": pd.arrays.SparseArray([0, 1])}),
    "a tuple in attributes": said(x=(1,)),
    "flags": Frame({"a": [1]}).set_flags(allows_duplicate_labels=False),
    "a series": pd.Series([1]),
    "objects in polars": pl.DataFrame({"a": pl.Series([object()], dtype=pl.Object)}),
    "a lazy frame": pl.LazyFrame({"a": [1]}),
    "our own word": pa.table({"a": [1]}).replace_schema_metadata({"pgresults": "y"}),
    "a list": [1],
    "text": "text",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_come_back_otherwise_is_refused(storage: PostgresStorage, name: str) -> None:
    store = ResultStore(result_storage=storage, serializer="arrow")
    with pytest.raises(SerializationError):
        store.write(REFUSED[name], "k")
    assert not store.exists("k")


POLARS: dict[str, Any] = {
    "many types": pl.DataFrame(
        {
            "enum": pl.Series(["a"], dtype=pl.Enum(["a", "b"])),
            "category": pl.Series(["a"], dtype=pl.Categorical),
            "list": [[1]],
            "struct": [{"x": 1}],
            "decimal": pl.Series([1], dtype=pl.Decimal(10, 2)),
            "null": [None],
            "time": pl.Series([1], dtype=pl.Time),
            "zone": pl.Series([1], dtype=pl.Datetime("ms", "Europe/Berlin")),
            "span": pl.Series([1], dtype=pl.Duration("us")),
            "array": pl.Series([[1, 2]], dtype=pl.Array(pl.Int8, 2)),
            "bytes": [b"x"],
        }
    ),
    "nothing": pl.DataFrame(),
    "no rows": pl.DataFrame(schema={"a": pl.Int8, "b": pl.Datetime("ns", "UTC")}),
    "NaN and nothing": pl.DataFrame({"a": [float("nan"), None]}),
}


if hasattr(pl, "Int128"):
    POLARS["what only polars has"] = pl.DataFrame({"a": pl.Series([2**100], dtype=pl.Int128)})


@pytest.mark.parametrize("compression", [None, "zstd", "lz4"])
@pytest.mark.parametrize("name", POLARS)
def test_a_frame_of_polars_comes_back(name: str, compression: Any) -> None:
    serializer, frame = ArrowSerializer(compression=compression), POLARS[name]
    back = serializer.loads(serializer.dumps(frame))
    assert back.schema == frame.schema
    assert back.equals(frame)


DICTIONARIES = pa.chunked_array([pa.array(["x"]).dictionary_encode(), pa.array(["y", None]).dictionary_encode()])
TABLES: dict[str, Any] = {
    "numbers": pa.table({"a": [1, None]}),
    "metadata": pa.table({"a": [1]}).replace_schema_metadata({"x": "y"}),
    "of pandas": pa.Table.from_pandas(PANDAS["levels"]),
    "a name twice": pa.table([[1], [2]], names=["a", "a"]),
    "dictionaries": pa.table({"a": DICTIONARIES}),
    "nested": pa.table({"a": [{"x": [1, 2]}], "b": [[Decimal("1.5")]]}),
    "not null": pa.table({"a": [1]}, schema=pa.schema([pa.field("a", pa.int8(), nullable=False, metadata={"u": "m"})])),
    "nothing": pa.table({}),
    "no rows": pa.table({"a": pa.array([], pa.timestamp("s", "UTC"))}),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_comes_back(name: str) -> None:
    back = ArrowSerializer().loads(ArrowSerializer().dumps(TABLES[name]))
    assert back.schema.equals(TABLES[name].schema, check_metadata=True)
    assert back.to_pylist() == TABLES[name].to_pylist()


LARGE: dict[str, tuple[Any, Callable[[Any, Any], bool]]] = {
    "pandas": (Frame({"a": np.arange(300_000), "b": 0.5}), Frame.equals),
    "polars": (pl.DataFrame({"a": np.arange(300_000), "b": 0.5}), pl.DataFrame.equals),
    "pyarrow": (pa.table({"a": np.arange(300_000), "b": np.arange(300_000) / 2}), pa.Table.equals),
}


@pytest.mark.parametrize("library", LARGE)
async def test_a_store_keeps_frames(storage: PostgresStorage, call: Call, library: str) -> None:
    frame, equals = LARGE[library]
    store = ResultStore(result_storage=storage, serializer="arrow")
    stored = await call(store, "write", frame, "k")
    outline = stored.provenance["object"]
    assert (outline["shape"], [name for name, _ in outline["columns"]]) == ([300_000, 2], ["a", "b"])
    for _ in range(2):
        assert equals((await call(store, "read", "k")).result, frame)
    with store.open_read("k") as file:
        assert pa.ipc.open_file(io.BytesIO(file.read())).num_record_batches > 0  # a file that others read


@pytest.mark.parametrize("missing", ["pyarrow", "polars", "pandas"])
def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    serializer = ArrowSerializer()
    payload = serializer.dumps(LARGE["pandas" if missing == "pandas" else "polars"][0])
    monkeypatch.setitem(sys.modules, missing, None)
    wanted = r"pgresults\[arrow\]" if missing == "pyarrow" else missing
    with pytest.raises(ConfigurationError, match=f"pip install '{wanted}'"):
        serializer.loads(payload)
