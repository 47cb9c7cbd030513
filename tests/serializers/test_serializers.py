"""Serializers: found by their type, compared by their fields, and refused where they are of no use."""

import copy
import json
import pickle
from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from pgresults.serializers import (
    CompressedJSONSerializer,
    CompressedPickleSerializer,
    CompressedSerializer,
    JSONSerializer,
    PickleSerializer,
    Serializer,
)
from tests.support.serialized import BUILT_IN, each_serializer


class Reversed(Serializer):
    """A serializer of a user's own."""

    type: str = "reversed"
    separator: str = ","

    def dumps(self, obj: Any) -> bytes:
        return self.separator.join(reversed(obj)).encode()

    def loads(self, blob: bytes) -> Any:
        return blob.decode().split(self.separator)[::-1]


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
    known = (
        "the known types are arrow, bytes, compressed, compressed/json, compressed/pickle, json, npy, pickle, reversed"
    )
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
