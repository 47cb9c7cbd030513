"""JSON brings back the value that went in, without running its classes' code again, or refuses it at the write."""

import enum
import json
import math
from collections import OrderedDict, deque
from dataclasses import InitVar, dataclass, field
from datetime import UTC, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from functools import cached_property
from typing import Any, Generic, NamedTuple, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    Json,
    PrivateAttr,
    RootModel,
    TypeAdapter,
    computed_field,
    field_validator,
    model_validator,
)

from pgresults import ResultStore
from pgresults.errors import SerializationError
from pgresults.serializers import CompressedSerializer, JSONSerializer
from pgresults.serializers.sameness import require_same

T = TypeVar("T")
runs: list[str] = []


@pytest.fixture(autouse=True)
def _no_runs() -> None:
    runs.clear()


class Percent(BaseModel):
    share: float
    text: str = "x"

    @field_validator("share")
    @classmethod
    def _divide(cls, value: float) -> float:
        runs.append("validator")
        return value / 100

    @model_validator(mode="before")
    @classmethod
    def _upper(cls, data: Any) -> Any:
        runs.append("before")
        return {**data, "text": data.get("text", "") + "!"}

    @model_validator(mode="after")
    def _after(self) -> "Percent":
        runs.append("after")
        return self

    def model_post_init(self, _: Any) -> None:
        runs.append("post")


class Private(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)

    x: int = 1
    _seen: list[int] = PrivateAttr(default_factory=list)

    @computed_field  # type: ignore[prop-decorator]
    @cached_property
    def doubled(self) -> int:
        return 2 * self.x


class Texts(BaseModel):
    numbers: Json[list[int]]
    anything: Json
    renamed: int = Field(default=1, alias="other")
    choices: int = Field(default=2, validation_alias=AliasChoices("one", "two"))


class Swapped(BaseModel):
    a: int = Field(alias="b")
    b: int = Field(alias="a")


class Names(RootModel[list[str]]):
    @field_validator("root")
    @classmethod
    def _sorted(cls, value: list[str]) -> list[str]:
        return sorted(value, reverse=value == sorted(value))


class Box(BaseModel, Generic[T]):
    content: T


class Pairs(BaseModel, Generic[T]):
    of: dict[str, list[T]]


@dataclass
class Counted:
    value: int
    factor: InitVar[int]
    total: int = field(init=False)
    cells: list[int] = field(default_factory=list)

    def __post_init__(self, factor: int) -> None:
        runs.append("post")
        self.total = self.value * factor
        self.hidden = {self.value}
        self.value += 1


@dataclass(frozen=True, slots=True)
class Slotted:
    x: int
    y: int = field(init=False, default=5)

    def __post_init__(self) -> None:
        object.__setattr__(self, "y", self.y + 1)


class Color(enum.Enum):
    RED = 1
    UNKNOWN = 0

    @classmethod
    def _missing_(cls, _: object) -> "Color":
        return cls.UNKNOWN


class Checked(NamedTuple):
    x: int


class CodeError(RuntimeError):
    def __init__(self, *, code: int) -> None:
        super().__init__(f"failed with {code}")
        self.code = code


class Gone(OSError):  # noqa: N818
    def __init__(self, path: str) -> None:
        super().__init__(2, "gone", path)


class Unbuildable(Exception):  # noqa: N818
    def __new__(cls) -> "Unbuildable":
        return super().__new__(cls)

    def __init__(self) -> None:
        super().__init__("an argument that its constructor does not take")


def private(**extra: Any) -> Private:
    """A model with all that models have."""
    made = Private(x=3, **extra)
    made._seen.append(made.doubled)
    return made


def through(value: Any) -> Any:
    """What comes back of a value; the comparison is the one of the write."""
    runs.clear()
    payload = JSONSerializer().dumps(value)
    read = JSONSerializer().loads(payload)
    assert runs == []
    require_same(read, value)
    return read


