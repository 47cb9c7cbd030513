"""Instances as tags, and back without calling anything of their classes: that has run when they were made.

``data`` is what Prefect validates the class with; what it would lose stands in ``exact``, which it ignores.
"""

import dataclasses
from collections.abc import Callable
from enum import Enum
from inspect import getattr_static
from types import MemberDescriptorType
from typing import Any

from pydantic import BaseModel, Json, RootModel
from pydantic_core import to_json

from pgresults.serializers.classes import class_tag
from pgresults.serializers.exceptions import attributes_of, builtin_base
from pgresults.serializers.validating import validated

Tag = dict[str, Any]
Encode = Callable[[Any], Any]


def encode_instance(obj: Any, encode: Encode) -> Tag:
    """Give the tag of an exception, enum member, named tuple, model or dataclass; raises TypeError for all else."""
    if isinstance(obj, BaseException):
        return _encode_exception(obj, encode)
    if isinstance(obj, Enum):
        return {**class_tag(type(obj)), "data": encode(obj.value), "exact": {"name": obj.name}}
    if isinstance(obj, BaseModel):
        return _encode_model(obj, encode)
    if isinstance(obj, tuple) and hasattr(obj, "_fields"):
        return {**class_tag(type(obj)), "data": [encode(item) for item in obj]}
    if dataclasses.is_dataclass(obj) and not isinstance(obj, type):
        return _encode_dataclass(obj, encode)
    raise TypeError(f"JSON has no form for {type(obj).__module__}.{type(obj).__qualname__}")


def build_instance(cls: Any, data: Any, exact: Any) -> Any:
    """Give the instance of a class that a payload names.

    Parameters:
        cls: the class.
        data: what its fields are.
        exact: what else there is to know; None: Prefect wrote it, then the class validates the data.

    Raises: TypeError for a class of another kind than those above; ValueError for fields that it does not have.
    """
    if issubclass(cls, Enum):
        return _member(cls, data, exact)
    if issubclass(cls, BaseModel):
        return validated(cls, data) if exact is None else _model(cls, data, exact)
    if dataclasses.is_dataclass(cls):
        return validated(cls, data) if exact is None else _dataclass(cls, data, exact)
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        if len(data) != len(cls._fields):
            raise ValueError(f"{_name(cls)} has {len(cls._fields)} fields, the stored one has {len(data)}")
        return tuple.__new__(cls, data)
    raise TypeError(
        f"the payload names {_name(cls)}, which is no pydantic model, dataclass, enum or named tuple: JSON payloads "
        "build nothing else"
    )


def build_exception(cls: Any, tag: Tag) -> BaseException:
    """Give the exception of a tag; raises TypeError for a class that is none."""
    if not issubclass(cls, BaseException):
        raise TypeError(f"the payload names {_name(cls)} as an exception, which it is not")
    base, args = builtin_base(cls), tag.get("args", [tag["message"]])
    exc: BaseException = base.__new__(cls, *args)
    base.__init__(exc, *args)
    exc.args = tuple(args)
    for name, value in tag.get("state", {}).items():
        if name == "__notes__" or not name.startswith("__"):
            _put(exc, name, value)
    if isinstance(cause := tag.get("cause"), BaseException):
        exc.__cause__ = cause
    exc.__suppress_context__ = bool(tag.get("suppress", False))
    return exc


def _encode_exception(obj: BaseException, encode: Encode) -> Tag:
    tag = {
        "__exc_type__": class_tag(type(obj))["__class__"],
        "message": str(obj),
        "args": [encode(argument) for argument in obj.args],
        "state": encode(attributes_of(obj)),
    }
    further = {key: value for key, value in class_tag(type(obj)).items() if key != "__class__"}
    if obj.__cause__ is not None:
        further["cause"] = encode(obj.__cause__)
    if obj.__suppress_context__:
        further["suppress"] = True
    return {**tag, **further}


def _member(cls: type[Enum], value: Any, exact: Any) -> Enum:
    member = cls(value)
    if exact is not None and member.name != exact["name"]:
        raise ValueError(f"{_name(cls)}.{exact['name']} is not {value!r} any more")
    return member


