"""Python objects as JSON values: what JSON lacks becomes an object tagged with the name of its class.

The tags are those of Prefect's JSON serializer, so that each side reads the other's: ``__class__`` with
``data``, and ``__exc_type__`` with ``message``. What Prefect would lose stands in further entries, which it
ignores.

A payload may come from anyone. So a tag can only give values of the types listed here, and instances of
pydantic models, dataclasses, enums, named tuples and exceptions; nothing else that a tag names is called.
"""

import base64
import dataclasses
import inspect
import ipaddress
from collections import deque
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from pydantic import BaseModel, RootModel, TypeAdapter

from pgresults.serializers.names import class_path, find_class

Tag = dict[str, Any]
_TAGS = ("__class__", "__exc_type__")
_BASE64_TYPE = "pydantic.types.Base64Bytes"  # bytes to any reader of these tags, whatever the bytes are


def json_object_encoder(obj: Any) -> Any:
    """Give the JSON value of an object; raises TypeError for a type that has none.

    Subclasses of dict, list, str, int and float that are no enum become the plain type. A dict with keys
    other than text becomes a list of pairs under a tag.
    """
    if obj is None or type(obj) in (str, int, float, bool):
        return obj
    if type(obj) is list:
        return [json_object_encoder(item) for item in obj]
    if type(obj) is dict:
        return _encode_dict(obj)
    for kind, encode in _ENCODERS.items():
        if isinstance(obj, kind):
            return encode(obj)
    if dataclasses.is_dataclass(obj) and not isinstance(obj, type):
        return _encode_dataclass(obj)
    raise TypeError(f"JSON has no form for {type(obj).__module__}.{type(obj).__qualname__}")


def json_object_decoder(value: Tag) -> Any:
    """Give the object of a tagged JSON object whose entries are decoded already; others are given back.

    Raises ValueError or TypeError when the tag names a class that is not found, or that is of another kind
    than those that payloads may build.
    """
    path, exception = value.get("__class__"), value.get("__exc_type__")
    if isinstance(path, str) and "data" in value:
        data = value["data"]
        if decode := _DECODERS.get(path):
            return decode(data, value)
        return _build(find_class(path), data, value)
    if isinstance(exception, str) and "message" in value:
        return _build_exception(find_class(exception), value)
    return value


def _tag(path: str, data: Any, **further: Any) -> Tag:
    return {"__class__": path, "data": data, **further}


def _encode_dict(obj: dict[Any, Any]) -> Any:
    if all(type(key) is str and key not in _TAGS for key in obj):
        return {key: json_object_encoder(value) for key, value in obj.items()}
    pairs = [[json_object_encoder(key), json_object_encoder(value)] for key, value in obj.items()]
    return _tag("builtins.dict", pairs)


def _encode_items(path: str) -> Callable[[Any], Tag]:
    return lambda items: _tag(path, [json_object_encoder(item) for item in items])


def _encode_tuple(obj: tuple[Any, ...]) -> Tag:
    path = class_path(type(obj)) if hasattr(obj, "_fields") else "builtins.tuple"
    return _encode_items(path)(obj)


def _encode_moment(obj: datetime | time) -> Tag:
    path = "datetime.datetime" if isinstance(obj, datetime) else "datetime.time"
    further: Tag = {"fold": obj.fold} if obj.fold else {}
    if isinstance(obj.tzinfo, ZoneInfo) and obj.tzinfo.key:
        further["zone"] = obj.tzinfo.key
    return _tag(path, obj.isoformat(), **further)


def _decode_moment(kind: type[datetime] | type[time]) -> Callable[[str, Tag], datetime | time]:
    def decode(data: str, tag: Tag) -> datetime | time:
        moment = kind.fromisoformat(data).replace(fold=tag.get("fold", 0))
        return moment.replace(tzinfo=ZoneInfo(tag["zone"])) if "zone" in tag else moment

    return decode


def _encode_model(obj: BaseModel) -> Tag:
    if isinstance(obj, RootModel):
        return _tag(class_path(type(obj)), json_object_encoder(obj.root))
    fields = type(obj).model_fields
    # A default nobody set is left out: it need not pass the model's own validation.
    given = {k: v for k, v in vars(obj).items() if k in obj.model_fields_set or fields[k].default is not v}
    return _tag(class_path(type(obj)), _encode_dict(given | (obj.model_extra or {})))


def _encode_dataclass(obj: Any) -> Tag:
    values = {field.name: getattr(obj, field.name) for field in dataclasses.fields(obj)}
    _signature(obj.__class__).bind(**_arguments(type(obj), values))  # TypeError now, not when it is read
    return _tag(class_path(type(obj)), _encode_dict(values), exact=True)


@lru_cache
def _signature(cls: Any) -> inspect.Signature:
    return inspect.signature(cls)


def _arguments(cls: Any, values: Tag) -> Tag:
    derived = {field.name for field in dataclasses.fields(cls) if not field.init}
    return {name: value for name, value in values.items() if name not in derived}


def _build(cls: Any, data: Any, tag: Tag) -> Any:
    if issubclass(cls, Enum):
        return cls(data)
    if issubclass(cls, BaseModel):
        return cls.model_validate(data, by_alias=True, by_name=True)
    if dataclasses.is_dataclass(cls):
        return _build_dataclass(cls, data) if "exact" in tag else TypeAdapter(cls).validate_python(data)
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return cls(*data)
    raise TypeError(
        f"the payload names {cls.__module__}.{cls.__qualname__}, which is no pydantic model, dataclass, enum "
        "or named tuple: JSON payloads build nothing else"
    )


