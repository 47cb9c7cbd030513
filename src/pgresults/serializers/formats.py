"""The serializers that come with the package: pickle, JSON, and either of them compressed."""

import base64
import pickle
import re
import sys
from typing import Annotated, Any

import cloudpickle
from pydantic import (
    BeforeValidator,
    Field,
    JsonValue,
    SerializationInfo,
    SerializeAsAny,
    field_serializer,
    field_validator,
)

from pgresults.errors import SerializationError
from pgresults.serializers.base import D, Serializer
from pgresults.serializers.compression import decompress, require_within
from pgresults.serializers.names import (
    CALLABLE,
    COMPRESSES,
    DUMPS_AND_LOADS,
    code_named,
)
from pgresults.serializers.parts import Arrived, Dumped, held, opened
from pgresults.serializers.permits import permit
from pgresults.serializers.pickles import dump, dumps, load, loads
from pgresults.serializers.sameness import require_same
from pgresults.serializers.tagged import is_plain, json_object_encoder

_PLAIN = frozenset((bytes, str, int, float, bool, type(None)))
_SMALL = 64 * 1024
_BASE64 = re.compile(rb"[A-Za-z0-9+/=\n]+")


def _raw(payload: bytes) -> bytes:
    """Undo base64; a pickle ends with a full stop and compressed data starts with other bytes than base64."""
    return base64.decodebytes(payload) if _BASE64.fullmatch(payload) else payload


def _is_small(obj: object) -> bool:
    return type(obj) in _PLAIN and sys.getsizeof(obj) <= _SMALL


class PickleSerializer(Serializer[D]):
    """Pickles objects with the library ``picklelib``, a module with ``dumps`` and ``loads``.

    Loading a pickle can run any code: load only what you trust. ``picklelib_version`` is kept as read.
    """

    type: str = "pickle"
    picklelib: Annotated[str, DUMPS_AND_LOADS] = "cloudpickle"
    picklelib_version: str | None = None

    def dumps(self, obj: D) -> bytes:
        self._require_allowed()
        if type(obj) in _PLAIN and self.picklelib == "cloudpickle":
            return pickle.dumps(obj, cloudpickle.DEFAULT_PROTOCOL)  # the same bytes in a tenth of the time
        library = code_named(self.picklelib)
        payload: bytes = dumps(obj) if library is cloudpickle else library.dumps(obj)
        return payload

    def _dump(self, obj: D) -> Dumped:
        if self.picklelib != "cloudpickle" or _is_small(obj):
            return self.dumps(obj)
        self._require_allowed()
        return dump(obj)

    def _load(self, payload: Arrived, *, spend: bool) -> D:
        if not isinstance(payload, memoryview):
            return self.loads(held(payload, spend=spend))
        if code_named(self.picklelib) not in (cloudpickle, pickle) or _BASE64.fullmatch(payload):
            return super()._load(payload, spend=spend)
        self._require_allowed()
        loaded: D = load(opened(payload, spend=spend))
        return loaded

    def loads(self, blob: bytes) -> D:
        self._require_allowed()
        library = code_named(self.picklelib)
        loaded: D = loads(_raw(blob)) if library in (cloudpickle, pickle) else library.loads(_raw(blob))
        return loaded

    def _to_text(self, payload: bytes) -> str:
        return base64.b64encode(_raw(payload)).decode()

    def _from_text(self, text: str) -> bytes:
        return base64.decodebytes(text.encode())

    def _require_allowed(self) -> None:
        if not permit().allow_pickle:
            raise SerializationError(
                'pickle is refused here (PGRESULTS_ALLOW_PICKLE): use the serializer "json", or one of your own',
                serializer_type=self.type,
            )


_CALLABLES = frozenset(("cls", "object_pairs_hook", "parse_float", "parse_int", "parse_constant"))
"""The options of Python's own JSON that are no values."""

_ENCODER = "pgresults.serializers.json_object_encoder"
_DECODER = "pgresults.serializers.json_object_decoder"
_IN_DOCUMENTS = {
    _ENCODER: "prefect.serializers.prefect_json_object_encoder",
    _DECODER: "prefect.serializers.prefect_json_object_decoder",
}
_FROM_DOCUMENTS = {theirs: ours for ours, theirs in _IN_DOCUMENTS.items()}
_Hook = Annotated[str | None, CALLABLE, BeforeValidator(lambda path: _FROM_DOCUMENTS.get(path, path))]


