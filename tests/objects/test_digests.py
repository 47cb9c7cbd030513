"""Digests of values: what counts, and what does not."""

import array
import datetime as dt
import enum
import functools
import operator
import re
import sys
import threading
import uuid
import zoneinfo
from collections import Counter, OrderedDict, UserDict, defaultdict, deque, namedtuple
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath
from types import MappingProxyType, ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import attrs
import pytest
from pydantic import BaseModel, ConfigDict, PrivateAttr, RootModel

from pgresults.errors import SerializationError
from pgresults.objects.digests import stable_digest


def digest(value: Any) -> str:
    return stable_digest(value, "it")


class Color(enum.Enum):
    RED = 1
    MISSING = object()


class Size(enum.IntEnum):
    RED = 1


class Right(enum.Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: int
    y: int


Other = namedtuple("Other", "x y")


@dataclass
class Row:
    number: int
    note: str = field(default="", compare=False)

    @functools.cached_property
    def square(self) -> int:
        return self.number**2


@dataclass(frozen=True, slots=True)
class Slotted:
    number: int


@attrs.frozen
class Attrs:
    number: int


class Model(BaseModel):
    model_config = ConfigDict(extra="allow")

    number: int = 1
    _secret: int = PrivateAttr(default=0)

    def telling(self, secret: int) -> "Model":
        self._secret = secret
        return self


class Plain:
    def __init__(self, number: Any) -> None:
        self.number = number

    def method(self) -> int:
        return int(self.number)


class Text(str):
    __slots__ = ()


class Bag(set[int]):
    pass


def function() -> None:
    pass


def closed(number: Any) -> Callable[[], Any]:
    return lambda: number


def local_class(number: int) -> Any:
    class Local:
        kept = number

    return Local


def ring(*numbers: int) -> list[Any]:
    values: list[Any] = list(numbers)
    values.append(values)
    return values


DIFFERENT: list[Any] = [
    *(None, True, False, 0, 1, -1, 2**80, 1.0, 0.0, -0.0, float("nan"), float("inf"), 1j, 1 + 0j, ..., NotImplemented),
    *("", "1", "a", "ab", "a" * 100, "\ud800", b"", b"1", bytearray(b"1"), memoryview(b"1"), Text("a")),
    *([], [1], [1, 2], [2, 1], [[1], 2], [[1, 2]], [1, [2]], (), (1, 2), ("ab",), ("a", "b"), Point(1, 2), Other(1, 2)),
    *({}, {"a": 1}, {"a": 2}, {1: 1}, {"1": 1}, {"a": 1, "b": 2}, {"a": 2, "b": 1}, MappingProxyType({"a": 1})),
    *(defaultdict(int, a=1), defaultdict(list, a=1), Counter(a=1), UserDict(a=1), {"a": 1}.keys(), {"a": 1}.items()),
    *(OrderedDict(a=1, b=2), OrderedDict(b=2, a=1), SimpleNamespace(a=1), {"a": 1}.values()),
    *(set(), {1}, {1, 2}, frozenset(), frozenset({1}), Bag({1}), {frozenset({1}), frozenset({2})}),
    *(deque([1]), deque([1], maxlen=2), deque([1], maxlen=3), range(3), range(0, 6, 2), slice(1), slice(1, 2)),
    *(dt.date(2030, 1, 1), dt.datetime(2030, 1, 1), dt.datetime(2030, 1, 1, fold=1), dt.time(1), dt.timedelta(1)),
    *(dt.datetime(2030, 1, 1, tzinfo=dt.UTC), dt.datetime(2030, 1, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Rome"))),
    *(Decimal(1), Decimal("1.5"), Decimal("NaN"), Fraction(1, 2), uuid.UUID(int=1), Path("a"), PurePosixPath("a")),
    *(Color.RED, Color.MISSING, Size.RED, Right.READ, Right.READ | Right.WRITE, Right(0)),
    *(re.compile("a"), re.compile("a", re.IGNORECASE), re.compile(b"a"), array.array("i", [1]), array.array("l", [1])),
    *(Row(1), Row(2), Row(1, "note"), Slotted(1), Attrs(1), Plain(1), Plain(2), Plain([1])),
    *(Model(), Model(number=2), Model(more=1), Model().telling(2), RootModel[int](1), RootModel[float](1.0)),
    *(ValueError(), ValueError(1), KeyError(1), OSError(2, "no"), OSError(2, "no", "file")),
    *(
        function,
        closed,
        closed(1),
        closed(2),
        closed(function),
        lambda: 1,
        lambda: 2,
        len,
        sorted,
        str.upper,
        int.__add__,
    ),
    *(Plain.method, Plain(1).method, Plain(2).method, [1].append, [2].append, (1).__add__, dict.fromkeys),
    *(
        functools.partial(function),
        functools.partial(function, 1),
        functools.partial(function, x=1),
        operator.itemgetter(1),
    ),
    *(
        int,
        str,
        Color,
        Row,
        Model,
        Plain,
        local_class(1),
        local_class(2),
        list[int],
        list[str],
        int | str,
        type(None),
        type,
    ),
    *(re, enum, ring(1), ring(2), ring(1, 2), [ring(1)], Row.square, property(function), staticmethod(function)),
]


def test_unlike_values_have_unlike_digests() -> None:
    found: dict[str, Any] = {}
    for value in DIFFERENT:
        assert digest(value) not in found, (value, found[digest(value)])
        assert digest([value]) not in found, value  # nor is what holds it another one of them
        found[digest(value)] = value
    assert len(found) == len(DIFFERENT)


def with_attribute(value: Any, **attributes: Any) -> Any:
    for name, attribute in attributes.items():
        setattr(value, name, attribute)
    return value


def failed(cause: BaseException | None) -> BaseException:
    try:
        raise ValueError(1) from cause
    except ValueError as error:
        return error


def with_square(row: Row) -> Row:
    assert row.square
    return row


ALIKE: list[tuple[Any, Any]] = [
    ({8, 16}, {16, 8}),
    ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    ({1: "x", "1": "y", None: "z"}, {None: "z", "1": "y", 1: "x"}),
    (float("nan"), float("inf") - float("inf")),
    ("a" * 1000, "".join(["a"] * 1000)),
    (Row(2), with_square(Row(2))),
    (Model(), Model(number=1)),
    (Model(a=1, b=2), Model(b=2, a=1)),
    (closed(1), closed(1)),
    (local_class(1), local_class(1)),
    (local_class(1)(), local_class(1)()),
    (Plain({"b", "a"}), Plain({"a", "b"})),
    (with_attribute(Plain(1), x=1, y=2), with_attribute(Plain(1), y=2, x=1)),
    (failed(None), ValueError(1)),
    (uuid.UUID(int=1, is_safe=uuid.SafeUUID.safe), uuid.UUID(int=1)),
    (ring(1), ring(1)),
    (Counter("ab"), Counter("ba")),
    (iter([1, 2]), iter([1, 2])),
]


@pytest.mark.parametrize(("one", "other"), ALIKE, ids=lambda value: type(value).__name__)
def test_like_values_have_like_digests(one: Any, other: Any) -> None:
    assert digest(one) == digest(other)
    assert digest([one, other]) == digest([other, one])
    assert digest([one, one]) == digest([one, other])  # to be one object means nothing


def test_what_a_value_holds_counts() -> None:
    assert digest(with_attribute(Row(1), more=1)) != digest(Row(1))
    assert digest(failed(KeyError(1))) != digest(failed(KeyError(2))) != digest(failed(None))
    assert digest(with_attribute(Bag({1}), more=1)) != digest(Bag({1}))
    noted = ValueError(1)
    noted.add_note("a")
    assert digest(noted) != digest(ValueError(1))


def test_rings_are_told_by_their_shape() -> None:
    one: list[Any] = [1]
    two: list[Any] = [1, one]
    one.append(two)
    assert digest(one) == digest(two)
    parent = Plain(None)
    parent.children = [with_attribute(Plain(number), parent=parent) for number in (1, 2)]  # type: ignore[attr-defined]
    child = parent.children[0]  # type: ignore[attr-defined]
    assert digest([parent, child, parent]) == digest([parent, child, parent])
    assert digest(child) != digest(parent)


def test_what_is_shared_again_and_again_takes_no_longer() -> None:
    shared: Any = [1]
    in_ring: Any = ring(1)
    for _ in range(60):
        shared = [shared, shared]
        in_ring = [in_ring, in_ring]
        in_ring[1].append(in_ring)
    assert digest(shared)
    assert digest(in_ring)


@pytest.mark.parametrize(
    "value",
    [
        threading.Lock(),
        object(),
        (x for x in ()),
        sys.__stderr__,
        Plain(threading.Lock()),
        {1: [object()]},
        ModuleType("made"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_another_one_in_every_process_is_refused(value: Any) -> None:
    with pytest.raises(SerializationError, match=r"the input 'x', of type .* has no digest .* Leave it out") as caught:
        stable_digest(value, "the input 'x'", "Leave it out")
    assert caught.value.result_type is not None


class Broken:
    def __getstate__(self) -> Any:
        raise LookupError("no state")


class Curious:
    def __getattr__(self, name: str) -> Any:
        return "nothing" if name == "__qualname__" else self

    def __reduce__(self) -> Any:
        return Curious, ()


def test_what_the_code_of_a_value_raises_is_told() -> None:
    with pytest.raises(SerializationError, match="LookupError: no state"):
        digest({"a": Broken()})
    assert digest(Curious()) == digest(Curious())


def test_what_is_nested_too_deeply_is_refused() -> None:
    value: Any = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(SerializationError, match="too deeply"):
        digest(value)


@pytest.mark.parametrize(
    ("base", "arguments"),
    [
        *((base, (2020, 1, 1)) for base in (dt.date, dt.datetime)),
        *((base, (1,)) for base in (dt.timedelta, Decimal, Fraction, int, float, bytes, tuple[int, ...])),
        *((base, ("a",)) for base in (PurePosixPath, str, list, set, frozenset, deque)),
        *((base, ()) for base in (Counter, dict, defaultdict, OrderedDict, dt.time, Exception, UserDict, bytearray)),
    ],
)
def test_what_is_set_on_an_instance_counts(base: Any, arguments: tuple[Any, ...]) -> None:
    class Own(base):  # type: ignore[misc]
        pass

    def labelled(label: str) -> Any:
        one = Own(arguments) if Own.__mro__[1] is tuple else Own(*arguments)
        one.label = label
        return one

    assert digest(labelled("a")) == digest(labelled("a")) != digest(labelled("b"))


def test_the_value_of_an_enum_counts_that_its_name_does_not_tell() -> None:
    def member(value: Any) -> enum.Enum:
        class Local(enum.Enum):
            A = value

        return Local.A

    values = [(1,), (2,), dt.date(2020, 1, 1), dt.date(2021, 1, 1), 1, "1"]
    assert len({digest(member(value)) for value in values}) == len(values)
    assert digest(member((1,))) == digest(member((1,)))
