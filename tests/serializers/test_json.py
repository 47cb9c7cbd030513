"""JSON: what payloads may not do, and hooks of the user's own."""

import json
from pathlib import Path
from typing import Any

import pytest

from pgresults.serializers import JSONSerializer, json_object_decoder, json_object_encoder
from tests.support.serialized import NOW, Inner


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


def test_what_prefect_wrote_is_validated() -> None:
    payload = json.dumps({"__class__": "tests.support.serialized.Inner", "data": {"when": NOW.isoformat()}})
    assert JSONSerializer().loads(payload.encode()) == Inner(when=NOW)
    with pytest.raises(ValueError, match="when"):
        JSONSerializer().loads(payload.replace("2026", "no year").encode())


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
