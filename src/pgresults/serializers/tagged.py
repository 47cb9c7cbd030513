"""Python objects as JSON values: what JSON lacks becomes an object tagged with the name of its class.

The tags are those of Prefect's JSON serializer, so that each side reads the other's: ``__class__`` with
``data``, and ``__exc_type__`` with ``message``. What Prefect would lose stands in further entries, which it
ignores.

A payload may come from anyone. So a tag can only give values of the types listed here, and instances of
pydantic models, dataclasses, enums, named tuples and exceptions; nothing else that a tag names is called.
"""

import base64
import ipaddress
from collections import deque
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from pydantic import TypeAdapter
from pydantic_core import TzInfo

from pgresults.serializers.classes import class_of
from pgresults.serializers.instances import build_exception, build_instance, encode_instance

Tag = dict[str, Any]
_TAGS = ("__class__", "__exc_type__")
_PLAIN = frozenset((str, int, float, bool, type(None)))
_BASE64_TYPE = "pydantic.types.Base64Bytes"  # bytes to any reader of these tags, whatever the bytes are


def is_plain(obj: Any) -> bool:
    """Whether an object is JSON as it stands: such a one needs neither tags nor a second look."""
    kind = type(obj)
    if kind is dict:
        return all(type(key) is str and key not in _TAGS and is_plain(value) for key, value in obj.items())
    if kind is list:
        return all(map(is_plain, obj))
    return kind in _PLAIN


def json_object_encoder(obj: Any) -> Any:
    """Give the JSON value of an object; raises TypeError for a type that has none.

    A dict with keys other than text becomes a list of pairs under a tag. What is more than a type that JSON has a form
    for, as a subclass of it is, has none.
    """
    kind = type(obj)
    if kind in _PLAIN:
        return obj
    if kind is list:
        return [json_object_encoder(item) for item in obj]
    if kind is dict:
        return _encode_dict(obj)
    encode = _ENCODERS.get(kind)
    return encode_instance(obj, json_object_encoder) if encode is None else encode(obj)


def json_object_decoder(value: Tag) -> Any:
    """Give the object of a tagged JSON object whose entries are decoded already; others are given back.

    Raises ValueError or TypeError when the tag names a class that is not found, that is of another kind than those
    that payloads may build, or that has other fields by now.
    """
    path, exception = value.get("__class__"), value.get("__exc_type__")
    if isinstance(path, str) and "data" in value:
        data = value["data"]
        if decode := _DECODERS.get(path):
            return decode(data, value)
        return build_instance(class_of(value, path), data, value.get("exact"))
    if isinstance(exception, str) and "message" in value:
        return build_exception(class_of(value, exception), value)
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


def _encode_path(obj: PurePath) -> Tag:
    return _tag(f"pathlib.{type(obj).__name__}", str(obj))


def _encode_complex(obj: complex) -> Tag:
    return _tag("builtins.complex", _BY_PYDANTIC[complex].dump_python(obj, mode="json"), parts=[obj.real, obj.imag])


def _decode_complex(data: Any, tag: Tag) -> complex:
    return complex(*tag["parts"]) if "parts" in tag else _BY_PYDANTIC[complex].validate_python(data)


def _encode_deque(obj: "deque[Any]") -> Tag:
    further: Tag = {} if obj.maxlen is None else {"maxlen": obj.maxlen}
    return _tag("collections.deque", [json_object_encoder(item) for item in obj], **further)


def _encode_moment(obj: datetime | time) -> Tag:
    path = "datetime.datetime" if isinstance(obj, datetime) else "datetime.time"
    fold: Tag = {"fold": obj.fold} if obj.fold else {}
    return _tag(path, obj.isoformat(), **fold, **_zone(obj.tzinfo))


def _zone(zone: tzinfo | None) -> Tag:
    """What there is to know of a zone beside its offset."""
    if isinstance(zone, ZoneInfo) and zone.key:
        return {"zone": zone.key}
    if isinstance(zone, TzInfo):  # that of times which pydantic has read
        return {"offset": "pydantic"}
    if isinstance(zone, timezone):
        named = zone != UTC and not zone.tzname(None).startswith("UTC")
        return {"zone_name": zone.tzname(None)} if named else {}
    if zone is None:
        return {}
    raise TypeError(f"JSON has no form for the zone {type(zone).__module__}.{type(zone).__qualname__}: take a ZoneInfo")


def _decode_moment(kind: type[datetime] | type[time]) -> Callable[[str, Tag], datetime | time]:
    def decode(data: str, tag: Tag) -> datetime | time:
        moment = kind.fromisoformat(data).replace(fold=tag.get("fold", 0))
        if "zone" in tag:
            return moment.replace(tzinfo=ZoneInfo(tag["zone"]))
        offset = moment.utcoffset()
        if offset is not None and "zone_name" in tag:
            return moment.replace(tzinfo=timezone(offset, tag["zone_name"]))
        if offset is not None and tag.get("offset") == "pydantic":
            return moment.replace(tzinfo=TzInfo(offset.total_seconds()))
        return moment

    return decode


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


_ENCODERS: dict[type, Callable[[Any], Any]] = {
    datetime: _encode_moment,
    time: _encode_moment,
    date: lambda obj: _tag("datetime.date", obj.isoformat()),
    UUID: lambda obj: _tag("uuid.UUID", str(obj)),
    Decimal: lambda obj: _tag("decimal.Decimal", str(obj)),
    tuple: _encode_items("builtins.tuple"),
    set: _encode_items("builtins.set"),
    frozenset: _encode_items("builtins.frozenset"),
    deque: _encode_deque,
    bytes: lambda obj: _tag(_BASE64_TYPE, base64.b64encode(obj).decode()),
}
_ENCODERS |= dict.fromkeys({PurePosixPath, PureWindowsPath, type(Path())}, _encode_path)
_ENCODERS |= {cls: _encode_by_pydantic(cls) for cls in _BY_PYDANTIC} | {complex: _encode_complex}

_DECODERS: dict[str, Callable[[Any, Tag], Any]] = {
    "builtins.dict": lambda data, _: dict(data),
    "builtins.tuple": lambda data, _: tuple(data),
    "builtins.set": lambda data, _: set(data),
    "builtins.frozenset": lambda data, _: frozenset(data),
    "collections.deque": lambda data, tag: deque(data, tag.get("maxlen")),
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
_DECODERS["builtins.complex"] = _decode_complex
