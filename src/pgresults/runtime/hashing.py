"""Digests of Python objects that are the same in every process."""

import hashlib
import json
from typing import Any

import cloudpickle

from pgresults.errors import SerializationError
from pgresults.serializers import json_object_encoder

_UNORDERED = ("builtins.set", "builtins.frozenset", "builtins.dict")


def stable_digest(value: Any, what: str) -> str:
    """The digest of an object: of its JSON value, whatever the order of its sets and dicts, else of its pickle.

    Parameters:
        value: the object.
        what: how to call it in an error.

    Raises: SerializationError when it has neither.
    """
    try:
        content = _text(_ordered(json_object_encoder(value))).encode()
    except (TypeError, ValueError, RecursionError):
        try:
            content = cloudpickle.dumps(value)
        except Exception as error:
            kind = f"{type(value).__module__}.{type(value).__qualname__}"
            raise SerializationError(
                f"{what}, of type {kind}, cannot be part of a cache key ({type(error).__name__}: {error}). Leave it "
                'out with a policy like INPUTS - "name", give a cache_key_fn, or use NO_CACHE.',
                result_type=kind,
            ) from error
    return hashlib.sha256(content).hexdigest()


def _ordered(value: Any) -> Any:
    if isinstance(value, list):
        return [_ordered(item) for item in value]
    if not isinstance(value, dict):
        return value
    inner = {name: _ordered(item) for name, item in value.items()}
    if inner.get("__class__") in _UNORDERED and isinstance(inner.get("data"), list):
        inner["data"] = sorted(inner["data"], key=_text)
    return inner


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
