"""Equal values have equal digests in processes of unlike hash seeds, and unequal ones unequal digests."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support import shapes
from tests.support.shapes import Spec, canonical

Tell = Callable[[int, bool, Spec], str]


@pytest.fixture(scope="module")
def tell() -> Iterator[Tell]:
    """Asks one of two processes for the digest of what it builds."""
    peers = [
        subprocess.Popen(
            [sys.executable, shapes.__file__],
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "2")
    ]

    def tell(peer: int, turned: bool, spec: Spec) -> str:
        streams = peers[peer]
        assert streams.stdin is not None
        assert streams.stdout is not None
        streams.stdin.write(json.dumps([turned, spec]) + "\n")
        streams.stdin.flush()
        return streams.stdout.readline()

    yield tell
    for peer in peers:
        with peer:
            peer.communicate("")


def spec(kind: str, *parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Spec]:
    return st.tuples(st.just(kind), *parts).map(list)


SMALL = st.integers(-3, 3)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=3)
WHOLE = st.integers(-(2**70), 2**70) | SMALL


@st.composite
def hashables(draw: st.DrawFn) -> Spec:
    return draw(_HASHABLE)


@st.composite
def values(draw: st.DrawFn) -> Spec:
    return draw(_VALUES)


@st.composite
def leaves(draw: st.DrawFn) -> Spec:
    return draw(_LEAVES)


HASHABLE, LEAVES, VALUES = (
    hashables(),
    leaves(),
    values(),
)  # by name: what they are made of fills pages

_HASHABLE = st.recursive(  # no two of which are equal to Python without being the same
    spec("none")
    | spec("int", st.integers(2, 5))
    | spec("str", TEXTS)
    | spec("bytes", st.binary(max_size=2).map(bytes.hex))
    | spec("date", SMALL)
    | spec("color", st.sampled_from(["RED", "GREEN"])),
    lambda inner: spec("tuple", st.lists(inner, max_size=3)) | spec("frozen", inner),
    max_leaves=4,
)

_LEAVES = (
    HASHABLE
    | spec("set", st.lists(HASHABLE, max_size=5))
    | spec("frozenset", st.lists(HASHABLE, max_size=5))
    | spec("bool", st.booleans())
    | spec("int", WHOLE)
    | spec("float", (st.floats() | SMALL.map(float)).map(float.hex))
    | spec("decimal", st.sampled_from(["0", "1", "-1", "1.5", "NaN", "1E+3"]))
    | spec("datetime", SMALL, SMALL)
    | spec("uuid", st.integers(0, 3))
    | spec("right", st.integers(0, 7))
    | spec("timestamp", SMALL)
    | spec("timedelta", SMALL)
    | spec("scalar", st.sampled_from(["i4", "i8", "f8"]), SMALL)
    | spec("array", st.sampled_from(["i4", "i8", "f8", "U2", "O"]), st.lists(st.lists(SMALL, min_size=2, max_size=2)))
    | spec("series", st.lists(SMALL, max_size=3), st.sampled_from(["i8", "f8", "Int64"]), st.sampled_from(["a", None]))
    | spec("frame", st.lists(st.tuples(SMALL, TEXTS).map(list), max_size=3), st.sampled_from(["object", "category"]))
)


def pairs(key: st.SearchStrategy[Spec], value: st.SearchStrategy[Spec]) -> st.SearchStrategy[list[list[Spec]]]:
    return st.lists(st.tuples(key, value).map(list), max_size=4, unique_by=lambda pair: json.dumps(canonical(pair[0])))


_VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        spec("list", st.lists(inner, max_size=4))
        | spec("tuple", st.lists(inner, max_size=4))
        | spec("deque", st.lists(inner, max_size=2), st.sampled_from([None, 2, 3]))
        | spec("dict", pairs(HASHABLE, inner))
        | spec("ordered", pairs(HASHABLE, inner))
        | spec("plain", pairs(spec("str", st.sampled_from("abc")), inner))
        | spec("row", inner, inner)
        | spec("model", SMALL, inner, inner)
        | spec("objects", st.lists(inner, max_size=3))
    ),
    max_leaves=8,
)

examples = settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])


@examples
@given(value=VALUES)
@example(["set", [["int", 8], ["int", 16]]])
@example(["list", [["set", [["str", "a"], ["str", "b"], ["str", "c"]]], ["array", "f8", [[1, 2]]]]])
def test_equal_values(tell: Tell, value: Spec) -> None:
    assert tell(0, False, value) == tell(1, True, value)


@st.composite
def neighbours(draw: st.DrawFn) -> tuple[Spec, Spec]:
    """Two values of which one is the other but for a part somewhere inside."""
    one: Spec = draw(VALUES)
    other = json.loads(json.dumps(one))
    place, inside = None, other
    while isinstance(inside, list):
        places = [number for number, part in enumerate(inside) if isinstance(part, list) and part]
        if not places or (place is not None and isinstance(inside[0], str) and draw(st.booleans())):
            break
        outer, place = inside, draw(st.sampled_from(places))
        inside = outer[place]
    if place is None or not isinstance(inside[0], str) or inside[0] not in shapes._MAKERS:
        return one, draw(VALUES)
    outer[place] = draw(HASHABLE)
    return one, other


@examples
@given(both=neighbours() | st.tuples(VALUES, VALUES))
@example((["int", 1], ["bool", True]))
@example((["float", "0x0.0p+0"], ["float", "-0x0.0p+0"]))
def test_unequal_values(tell: Tell, both: tuple[Spec, Spec]) -> None:
    one, other = both
    assert (tell(0, False, one) == tell(1, False, other)) == (canonical(one) == canonical(other))
