"""What tags call classes, and the classes that they name."""

from functools import reduce
from operator import or_
from types import GenericAlias, NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel

from pgresults.objects.programs import ANONYMOUS
from pgresults.serializers.names import find_class
from pgresults.serializers.own_classes import identity_of, own_class

Tag = dict[str, Any]
_CONTAINERS = (list, dict, tuple, set, frozenset)


def class_tag(cls: type) -> Tag:
    """Name a class, its parameters and its program; raises TypeError for one that no reader finds by that."""
    generic: dict[str, Any] = getattr(cls, "__pydantic_generic_metadata__", {})
    named, parameters = generic.get("origin") or cls, generic.get("args", ())
    tag: Tag = {"__class__": f"{named.__module__}.{named.__qualname__}"}
    identity = identity_of(named)
    if identity is not None:
        path = f"{identity['program']}.{identity['name']}"
        if all(name.isidentifier() for name in path.split(".")):  # a module, which is imported elsewhere
            tag["__class__"] = path
        else:
            tag["__class__"] = f"__main__.{identity['name']}"
            tag |= {} if identity["program"] == ANONYMOUS else {"program": identity}
    if parameters:
        tag["parameters"] = [_type_tag(parameter) for parameter in parameters]
    try:
        found: Any = class_of(tag, tag["__class__"])
    except (ValueError, TypeError):
        found = None
    if found is not cls:
        raise TypeError(f"the class {tag['__class__']} is not found under that name: define it at the top of a module")
    return tag


def class_of(tag: Tag, path: str) -> Any:
    """Give the class that a tag names; raises ValueError when it is not found here."""
    if "program" in tag:
        found = own_class(tag["program"])
        if found is None:
            raise ValueError(f"the payload names the class {path!r} of a program that is not the one that runs here")
    else:
        found = find_class(path)
    if "parameters" not in tag:
        return found
    generic: dict[str, Any] = getattr(found, "__pydantic_generic_metadata__", {})
    if not issubclass(found, BaseModel) or not generic.get("parameters"):
        raise ValueError(f"the payload names parameters of {path!r}, which has none")
    return found.__class_getitem__(tuple(_type_of(parameter) for parameter in tag["parameters"]))


def _type_tag(annotation: Any) -> Any:
    if annotation is None or annotation is NoneType:
        return None
    origin = get_origin(annotation)
    if origin is Union or origin is UnionType:
        return {"union": [_type_tag(one) for one in get_args(annotation)]}
    if origin in _CONTAINERS:
        return {
            "of": origin.__name__,
            "types": ["..." if one is ... else _type_tag(one) for one in get_args(annotation)],
        }
    if isinstance(annotation, type):
        tag = class_tag(annotation)
        return {"class": tag.pop("__class__"), **tag}
    raise TypeError(f"JSON has no form for a class with the parameter {annotation!r}")


def _type_of(tag: Any) -> Any:
    if tag is None:
        return NoneType
    if tag == "...":
        return ...
    if "union" in tag:
        return reduce(or_, [_type_of(one) for one in tag["union"]])
    if "of" in tag:
        origin = next((one for one in _CONTAINERS if one.__name__ == tag["of"]), None)
        if origin is None:
            raise ValueError(f"the payload names the container {tag['of']!r}, which is none")
        return GenericAlias(origin, tuple(_type_of(one) for one in tag["types"]))
    return class_of(tag, tag["class"])
