"""Digests of what numpy and pandas have: labels, types and values, however they lie in memory."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pgresults.objects.digests import stable_digest


def digest(value: Any) -> str:
    return stable_digest(value, "it")


RECORD = np.dtype([("a", "i1"), ("b", "f8")])
ALIGNED = np.dtype([("a", "i1"), ("b", "f8")], align=True)


def record(dtype: Any, number: int = 1) -> Any:
    array = np.empty(2, dtype)
    array["a"], array["b"] = number, [0.5, np.nan]
    return array


def frame(**more: Any) -> pd.DataFrame:
    return pd.DataFrame({"a": [1, 2], "b": ["x", "y"], **more})


MOMENTS = pd.date_range("2030-01-01", periods=2, freq="D")

DIFFERENT: list[Callable[[], Any]] = [
    *(
        lambda dtype=dtype: np.arange(4).astype(dtype)
        for dtype in ("i1", "i8", ">i8", "f4", "f8", "c16", "O", "U2", "S2")
    ),
    *(lambda shape=shape: np.zeros(shape) for shape in ((4,), (2, 2), (1, 4), (4, 1), (), (0,), (0, 2), (2, 0))),
    lambda: np.array([1, 2, 3, 4]),
    lambda: np.array([complex(1, np.nan)]),
    lambda: np.array([complex(np.nan, 1)]),
    lambda: np.array([np.longdouble(1) / 3]),
    lambda: np.array([np.longdouble(1 / 3)]),
    lambda: np.array([["a", {"b"}], [None, [1]]], dtype=object),
    lambda: np.array([True, False]),
    lambda: np.array(["2030-01-01"], dtype="M8[D]"),
    lambda: np.array(["2030-01-01"], dtype="M8[ns]"),
    lambda: np.array([1], dtype="m8[s]"),
    lambda: record(RECORD),
    lambda: record(RECORD, 2),
    lambda: record(ALIGNED),
    lambda: np.ma.array([1, 2], mask=[True, False]),
    lambda: np.ma.array([1, 2], mask=[False, True]),
    lambda: record(RECORD).view(np.recarray),
    *(lambda make=make: make(1) for make in (np.float64, np.float32, np.int64, np.bool_, np.str_)),
    lambda: np.datetime64(1, "s"),
    lambda: np.datetime64(1, "ms"),
    *(
        lambda value=value: value
        for value in (np.dtype("i8"), np.dtype(">i8"), RECORD, ALIGNED, np.float64, np.add, np.mean)
    ),
    lambda: np.random.default_rng(1),
    lambda: np.random.default_rng(2),
    frame,
    lambda: frame(c=1),
    lambda: frame()[["b", "a"]],
    lambda: frame().rename(columns={"a": "c"}),
    lambda: frame().set_index("a"),
    lambda: frame().astype({"a": "Int64"}),
    lambda: frame().astype({"a": "float64"}),
    lambda: frame().astype({"b": "category"}),
    lambda: frame().astype({"b": "category"}).assign(b=lambda f: f.b.cat.as_ordered()),
    lambda: frame().astype({"b": "category"}).assign(b=lambda f: f.b.cat.add_categories("z")),
    lambda: frame(c=[pd.NaT, pd.Timestamp(0)]),
    lambda: frame(c=[pd.NaT, pd.Timestamp(0, tz="UTC")]),
    lambda: frame(c=[None, 1]),
    lambda: frame(c=[None, {"x"}]),
    lambda: frame(c=pd.array([None, 1], dtype="Int64")),
    lambda: frame(c=pd.array([0, 1], dtype="Int64")),
    lambda: frame(c=pd.interval_range(0, 2)),
    lambda: frame(c=pd.period_range("2030", periods=2, freq="D")),
    lambda: frame(c=pd.period_range("2030", periods=2, freq="h")),
    lambda: frame(c=pd.arrays.SparseArray([0, 1])),
    lambda: pd.Series([1, 2]),
    lambda: pd.Series([1, 2], name="a"),
    lambda: pd.Series([1, 2], index=[0, 2]),
    lambda: pd.Series([1, 2], index=["0", "1"]),
    lambda: pd.Series([pd.Timedelta(1)]),
    lambda: pd.Series([pd.Timedelta(2)]),
    lambda: pd.Index([0, 1]),
    lambda: pd.RangeIndex(2),
    lambda: MOMENTS,
    lambda: MOMENTS.tz_localize("UTC"),
    lambda: pd.MultiIndex.from_product([[1, 2], ["a"]]),
    lambda: pd.MultiIndex.from_product([[1, 2], ["a"]], names=["x", "y"]),
    lambda: pd.Categorical(["a"]),
    lambda: pd.Categorical(["a"], ["a", "b"]),
    *(lambda nanoseconds=nanoseconds: pd.Timestamp(nanoseconds) for nanoseconds in (0, 1, 1000)),
    *(lambda nanoseconds=nanoseconds: pd.Timedelta(nanoseconds) for nanoseconds in (0, 1, 1000)),
    lambda: pd.Timestamp(0, tz="UTC"),
    lambda: pd.Timestamp(0, tz="Europe/Rome"),
    lambda: pd.NaT,
    lambda: pd.NA,
    lambda: pd.Interval(0, 1),
    lambda: pd.Period("2030", "D"),
    lambda: pd.offsets.Day(1),
    lambda: pd.CategoricalDtype(["a"]),
    lambda: pd.DataFrame,
]


def test_unlike_arrays_have_unlike_digests() -> None:
    found: dict[str, Any] = {}
    for number, make in enumerate(DIFFERENT):
        value, again = make(), make()
        assert digest(value) == digest(again), value
        assert digest(value) not in found, (number, value, found[digest(value)])
        assert digest({"it": [value]}) == digest({"it": [again]})
        found[digest(value)] = value


def in_other_blocks(data: pd.DataFrame) -> pd.DataFrame:
    other = pd.DataFrame(index=data.index)
    for name in data:
        other[name] = data[name].copy()
    return other


def with_nan(bits: int) -> Any:
    return np.array([bits], dtype="u8").view("f8")


NUMBERS = np.arange(6.0).reshape(2, 3)
WIDE = pd.DataFrame(NUMBERS, columns=["a", "b", "c"])

ALIKE: list[tuple[str, Any, Any]] = [
    ("order", NUMBERS, np.asfortranarray(NUMBERS)),
    ("view", NUMBERS[:, ::2], NUMBERS[:, ::2].copy()),
    ("nan", with_nan(0x7FF8000000000000), with_nan(0xFFF8000000000001)),
    ("long", np.frombuffer(np.longdouble(1).tobytes()[:10] + b"x" * 6, "g"), np.array([1], "g")),
    ("padding", record(ALIGNED), record(ALIGNED).copy()),
    ("objects", np.array([{8, 16}, "a"], object), np.array([{16, 8}, "".join("a")], object)),
    ("masked", np.ma.array([1, 2], mask=[1, 0]), np.ma.array([9, 2], mask=[1, 0])),
    ("blocks", WIDE, in_other_blocks(WIDE)),
    ("slice", WIDE.iloc[:1], WIDE.head(1).copy()),
    ("levels", pd.MultiIndex.from_product([[1, 2], ["a", "b"]])[:2], pd.MultiIndex.from_tuples([(1, "a"), (1, "b")])),
    ("missing", pd.array([None, 1], dtype="Int64"), pd.arrays.IntegerArray(np.array([7, 1]), np.array([True, False]))),
    ("strings", pd.Series(["a", None], dtype="string"), pd.Series(["".join("a"), pd.NA], dtype="string")),
    ("beside", {"set": {8, 16}, "array": NUMBERS}, {"array": NUMBERS.copy(), "set": {16, 8}}),
]


@pytest.mark.parametrize(("one", "other"), [pair for _, *pair in ALIKE], ids=[name for name, *_ in ALIKE])
def test_how_it_lies_in_memory_does_not_count(one: Any, other: Any) -> None:
    assert digest(one) == digest(other)


def test_what_is_beside_the_values_counts() -> None:
    noted = frame()
    noted.attrs["from"] = "a"
    assert digest(noted) != digest(frame())

    class Units(np.ndarray[Any, Any]):
        unit: str

    meters, feet = NUMBERS.view(Units), NUMBERS.view(Units)
    meters.unit, feet.unit = "m", "ft"
    assert digest(meters) != digest(feet) != digest(NUMBERS)

    class Named(pd.DataFrame):
        _metadata = ["title"]  # noqa: RUF012 (as pandas wants it)

    one, other = Named(frame()), Named(frame())
    one.title, other.title = "one", "other"
    assert digest(one) != digest(other) != digest(frame())