class JSONSerializer(Serializer[D]):
    """Writes JSON in which models, dataclasses, dates, sets, bytes, exceptions … come back as themselves.

    ``object_encoder`` and ``object_decoder`` are import paths: of a function for objects that JSON does not
    know, and of one that gets every JSON object; None means plain JSON. ``dumps_kwargs`` and ``loads_kwargs``
    go to ``jsonlib``, a module with ``dumps`` and ``loads``.
    """

    type: str = "json"
    jsonlib: Annotated[str, DUMPS_AND_LOADS] = "json"
    object_encoder: _Hook = _ENCODER
    object_decoder: _Hook = _DECODER
    dumps_kwargs: dict[str, JsonValue] = Field(default_factory=dict)
    loads_kwargs: dict[str, JsonValue] = Field(default_factory=dict)

    @field_validator("dumps_kwargs", "loads_kwargs", mode="before")
    @classmethod
    def _no_hooks(cls, kwargs: Any) -> Any:
        if not isinstance(kwargs, dict):
            return kwargs
        for refused, instead in (("default", "object_encoder"), ("object_hook", "object_decoder")):
            if refused in kwargs:
                raise ValueError(f"{refused!r} cannot be given here; name the function in {instead!r}")
        for name, value in kwargs.items():
            if name in _CALLABLES or callable(value):
                raise ValueError(
                    f"{name!r} takes a function or class, which no record can hold: name a function in "
                    "'object_encoder' or 'object_decoder', or in 'jsonlib' a module of your own with dumps and loads"
                )
        return {name: list(value) if isinstance(value, tuple) else value for name, value in kwargs.items()}

    @field_serializer("object_encoder", "object_decoder")
    def _hook_in_documents(self, path: str | None, info: SerializationInfo) -> str | None:
        return _IN_DOCUMENTS.get(path, path) if path and (info.context or {}).get("document") else path

    def dumps(self, obj: D) -> bytes:
        kwargs: dict[str, Any] = dict(self.dumps_kwargs)
        given = obj
        if self.object_encoder == _ENCODER:
            if not is_plain(obj):
                obj = json_object_encoder(obj)  # beforehand: JSON libraries take tuples and int enums for their own
        elif self.object_encoder:
            kwargs["default"] = code_named(self.object_encoder)
        text: str | bytes = code_named(self.jsonlib).dumps(obj, **kwargs)
        payload = text.encode() if isinstance(text, str) else text
        if self._must_be_checked(plain=obj is given):
            require_same(self.loads(payload), given)
        return payload

    def _must_be_checked(self, *, plain: bool) -> bool:
        """Whether what was written might come back as something else; hooks of a user's own are the user's affair."""
        if (self.object_encoder, self.object_decoder) != (_ENCODER, _DECODER):
            return False
        return not plain or self.jsonlib != "json" or bool(self.dumps_kwargs or self.loads_kwargs)

    def loads(self, blob: bytes) -> D:
        kwargs: dict[str, Any] = dict(self.loads_kwargs)
        if self.object_decoder:
            kwargs["object_hook"] = code_named(self.object_decoder)
        loaded: D = code_named(self.jsonlib).loads(blob.decode(), **kwargs)
        return loaded


class CompressedSerializer(Serializer[D]):
    """Compresses what ``serializer`` gives with a module that has ``compress`` and ``decompress``."""

    type: str = "compressed"
    serializer: SerializeAsAny[Serializer[D]]
    compressionlib: Annotated[str, COMPRESSES] = "lzma"

    def dumps(self, obj: D) -> bytes:
        return self._compress(require_within(self.serializer.dumps(obj), permit().max_bytes))

    def loads(self, blob: bytes) -> D:
        return self.serializer.loads(self._decompress(blob))

    def _to_text(self, payload: bytes) -> str:
        inner = self._decompress(payload)
        text = self.serializer._to_text(inner).encode()
        return base64.b64encode(_raw(payload) if text == inner else self._compress(text)).decode()

    def _from_text(self, text: str) -> bytes:
        return base64.decodebytes(text.encode())

    def _compress(self, data: bytes) -> bytes:
        compressed: bytes = code_named(self.compressionlib).compress(data)
        return compressed

    def _decompress(self, payload: bytes) -> bytes:
        return decompress(code_named(self.compressionlib), _raw(payload), permit().max_bytes)


class CompressedPickleSerializer(CompressedSerializer[D]):
    """A compressed pickle."""

    type: str = "compressed/pickle"
    serializer: SerializeAsAny[Serializer] = PickleSerializer()


class CompressedJSONSerializer(CompressedSerializer[D]):
    """Compressed JSON."""

    type: str = "compressed/json"
    serializer: SerializeAsAny[Serializer] = JSONSerializer()
