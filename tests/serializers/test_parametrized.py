"""What ported code says of serializers: for which objects they are, and options that JSON has no form for."""

from decimal import Decimal
from json import JSONEncoder
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from pgresults import ResultStore
from pgresults.serializers import CompressedSerializer, JSONSerializer, PickleSerializer, Serializer


class Words(Serializer[str]):
    type: str = "words"

    def dumps(self, obj: str) -> bytes:
        return obj.encode()

    def loads(self, blob: bytes) -> str:
        return blob.decode()


class Settings(BaseModel):
    serializer: Serializer[Any] = JSONSerializer[Any]()


def test_what_is_between_brackets_makes_no_other_class(store: ResultStore) -> None:
    assert Serializer[str] is Serializer
    for kind in (PickleSerializer[int], JSONSerializer[dict[str, int]], CompressedSerializer[Any], Words):
        assert kind.model_fields["type"].default in Serializer._types
    assert Serializer[int](type="pickle") == PickleSerializer[str]() == PickleSerializer()
    assert Settings(serializer="words").serializer == Words()
    serializer: Serializer[str] = Words()
    words = ResultStore(result_storage=store.result_storage, serializer=serializer)
    words.write("plain words", key="k")
    assert store.read("k").result == "plain words"


def test_separators_are_a_pair(store: ResultStore) -> None:
    serializer = JSONSerializer(dumps_kwargs={"separators": (",", ":"), "sort_keys": True})
    assert serializer.dumps({"b": 1, "a": [1, 2]}) == b'{"a":[1,2],"b":1}'
    compact = ResultStore(result_storage=store.result_storage, serializer=serializer)
    compact.write({"b": 1}, key="k")
    assert store.read("k").serializer == serializer


@pytest.mark.parametrize(
    ("field", "option", "value"),
    [
        ("dumps_kwargs", "cls", JSONEncoder),
        ("dumps_kwargs", "cls", "json.JSONEncoder"),
        ("loads_kwargs", "parse_float", Decimal),
        ("loads_kwargs", "object_pairs_hook", dict),
        ("dumps_kwargs", "of_another_library", print),
    ],
)
def test_options_that_are_code_are_refused_with_where_to_name_it(field: str, option: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=rf"{option}.*no record can hold.*object_encoder.*jsonlib"):
        JSONSerializer(**{field: {option: value}})
