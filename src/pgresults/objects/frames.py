"""Frames, series, indexes and arrays of pandas, which is not imported for that: labels and values, however they lie."""

import sys
from collections.abc import Callable
from typing import Any

from pgresults.objects.definitions import Token
from pgresults.objects.tokens import joined, text_token


def frame_kinds() -> list[tuple[type, Callable[[Any, Token], bytes]]]:
    """The types of pandas with what gives their tokens; nothing where pandas is not loaded."""
    pandas: Any = sys.modules.get("pandas")
    if pandas is None:
        return []
    return [
        (pandas.DataFrame, _frame_token),
        (pandas.Series, _series_token),
        (pandas.RangeIndex, _range_token),
        (pandas.MultiIndex, _multi_index_token),
        (pandas.Index, _index_token),
        (pandas.api.extensions.ExtensionArray, _array_token),
    ]


def _frame_token(frame: Any, token: Token) -> bytes:
    columns = (token(column.array) for _, column in frame.items())
    return joined(
        b"P", [token(type(frame)), *_beside(frame, token), token(frame.columns), token(frame.index), *columns]
    )


def _series_token(series: Any, token: Token) -> bytes:
    parts = (series.name, series.index, series.array)
    return joined(b"P", [token(type(series)), *_beside(series, token), *map(token, parts)])


def _beside(data: Any, token: Token) -> list[bytes]:
    """What is kept beside labels and values: notes, and what a subclass has."""
    own = {name: getattr(data, name, None) for name in data._metadata}
    return [token(data.attrs), token(data.flags.allows_duplicate_labels), token(own)]


def _range_token(index: Any, token: Token) -> bytes:
    return joined(b"R", map(token, (type(index), index.name, index.start, index.stop, index.step)))


def _multi_index_token(index: Any, token: Token) -> bytes:
    levels = [index.get_level_values(number).array for number in range(index.nlevels)]  # levels may hold unused labels
    return joined(b"J", map(token, (type(index), list(index.names), *levels)))


def _index_token(index: Any, token: Token) -> bytes:
    return joined(b"I", map(token, (type(index), index.name, index.array, getattr(index, "freq", None))))


def _array_token(array: Any, token: Token) -> bytes:
    pandas: Any = sys.modules["pandas"]
    arrays = pandas.arrays
    parts: tuple[Any, ...]
    if isinstance(array, pandas.Categorical):
        parts = (array.codes, array.categories, array.ordered)
    elif isinstance(array, arrays.DatetimeArray | arrays.TimedeltaArray | arrays.PeriodArray):
        parts = (array.asi8,)
    elif isinstance(array, arrays.IntegerArray | arrays.FloatingArray | arrays.BooleanArray):
        parts = (array.isna(), array.to_numpy(dtype=array.dtype.numpy_dtype, na_value=0))
    elif isinstance(array, arrays.NumpyExtensionArray):
        parts = (array.to_numpy(),)
    else:
        parts = (array.to_numpy(dtype=object),)
    return joined(b"V", [token(type(array)), text_token(repr(array.dtype)), *map(token, parts)])
