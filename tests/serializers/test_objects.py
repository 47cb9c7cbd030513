"""Objects to payloads and back: what comes back as it was, and what is refused at writing."""

import math
import subprocess
from collections import defaultdict, deque, namedtuple
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag, IntEnum, StrEnum
from ipaddress import ip_address, ip_network
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Generic, NamedTuple, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, RootModel, SecretStr, computed_field

from pgresults.errors import LockedError
from pgresults.serializers import JSONSerializer, Serializer
from tests.support.serialized import BUILT_IN, NOW, Inner

T = TypeVar("T")


class Model(BaseModel):
    model_config = ConfigDict(extra="allow")

    inner: Inner
    anything: Any = None
    renamed: int = Field(default=1, alias="other")
    never_checked: int = None  # type: ignore[assignment]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def doubled(self) -> int:
        return 2 * self.renamed


class Box(BaseModel, Generic[T]):
    content: T


class Names(RootModel[list[str]]):
    pass


class Holder(BaseModel):
    secret: SecretStr


@dataclass(frozen=True, slots=True)
class Point:
    x: int
    tags: frozenset[str] = frozenset()
    label: str = None  # type: ignore[assignment]  # wrong on purpose: annotations of dataclasses are not enforced
    norm: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "norm", math.fabs(self.x))


class Colour(Enum):
    RED = (255, 0, 0)


class Level(IntEnum):
    LOW = 1


class Word(StrEnum):
    YES = "yes"


class Bits(Flag):
    A = 1
    B = 2


class Pair(NamedTuple):
    left: int
    right: set[int]


Loose = namedtuple("Loose", "a b")


class CodeError(RuntimeError):
    def __init__(self, code: int) -> None:
        super().__init__(f"failed with {code}")
        self.code = code


WITH_JSON = [serializer for serializer in BUILT_IN if "json" in serializer.model_dump_json()]
# What every serializer must give back, of the same type and equal.
offsets = st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(
    lambda delta: timezone(timedelta(minutes=delta // timedelta(minutes=1)))
)
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(st.characters(codec="utf-8")),
    st.binary(),
    st.decimals(allow_nan=False),
    st.uuids(),
    st.dates(),
    st.datetimes(timezones=st.none() | offsets | st.timezones()),
    st.times(timezones=st.none() | offsets | st.just(ZoneInfo("Europe/Berlin"))),
    st.timedeltas(),
    st.complex_numbers(allow_nan=False),
    st.ip_addresses(),
    st.text("abc./").map(PurePosixPath),
    st.sampled_from([Colour.RED, Level.LOW, Word.YES, Bits.A | Bits.B, Path("a/b"), PureWindowsPath("c:/x")]),
    st.builds(Point, st.integers(), st.frozensets(st.text(max_size=3), max_size=2)),
)
keys = st.one_of(st.text(max_size=4), st.integers(), st.dates(), st.sampled_from(["__class__", "__exc_type__", "data"]))
objects = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(keys, inner, max_size=4),
        st.lists(inner, max_size=3).map(deque),
        st.builds(Inner, when=st.datetimes(timezones=offsets), raw=st.binary()),
        st.builds(Box, content=inner),
        st.builds(Pair, st.integers(), st.sets(st.integers(), max_size=3)),
    ),
    max_leaves=8,
)


def assert_same(read: Any, written: Any) -> None:
    assert type(read) is type(written)
    assert read == written
    if isinstance(written, datetime | time):
        assert (read.replace(tzinfo=None), read.fold) == (written.replace(tzinfo=None), written.fold)
        assert read.utcoffset() == written.utcoffset()
    if isinstance(written, list | tuple | deque):
        for mine, theirs in zip(read, written, strict=True):
            assert_same(mine, theirs)
    if isinstance(written, dict):
        for (k1, v1), (k2, v2) in zip(read.items(), written.items(), strict=True):
            assert_same(k1, k2)
            assert_same(v1, v2)


@pytest.mark.parametrize("serializer", [s for s in BUILT_IN if "sort_keys" not in s.model_dump_json()], ids=str)
@given(obj=objects)
def test_every_object_comes_back(serializer: Serializer, obj: Any) -> None:
    payload = serializer.dumps(obj)
    assert type(payload) is bytes
    assert_same(serializer.loads(payload), obj)


@pytest.mark.parametrize("serializer", BUILT_IN, ids=str)
@given(obj=objects)
def test_payloads_pass_through_the_text_of_documents(serializer: Serializer, obj: Any) -> None:
    payload = serializer.dumps(obj)
    text = serializer._to_text(payload)
    assert serializer.loads(serializer._from_text(text)) == obj
    assert serializer.loads(text.encode()) == obj, "the text taken for a payload, as Prefect stores it"
    assert serializer._to_text(serializer._from_text(text)) == text


@pytest.mark.parametrize("serializer", WITH_JSON, ids=str)
@pytest.mark.parametrize(
    "obj",
    [
        {1, 2},
        frozenset([("a", 1)]),
        {"nested": ({1: {date(2026, 1, 1)}},)},
        [Level.LOW, Word.YES],
        Loose(1, (2,)),
        ip_network("10.0.0.0/8"),
        ip_address("::1"),
        datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1),
        Decimal("1.10"),
        UUID(int=7),
        b"\xff\x00not text",
        Names(["a"]),
        Box[int](content=3),
        Point(3, label=None),  # type: ignore[arg-type]
        Model(inner=Inner(when=NOW), anything={(1, 2)}, other=5, further={"__class__": "x"}),
        Model(inner=Inner(when=NOW)),
        {"__class__": "os.system", "data": "id"},
        {"__exc_type__": "x", "message": "y"},
        {None: 1, True: 2, 1.5: 3},
        "\ud800",
        [float("inf"), -0.0],
    ],
    ids=repr,
)
def test_json_keeps_what_json_lacks(serializer: Serializer, obj: Any) -> None:
    read = serializer.loads(serializer.dumps(obj))
    assert read == obj
    assert type(read) is type(obj)


@pytest.mark.parametrize(
    "exc",
    [
        ValueError("a", 1, {2}),
        KeyError("k"),
        FileNotFoundError(2, "gone", "/x"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "why"),
        StopIteration(5),
        CodeError(3),
        LockedError("busy", key="k", holder="h", since=NOW),
        ExceptionGroup("two", [ValueError(1), KeyError(2)]),
        subprocess.CalledProcessError(1, ["ls"], b"out"),
        KeyboardInterrupt(),
    ],
    ids=repr,
)
def test_json_keeps_exceptions(exc: BaseException) -> None:
    exc.add_note("seen")
    read = JSONSerializer().loads(JSONSerializer().dumps(exc))
    assert type(read) is type(exc)
    assert (str(read), repr(read.args)) == (str(exc), repr(exc.args))
    assert repr(vars(read)) == repr(vars(exc))
    assert getattr(read, "filename", None) == getattr(exc, "filename", None)


@pytest.mark.parametrize(
    "obj",
    [object(), range(3), int, Holder(secret="x"), defaultdict(int, a=1), [{"deep": lambda: 0}]],
    ids=lambda obj: type(obj).__name__,
)
def test_json_refuses_at_writing_what_could_not_be_read(obj: Any) -> None:
    with pytest.raises(TypeError):
        JSONSerializer().dumps(obj)


def test_json_refuses_a_class_that_no_reader_finds() -> None:
    class Local(BaseModel):
        x: int

    with pytest.raises(TypeError, match="top of a module"):
        JSONSerializer().dumps(Local(x=1))