def _encode_model(obj: BaseModel, encode: Encode) -> Tag:
    cls, state, extra = type(obj), vars(obj), obj.__pydantic_extra__
    given = _given(obj)
    names: dict[str, str] = {}
    data: dict[str, Any] = {}
    values = {name: value for name, value in state.items() if name not in given}
    for name, value in given.items():
        field = cls.model_fields[name]
        alias = _alias(cls, name)
        if alias in data or alias in (extra or {}) or (alias in given and alias != name):
            alias = name
        if alias != name:
            names[alias] = name
        if field.annotation is Json or any(type(said) is Json for said in field.metadata):  # validated as text
            data[alias], values[name] = to_json(value).decode(), value
        else:
            data[alias] = value
    exact: dict[str, Any] = {"private": obj.__pydantic_private__, "extra": None if extra is None else list(extra)}
    if obj.__pydantic_fields_set__ != given.keys() | (extra or {}).keys():
        exact["set"] = sorted(obj.__pydantic_fields_set__)
    exact = {name: value for name, value in exact.items() if value is not None}
    exact |= {name: value for name, value in (("names", names), ("values", values)) if value}
    written = data["root"] if isinstance(obj, RootModel) else data | (extra or {})
    return {**class_tag(cls), "data": encode(written), "exact": encode(exact)}


def _given(obj: BaseModel) -> dict[str, Any]:
    """The fields that validation is to get; a default nobody set is left out, which need not pass it."""
    fields = type(obj).model_fields
    return {
        name: value
        for name, value in vars(obj).items()
        if name in fields and (name in obj.__pydantic_fields_set__ or fields[name].default is not value)
    }


def _alias(cls: type[BaseModel], name: str) -> str:
    """How validation finds a field."""
    config, alias = cls.model_config, cls.model_fields[name].validation_alias
    by_name = config.get("populate_by_name") or config.get("validate_by_name")
    return alias if isinstance(alias, str) and not by_name else name


def _model(cls: type[BaseModel], data: Any, exact: Tag) -> BaseModel:
    names, extra_names = exact.get("names", {}), exact.get("extra") or []
    if issubclass(cls, RootModel):
        data = {"root": data}
    given = {names.get(key, key): value for key, value in data.items() if key not in extra_names}
    extra = {name: data[name] for name in extra_names}
    unknown = {name: given.pop(name) for name in [*given] if name not in cls.model_fields}
    if unknown and cls.model_config.get("extra") == "forbid":
        raise ValueError(f"{_name(cls)} has no field {next(iter(unknown))!r}, which the stored one has")
    allowed = cls.model_config.get("extra") == "allow"
    values = {**given, **exact.get("values", {})}
    for name, field in cls.model_fields.items():
        if name not in values:
            if field.is_required():
                raise ValueError(f"{_name(cls)} has a field {name!r}, which the stored one lacks")
            values[name] = field.get_default(call_default_factory=True, validated_data=values)
    obj = object.__new__(cls)
    state = {
        "__dict__": values,
        "__pydantic_fields_set__": set(exact.get("set", [*given, *extra])),
        "__pydantic_extra__": {**extra, **unknown} if allowed else None,
        "__pydantic_private__": exact.get("private"),
    }
    (RootModel if issubclass(cls, RootModel) else BaseModel).__setstate__(obj, state)
    return obj


def _encode_dataclass(obj: Any, encode: Encode) -> Tag:
    state = object.__getstate__(obj)
    own, slots = state if isinstance(state, tuple) else (state, None)
    values = {**(own or {}), **(slots or {})}
    data = {
        field.name: values.pop(field.name) for field in dataclasses.fields(obj) if field.init and field.name in values
    }
    return {**class_tag(type(obj)), "data": encode(data), "exact": encode({"values": values} if values else {})}


def _dataclass(cls: Any, data: Tag, exact: Tag) -> Any:
    fields = {field.name: field for field in dataclasses.fields(cls)}
    if unknown := [name for name in data if name not in fields]:
        raise ValueError(f"{_name(cls)} has no field {unknown[0]!r}, which the stored one has")
    values = {**data, **exact.get("values", {})}
    for name, field in fields.items():
        if name not in values:
            values[name] = _default(cls, field)
    obj = object.__new__(cls)
    for name, value in values.items():
        _put(obj, name, value)
    return obj


def _default(cls: Any, field: "dataclasses.Field[Any]") -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    raise ValueError(f"{_name(cls)} has a field {field.name!r}, which the stored one lacks")


def _put(obj: Any, name: str, value: Any) -> None:
    """Set an attribute where instances keep it, past whatever the class does when it is set."""
    place = getattr_static(type(obj), name, None)
    if isinstance(place, MemberDescriptorType):
        place.__set__(obj, value)
    else:
        vars(obj)[name] = value


def _name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