def _build_dataclass(cls: Any, values: Tag) -> Any:
    obj = cls(**_arguments(cls, values))
    for field in dataclasses.fields(cls):
        if not field.init and field.name in values:
            object.__setattr__(obj, field.name, values[field.name])
    return obj


def _encode_exception(obj: BaseException) -> Tag:
    reduced: Any = obj.__reduce__()  # knows what C code keeps beside the arguments, like an OSError's file
    constructor, args, state = (*reduced, None)[:3]
    if constructor is not type(obj):
        args, state = obj.args, vars(obj)
    state = state or {}
    _rebuild_exception(type(obj), args, state)  # TypeError now, not when it is read
    return {
        "__exc_type__": class_path(type(obj)),
        "message": str(obj),
        "args": json_object_encoder(list(args)),
        "state": json_object_encoder(state),
    }


def _build_exception(cls: type, tag: Tag) -> BaseException:
    if not issubclass(cls, BaseException):
        raise TypeError(f"the payload names {cls.__module__}.{cls.__qualname__} as an exception, which it is not")
    return _rebuild_exception(cls, tag.get("args", [tag["message"]]), tag.get("state", {}))


def _rebuild_exception(cls: type[BaseException], args: Any, state: Tag) -> BaseException:
    exc = cls.__new__(cls, *args)
    # The initialiser of the built-in ancestor sets what C code keeps; the one of the class itself would get
    # the arguments of its own call to super(), which need not be those it takes.
    builtin: Any = next(base for base in cls.__mro__ if base.__module__ == "builtins")
    builtin.__init__(exc, *args)
    for name, value in state.items():
        if name == "__notes__" or not name.startswith("__"):
            setattr(exc, name, value)
    return exc


_BY_PYDANTIC: dict[type, TypeAdapter[Any]] = {
    cls: TypeAdapter(cls)
    for cls in (
        timedelta,
        complex,
        ipaddress.IPv4Address,
        ipaddress.IPv4Interface,
        ipaddress.IPv4Network,
        ipaddress.IPv6Address,
        ipaddress.IPv6Interface,
        ipaddress.IPv6Network,
    )
}


def _encode_by_pydantic(cls: type) -> Callable[[Any], Tag]:
    return lambda obj: _tag(f"{cls.__module__}.{cls.__name__}", _BY_PYDANTIC[cls].dump_python(obj, mode="json"))


def _decode_by_pydantic(cls: type) -> Callable[[Any, Tag], Any]:
    return lambda data, _: _BY_PYDANTIC[cls].validate_python(data)


_ENCODERS: dict[type, Callable[[Any], Any]] = {  # in order: what is more than its base class comes first
    BaseException: _encode_exception,
    Enum: lambda obj: _tag(class_path(type(obj)), json_object_encoder(obj.value)),
    BaseModel: _encode_model,
    datetime: _encode_moment,
    time: _encode_moment,
    date: lambda obj: _tag("datetime.date", obj.isoformat()),
    UUID: lambda obj: _tag("uuid.UUID", str(obj)),
    Decimal: lambda obj: _tag("decimal.Decimal", str(obj)),
    PurePath: lambda obj: _tag(f"pathlib.{type(obj).__name__}", str(obj)),
    tuple: _encode_tuple,
    set: _encode_items("builtins.set"),
    frozenset: _encode_items("builtins.frozenset"),
    deque: _encode_items("collections.deque"),
    bytes: lambda obj: _tag(_BASE64_TYPE, base64.b64encode(obj).decode()),
    str: lambda obj: str.__str__(obj),
    int: int.__int__,
    float: float.__float__,
    list: lambda obj: json_object_encoder(list(obj)),
    dict: lambda obj: _encode_dict(obj),
} | {cls: _encode_by_pydantic(cls) for cls in _BY_PYDANTIC}

_DECODERS: dict[str, Callable[[Any, Tag], Any]] = {
    "builtins.dict": lambda data, _: dict(data),
    "builtins.tuple": lambda data, _: tuple(data),
    "builtins.set": lambda data, _: set(data),
    "builtins.frozenset": lambda data, _: frozenset(data),
    "collections.deque": lambda data, _: deque(data),
    "builtins.bytes": lambda data, _: data.encode(),
    _BASE64_TYPE: lambda data, _: base64.b64decode(data),
    "datetime.datetime": _decode_moment(datetime),
    "datetime.time": _decode_moment(time),
    "datetime.date": lambda data, _: date.fromisoformat(data),
    "uuid.UUID": lambda data, _: UUID(data),
    "decimal.Decimal": lambda data, _: Decimal(data),
    "pathlib.PurePosixPath": lambda data, _: PurePosixPath(data),
    "pathlib.PureWindowsPath": lambda data, _: PureWindowsPath(data),
}
_DECODERS |= {f"pathlib.{name}": lambda data, _: Path(data) for name in ("Path", "PosixPath", "WindowsPath")}
_DECODERS |= {f"{cls.__module__}.{cls.__name__}": _decode_by_pydantic(cls) for cls in _BY_PYDANTIC}
