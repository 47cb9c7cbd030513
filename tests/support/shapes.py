"""Values built from descriptions, in whichever process and order, and a program that tells their digests."""

import json
import sys
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
from pydantic import BaseModel, PrivateAttr

from pgresults.objects.digests import stable_digest

Spec = list[Any]
"""What to build: a kind and what it is made of, as JSON has it."""


class Color(Enum):
    RED = "red"
    GREEN = "green"


class Right(Flag):
    READ = 1
    WRITE = 2
    RUN = 4


@dataclass
class Row:
    first: Any
    second: Any


@dataclass(frozen=True, slots=True)
class Frozen:
    value: Any


class Plain:
    def __init__(self, attributes: Iterable[tuple[str, Any]]) -> None:
        vars(self).update(attributes)


class Model(BaseModel):
    number: int = 0
    anything: Any = None
    _secret: Any = PrivateAttr(default=None)


def build(spec: Spec, turned: bool) -> Any:
    """Build a value; turned: the other way round wherever the order means nothing."""
    kind, *parts = spec
    return _MAKERS[kind](turned, *parts)


def canonical(spec: Spec) -> Any:
    """What two descriptions of equal values have in common."""
    kind, *parts = spec
    if kind in ("set", "frozenset"):
        return [kind, sorted({json.dumps(canonical(part)) for part in parts[0]})]
    if kind in ("dict", "plain"):
        return [kind, sorted((json.dumps(canonical(key)), canonical(value)) for key, value in parts[0])]
    return [kind, *(_canonical_part(part) for part in parts)]


def _canonical_part(part: Any) -> Any:
    if isinstance(part, list) and part and isinstance(part[0], str) and part[0] in _MAKERS:
        return canonical(part)
    return [_canonical_part(item) for item in part] if isinstance(part, list) else part


def _all(turned: bool, specs: list[Spec]) -> list[Any]:
    return [build(spec, turned) for spec in specs]


def _any_order(turned: bool, items: list[Any]) -> list[Any]:
    return items[::-1] if turned else items


def _pairs(turned: bool, pairs: list[list[Spec]]) -> list[tuple[Any, Any]]:
    return [(build(key, turned), build(value, turned)) for key, value in pairs]


def _model(turned: bool, number: int, anything: Spec, secret: Spec) -> Model:
    given = {"number": number} if number or turned else {}  # a default may be given or not
    model = Model(anything=build(anything, turned), **given)
    model._secret = build(secret, turned)
    return model


def _array(turned: bool, dtype: str, rows: list[list[int]]) -> Any:
    array = np.array(rows, dtype="i8").astype(dtype)
    return np.asfortranarray(array) if turned else array


def _objects(turned: bool, specs: list[Spec]) -> Any:
    array = np.empty(len(specs), dtype=object)
    for place, value in enumerate(_all(turned, specs)):
        array[place] = value
    return array


def _frame(turned: bool, rows: list[tuple[int, str]], texts: str) -> pd.DataFrame:
    numbers = [number for number, _ in rows]
    columns = {"number": numbers, "text": [text for _, text in rows], "double": list(map(float, numbers))}
    if not turned:
        frame = pd.DataFrame(columns)
    else:
        frame = pd.DataFrame(index=pd.RangeIndex(len(rows)))
        for name, values in columns.items():
            frame[name] = values
    return frame.astype({"text": texts, "number": "i8", "double": "f8"})


_MAKERS: dict[str, Callable[..., Any]] = {
    "none": lambda _: None,
    "bool": lambda _, value: value,
    "int": lambda _, value: value,
    "float": lambda _, value: float.fromhex(value),
    "str": lambda _, value: value,
    "bytes": lambda _, value: bytes.fromhex(value),
    "decimal": lambda _, value: Decimal(value),
    "date": lambda _, days: date(2000, 1, 1) + timedelta(days),
    "datetime": lambda _, seconds, hours: (
        datetime(2000, 1, 1, tzinfo=timezone(timedelta(hours=hours))) + timedelta(seconds=seconds)
    ),
    "uuid": lambda _, number: UUID(int=number),
    "color": lambda _, name: Color[name],
    "right": lambda _, number: Right(number),
    "timestamp": lambda _, nanoseconds: pd.Timestamp(nanoseconds),
    "timedelta": lambda _, nanoseconds: pd.Timedelta(nanoseconds),
    "scalar": lambda _, dtype, number: np.dtype(dtype).type(number),
    "list": _all,
    "tuple": lambda turned, specs: tuple(_all(turned, specs)),
    "deque": lambda turned, specs, size: deque(_all(turned, specs), maxlen=size),
    "set": lambda turned, specs: set(_any_order(turned, _all(turned, specs))),
    "frozenset": lambda turned, specs: frozenset(_any_order(turned, _all(turned, specs))),
    "dict": lambda turned, pairs: dict(_any_order(turned, _pairs(turned, pairs))),
    "ordered": lambda turned, pairs: OrderedDict(_pairs(turned, pairs)),
    "plain": lambda turned, pairs: Plain(_any_order(turned, _pairs(turned, pairs))),
    "row": lambda turned, first, second: Row(build(first, turned), build(second, turned)),
    "frozen": lambda turned, value: Frozen(build(value, turned)),
    "model": _model,
    "array": _array,
    "objects": _objects,
    "series": lambda _, numbers, dtype, name: pd.Series(numbers, dtype=dtype, name=name),
    "frame": _frame,
}


def _tell() -> None:
    """Answer each line, which says what to build, with the digest."""
    for line in sys.stdin:
        turned, spec = json.loads(line)
        print(stable_digest(build(spec, turned), "it"), flush=True)  # noqa: T201 (that is what it is for)


if __name__ == "__main__":
    _tell()