def test_no_validator_runs_again() -> None:
    half = Percent(share=50, text="a")
    read = through([half, {"deep": (half,)}])[0]
    assert (read, read.share, read.text) == (half, 0.5, "a!")
    assert through(Names(["a", "b"])).root == ["b", "a"]


def test_no_dataclass_is_initialized_again() -> None:
    read = through(Counted(2, 10))
    assert (read.value, read.total, read.hidden, read.cells) == (3, 20, {2}, [])
    assert through(Slotted(1)).y == 6
    assert through({Slotted(1): Slotted(2)}) == {Slotted(1): Slotted(2)}


def test_models_keep_all_that_they_have() -> None:
    read = through(private(more={"a": (1,)}))
    assert (read._seen, read.more, read.doubled, read.model_fields_set) == ([6], {"a": (1,)}, 6, {"x", "more"})
    assert through(Private()).model_fields_set == set()
    assert through(Private.model_construct(_fields_set={"x"}, x="no number")).x == "no number"
    assert through(Private().model_copy(update={"x": 7})).x == 7


def test_fields_that_validation_takes_otherwise_than_it_gives_them() -> None:
    read = through(Texts(numbers="[1]", anything='{"a": null}', other=3, two=4))
    assert (read.numbers, read.anything, read.renamed, read.choices) == ([1], {"a": None}, 3, 4)
    assert through(Swapped(a=1, b=2)) == Swapped(a=1, b=2)


@pytest.mark.parametrize(
    "value",
    [
        Box[int](content=1),
        Box[Box[Color]](content=Box[Color](content=Color.RED)),
        Box[list[dict[str, int | None]]](content=[{"a": None}]),
        Pairs[Slotted](of={"a": [Slotted(1)]}),
        [Box[int](content=1), Box[str](content="1"), Box(content=1)],
    ],
    ids=repr,
)
def test_generic_models_keep_their_parameters(value: Any) -> None:
    assert type(through(value)) is type(value)


def raised() -> CodeError:
    """An exception with a cause and a note."""
    try:
        try:
            raise Gone("/x")
        except OSError as cause:
            raise CodeError(code=3) from cause
    except CodeError as error:
        error.add_note("noted")
        return error


def test_exceptions_keep_their_causes() -> None:
    read = through(raised())
    assert (str(read), read.code, read.args, read.__notes__) == ("failed with 3", 3, ("failed with 3",), ["noted"])
    assert type(read.__cause__) is Gone
    assert (read.__cause__.filename, read.__cause__.errno, str(read.__cause__)) == ("/x", 2, "[Errno 2] gone: '/x'")
    assert read.__suppress_context__
    assert str(through(Unbuildable())) == "an argument that its constructor does not take"
    alone = ValueError(1)
    alone.__suppress_context__ = True
    assert through(alone).__suppress_context__


