"""Pickles of plain values, loaded without running any code that they name, and written as Python writes them."""

import datetime
import decimal
import io
import pickle
from collections.abc import Iterable
from itertools import chain
from pprint import pformat
from typing import Any, Final

from pgresults.errors import PgResultsError

_MOST_BYTES = 8 * 1024 * 1024
_MOST_SHOWN = 32 * 1024 * 1024
_LINED_UP = 320_000
_A_PART = 16
"""Characters that a part counts for at least, so that there is an end of going through the parts."""

# Only types whose making does nothing but hold what it is given: nothing large from little, nothing that takes long.
_PLAIN: Final[dict[tuple[str, str], type]] = {
    ("builtins", "complex"): complex,
    ("datetime", "date"): datetime.date,
    ("datetime", "datetime"): datetime.datetime,
    ("datetime", "time"): datetime.time,
    ("datetime", "timedelta"): datetime.timedelta,
    ("datetime", "timezone"): datetime.timezone,
    ("decimal", "Decimal"): decimal.Decimal,
}


class NotPlain(PgResultsError):  # noqa: N818 (an answer)
    """A pickle of something else than plain values, or of too much."""


class _Loader(pickle._Unpickler):
    """The unpickler in Python: the one in C takes memory for whatever place a pickle names in its memo."""

    def find_class(self, module: str, name: str) -> type:
        try:
            return _PLAIN[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} is not loaded here") from None

    def get_extension(self, code: int) -> None:
        raise pickle.UnpicklingError(f"the extension {code} is not loaded here")


def plain_value(payload: bytes) -> Any:
    """The object of a pickle of dicts, lists, tuples, sets, numbers, texts, bytes, times and None.

    Raises: NotPlain for any other, before anything that it names is imported.
    """
    if len(payload) > _MOST_BYTES:
        raise NotPlain("too large to be looked into")
    try:
        return _Loader(io.BytesIO(payload)).load()
    except Exception as error:  # whatever damaged bytes may cause: it is not shown
        raise NotPlain(f"no plain value: {error}") from error


def written(value: Any) -> str:
    """A plain value as Python writes it.

    Raises: NotPlain for one that is much larger written than stored.
    """
    extent = _extent(value)
    try:
        if extent > _LINED_UP or isinstance(value, str | bytes):
            return repr(value)
        return pformat(value, sort_dicts=False)
    except (ValueError, RecursionError) as error:  # numbers too large, or nested too deep, to be written
        raise NotPlain(f"no plain value: {error}") from error


def _extent(value: Any) -> int:
    """How many parts and characters there are to write, as often as each is there: it may be in itself."""
    extent, left = 0, [value]
    while left:
        one = left.pop()
        extent += _A_PART + (len(one) if isinstance(one, str | bytes | dict | list | tuple | set | frozenset) else 0)
        if extent > _MOST_SHOWN:
            raise NotPlain("too large to be written")
        left += _parts(one)
    return extent


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return chain(value, value.values())
    return value if isinstance(value, list | tuple | set | frozenset) else ()
