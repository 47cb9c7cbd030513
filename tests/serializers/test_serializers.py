"""Objects to payloads and back; what configuration and payloads may not do."""

import base64
import bz2
import copy
import json
import lzma
import math
import pickle
import subprocess
import sys
from collections import defaultdict, deque, namedtuple
from dataclasses import InitVar, dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag, IntEnum, StrEnum
from ipaddress import ip_address, ip_network
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Generic, NamedTuple, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import cloudpickle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, RootModel, SecretStr, ValidationError, computed_field

from pgresults.errors import LockedError
from pgresults.serializers import (
    CompressedJSONSerializer,
    CompressedPickleSerializer,
    CompressedSerializer,
    JSONSerializer,
    PickleSerializer,
    Serializer,
    json_object_decoder,
    json_object_encoder,
)

T = TypeVar("T")


NOW = datetime(2026, 3, 1, 12, 30, 0, 5, tzinfo=UTC)


class Inner(BaseModel):
    when: datetime
    raw: bytes = b""


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


@dataclass
class NeedsMore:
    factor: InitVar[int]
    value: int = 0


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


class Unbuildable(Exception):  # noqa: N818
    def __new__(cls) -> "Unbuildable":
        return super().__new__(cls)

    def __init__(self) -> None:
        super().__init__("an argument that its constructor does not take")


class Reversed(Serializer):
    """A serializer of a user's own."""

    type: str = "reversed"
    separator: str = ","

    def dumps(self, obj: Any) -> bytes:
        return self.separator.join(reversed(obj)).encode()

    def loads(self, blob: bytes) -> Any:
        return blob.decode().split(self.separator)[::-1]


BUILT_IN = [
    PickleSerializer(),
    PickleSerializer(picklelib="pickle"),
    JSONSerializer(),
    CompressedSerializer(serializer="pickle", compressionlib="zlib"),
    CompressedSerializer(serializer=JSONSerializer(dumps_kwargs={"sort_keys": True}), compressionlib="bz2"),
    CompressedPickleSerializer(),
    CompressedJSONSerializer(),
]
WITH_JSON = [serializer for serializer in BUILT_IN if "json" in serializer.model_dump_json()]
each_serializer = pytest.mark.parametrize("serializer", BUILT_IN, ids=str)

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
    text = serializer.to_text(payload)
    assert serializer.loads(serializer.from_text(text)) == obj
    assert serializer.loads(text.encode()) == obj, "the text taken for a payload, as Prefect stores it"
    assert serializer.to_text(serializer.from_text(text)) == text


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
    assert type(read) is type(obj) or type(obj) is Box[int]


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
    [object(), range(3), int, Holder(secret="x"), NeedsMore(2), Unbuildable(), [{"deep": lambda: 0}]],
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


def test_json_gives_subclasses_of_its_own_types_as_plain() -> None:
    assert JSONSerializer().loads(JSONSerializer().dumps(defaultdict(int, a=1))) == {"a": 1}


@pytest.mark.parametrize(
    "payload",
    [
        {"__class__": "os.system", "data": "touch {}"},
        {"__class__": "subprocess.Popen", "data": ["touch", "{}"]},
        {"__class__": "builtins.eval", "data": "open('{}', 'w')"},
        {"__class__": "builtins.type", "data": "x"},
        {"__class__": "pathlib.Path.touch", "data": "{}"},
        {"__class__": "logging.FileHandler", "data": "{}"},
        {"__class__": "builtins.open", "data": "{}", "exact": True},
        {"__exc_type__": "logging.FileHandler", "message": "{}"},
        {"__exc_type__": "os.system", "message": "touch {}"},
        {"__exc_type__": "no.such.module", "message": ""},
        {"__class__": "no_such_module", "data": ""},
        {"__class__": "", "data": ""},
        {"__class__": "..", "data": ""},
    ],
    ids=str,
)
def test_json_payload_cannot_call_what_it_names(tmp_path: Path, payload: dict[str, Any]) -> None:
    blob = json.dumps(payload).replace("{}", str(tmp_path / "proof")).encode()
    with pytest.raises((TypeError, ValueError), match="payload names"):
        JSONSerializer().loads(blob)
    assert not (tmp_path / "proof").exists()