@pytest.mark.parametrize(
    "value",
    [
        deque([1, 2], maxlen=2),
        deque(maxlen=0),
        TypeAdapter(datetime).validate_python("2026-01-01T00:00:00Z"),
        TypeAdapter(time).validate_python("00:00:00+05:30"),
        datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=1), "CET")),
        complex(-0.0, math.inf),
        [math.nan, -0.0, Decimal("-0"), Decimal("sNaN12")],
        {1: True, "1": 1, (1, 2.0): {1.5, "x", frozenset((1,))}},
        {True: 1},
        Color.RED,
        Checked(1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_was_dropped_in_silence_comes_back(value: Any) -> None:
    through(value)


class Zone(tzinfo):
    """A zone that JSON cannot know."""

    def utcoffset(self, _: datetime | None) -> timedelta:
        return timedelta(hours=1)


class Moment(datetime):
    """More than a date and time."""


class Point(Checked):
    """A named tuple with more than its fields."""


def pointed() -> Point:
    """A named tuple that somebody told more."""
    point = Point(1)
    point.more = threading_lock  # type: ignore[attr-defined]
    return point


def threading_lock() -> None:
    """No value that JSON has a form for."""


@pytest.mark.parametrize(
    "value",
    [
        OrderedDict(a=1),
        Moment(2026, 1, 1),
        datetime(2026, 1, 1, tzinfo=Zone()),
        type("Text", (str,), {})("a"),
        type("Number", (int,), {})(1),
        pointed(),
        bytearray(b"x"),
        Private.model_construct(x=threading_lock),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_would_come_back_as_something_else_is_refused(value: Any, store: ResultStore) -> None:
    text = ResultStore(result_storage=store.result_storage, serializer="json")
    with pytest.raises(SerializationError, match=r'Use the serializer "pickle"') as refused:
        text.write({"deep": [value]}, key="k")
    assert any(name in str(refused.value) for name in (type(value).__name__, "function", "Zone"))
    assert not text.exists("k")


def test_numbers_and_times_of_others_are_refused() -> None:
    pandas, numpy = pytest.importorskip("pandas"), pytest.importorskip("numpy")
    for value in (
        pandas.NaT,
        pandas.Timestamp("2026-01-01 00:00:00.000000001"),
        pandas.Timedelta(1, "ns"),
        numpy.float64(1.5),
        numpy.int64(1),
    ):
        with pytest.raises(TypeError):
            JSONSerializer().dumps([value])


def dumps(obj: Any) -> str:
    """As some JSON libraries do."""
    return json.dumps(obj).replace("NaN", "null")


loads = json.loads


def test_a_library_that_changes_plain_values_is_found_out() -> None:
    own = JSONSerializer(jsonlib=__name__)
    assert own.loads(own.dumps([1.5])) == [1.5]
    with pytest.raises(TypeError, match=r"float would come back as builtins.NoneType"):
        own.dumps([math.nan])
    with pytest.raises(TypeError, match="float"):
        CompressedSerializer(serializer=own).dumps(math.nan)


def changed(value: Any, **changes: Any) -> bytes:
    """The payload of a value, changed."""
    tag = json.loads(JSONSerializer().dumps(value))
    return json.dumps({**tag, **changes}).encode()


def test_classes_that_changed_meanwhile() -> None:
    load = JSONSerializer().loads
    assert load(changed(Private(x=3), data={"x": 4}, exact={})).x == 4
    assert load(changed(Private(x=3), data={}, exact={})).x == 1
    assert load(changed(Counted(1, 1), data={"value": 1}, exact={"values": {"total": 1}})).cells == []
    for value, changes in (
        (Percent(share=1), {"data": {"text": "a"}}),
        (Counted(1, 1), {"data": {"value": 1}, "exact": {}}),
        (Counted(1, 1), {"data": {"value": 1, "gone": 2}}),
        (Checked(1), {"data": [1, 2]}),
        (Color.RED, {"data": 5}),
    ):
        with pytest.raises(ValueError, match=r"lacks|has no field|fields, the stored one has|any more"):
            load(changed(value, **changes))


simple = st.none() | st.integers() | st.text(st.characters(codec="utf-8")) | st.datetimes(timezones=st.just(UTC))
values = st.recursive(
    simple,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3),
        st.builds(Box, content=inner),
        st.builds(lambda content: private(more=content), inner),
        st.builds(lambda content: Box[Any](content=content), inner),
        st.builds(Counted, st.integers(), st.integers()),
        st.builds(lambda items: deque(items, maxlen=2), st.lists(inner, max_size=3)),
        st.builds(Slotted, st.integers()),
    ),
    max_leaves=6,
)


@given(value=values)
def test_every_instance_comes_back(value: Any) -> None:
    payload = JSONSerializer().dumps(value)
    require_same(JSONSerializer().loads(payload), value)
    assert JSONSerializer().dumps(JSONSerializer().loads(payload)) == payload