def test_json_payload_cannot_run_a_script_by_naming_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    script = tmp_path / "drop_everything.py"
    script.write_text(f"open({str(tmp_path / 'proof')!r}, 'w').close()\n")
    (tmp_path / "broken_module.py").write_text("class X(:\n")
    for path in ("drop_everything.X", "broken_module.X", "antigravity.fly", "drop_everything.X.Y"):
        with pytest.raises(ValueError, match="not found here"):
            JSONSerializer().loads(json.dumps({"__class__": path, "data": {}}).encode())
    assert not (tmp_path / "proof").exists()
    assert "antigravity" not in sys.modules


def test_json_imports_the_module_of_a_stored_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    package = tmp_path / "never_loaded"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "shop.py").write_text(
        "from pydantic import BaseModel\nclass Shop:\n    class Order(BaseModel):\n        n: int\n"
    )
    payload = b'{"__class__": "never_loaded.shop.Shop.Order", "data": {"n": 3}}'
    order = JSONSerializer().loads(payload)
    assert (type(order).__qualname__, order.n) == ("Shop.Order", 3)


def test_json_runs_the_validation_of_models() -> None:
    payload = JSONSerializer().dumps(Inner(when=NOW)).replace(b"datetime.datetime", b"datetime.time")
    with pytest.raises(ValueError, match=r"."):
        JSONSerializer().loads(payload)


def test_json_without_hooks_is_plain_json() -> None:
    plain = JSONSerializer(object_encoder=None, object_decoder=None)
    assert plain.loads(plain.dumps((1, 2))) == [1, 2]
    assert plain.loads(b'{"__class__": "x", "data": 1}') == {"__class__": "x", "data": 1}
    with pytest.raises(TypeError):
        plain.dumps({1})


def test_json_takes_hooks_of_the_users_own() -> None:
    own = JSONSerializer(object_encoder=f"{__name__}.encode_set", object_decoder=f"{__name__}.decode_set")
    assert own.loads(own.dumps({"a": {1, 2}})) == {"a": {1, 2}}


def encode_set(obj: Any) -> Any:
    return {"items": sorted(obj)} if isinstance(obj, set) else json_object_encoder(obj)


def decode_set(value: dict[str, Any]) -> Any:
    return set(value["items"]) if value.keys() == {"items"} else json_object_decoder(value)


def test_json_passes_kwargs_on() -> None:
    assert JSONSerializer(dumps_kwargs={"indent": 1}).dumps([1]) == b"[\n 1\n]"
    with pytest.raises(TypeError, match="nonsense"):
        JSONSerializer(loads_kwargs={"nonsense": 1}).loads(b"1")


@given(st.one_of(st.binary(), st.text(), st.integers(), st.floats(), st.booleans(), st.none()))
def test_plain_values_are_pickled_as_cloudpickle_does(obj: Any) -> None:
    assert PickleSerializer().dumps(obj) == cloudpickle.dumps(obj)


def test_payloads_are_raw() -> None:
    content = bytes(range(256)) * 40
    payload = PickleSerializer().dumps(content)
    assert payload.startswith(b"\x80")
    assert content in payload
    assert lzma.decompress(CompressedPickleSerializer().dumps(content)) == payload


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@given(obj=st.one_of(st.none(), st.integers(), st.text(), st.lists(st.binary())))
def test_pickles_load_raw_and_in_base64(protocol: int, obj: Any) -> None:
    blob = pickle.dumps(obj, protocol=protocol)
    assert PickleSerializer().loads(blob) == obj
    assert PickleSerializer().loads(base64.encodebytes(blob)) == obj
    assert PickleSerializer().loads(base64.b64encode(blob)) == obj


@given(obj=st.one_of(st.none(), st.integers(), st.text(), st.lists(st.binary())))
def test_compressed_payloads_load_with_base64_within_base64(obj: Any) -> None:
    inner = base64.encodebytes(pickle.dumps(obj))
    outer = base64.encodebytes(bz2.compress(inner))
    assert CompressedSerializer(serializer="pickle", compressionlib="bz2").loads(outer) == obj


@pytest.mark.parametrize(
    ("name", "cls"),
    [
        ("pickle", PickleSerializer),
        ("json", JSONSerializer),
        ("compressed/pickle", CompressedPickleSerializer),
        ("compressed/json", CompressedJSONSerializer),
        ("reversed", Reversed),
    ],
)
def test_type_gives_the_subclass(name: str, cls: type[Serializer]) -> None:
    for serializer in (
        Serializer(type=name),
        Serializer.model_validate({"type": name}),
        Serializer.model_validate(name),
        Serializer.model_validate_json(json.dumps({"type": name})),
        cls(),  # type: ignore[call-arg]
    ):
        assert type(serializer) is cls
        assert serializer == cls()  # type: ignore[call-arg]


@each_serializer
def test_serializers_survive_json_pickle_and_copy(serializer: Serializer) -> None:
    assert Serializer.model_validate_json(serializer.model_dump_json()) == serializer
    for again in (pickle.loads(pickle.dumps(serializer)), copy.deepcopy(serializer)):
        assert again == serializer
        assert hash(again) == hash(serializer)
    assert len({hash(other) for other in BUILT_IN}) == len(BUILT_IN)


def test_serializers_differ_by_their_fields() -> None:
    assert PickleSerializer() != PickleSerializer(picklelib="pickle")
    assert PickleSerializer() != JSONSerializer()
    with pytest.raises(ValidationError, match="frozen"):
        PickleSerializer().picklelib = "pickle"  # type: ignore[misc]


@pytest.mark.parametrize("name", ["nonsense", None, 3, ["json"], ""])
def test_unknown_types_are_refused_with_the_known_ones(name: Any) -> None:
    known = "the known types are compressed, compressed/json, compressed/pickle, json, pickle, reversed"
    for make in (lambda: Serializer(type=name), lambda: Serializer.model_validate({"type": name})):
        with pytest.raises(ValidationError, match=known):
            make()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Serializer(), "unknown serializer type None"),
        (lambda: PickleSerializer(type="json"), "has the type 'pickle', not 'json'"),
        (lambda: PickleSerializer(nonsense=1), "nonsense"),
        (lambda: Serializer(type="json", picklelib="pickle"), "picklelib"),
        (lambda: PickleSerializer(picklelib="no_such_lib"), "'no_such_lib' cannot be imported"),
        (lambda: PickleSerializer(picklelib="math"), "no function dumps and no function loads"),
        (lambda: PickleSerializer(picklelib=""), "picklelib"),
        (lambda: JSONSerializer(jsonlib="math"), "no function dumps"),
        (lambda: JSONSerializer(object_encoder="no.such.function"), "cannot be imported"),
        (lambda: JSONSerializer(object_decoder="math.pi"), "not a function"),
        (lambda: JSONSerializer(dumps_kwargs={"default": "x"}), "name the function in 'object_encoder'"),
        (lambda: JSONSerializer(loads_kwargs={"object_hook": "x"}), "name the function in 'object_decoder'"),
        (lambda: JSONSerializer(loads_kwargs={"parse_float": Decimal}), "parse_float"),
        (lambda: CompressedSerializer(), "serializer"),
        (lambda: CompressedSerializer(serializer="nonsense"), "known types"),
        (lambda: CompressedSerializer(serializer="json", compressionlib="math"), "no function compress"),
    ],
)
def test_bad_configuration_is_refused(make: Any, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        make()


def test_a_type_cannot_be_taken_twice() -> None:
    with pytest.raises(TypeError, match=r"'pickle' is taken by .*PickleSerializer"):

        class Hijack(Serializer):
            type: str = "pickle"

    assert type(Serializer(type="pickle")) is PickleSerializer


def test_a_subclass_without_a_type_of_its_own_leaves_the_registry_alone() -> None:
    class Louder(PickleSerializer):
        pass

    assert Louder().type == "pickle"
    assert type(Serializer(type="pickle")) is PickleSerializer


def test_prefects_names_for_the_hooks_mean_ours() -> None:
    theirs = Serializer.model_validate(
        {
            "type": "json",
            "object_encoder": "prefect.serializers.prefect_json_object_encoder",
            "object_decoder": "prefect.serializers.prefect_json_object_decoder",
        }
    )
    assert theirs == JSONSerializer()
