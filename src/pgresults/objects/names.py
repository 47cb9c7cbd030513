"""The names of functions and classes, where a name says which one it is."""

import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.machinery import EXTENSION_SUFFIXES
from types import CodeType, FunctionType, MethodType
from typing import Any

from pgresults.objects.programs import program_of
from pgresults.objects.sources import source_of

_HEAP_TYPE = 1 << 9  # flags of a type: made while the program runs, as classes are …
_IMMUTABLE_TYPE = 1 << 8  # … but those of C code, of which there is one of each name

_MOST_LAYERS = 50  # objects that have whatever they are asked for also wrap another, without end


class StandIn:
    """What stands under the name of a function in its place, as its task does."""

    fn: Any
    """The function."""


def underlying(found: Any) -> Any:
    """The function that a method is made of, or that something stands for; else the object itself."""
    while True:
        if isinstance(found, StandIn):
            found = found.fn
        elif isinstance(found, classmethod | staticmethod | MethodType):
            found = found.__func__
        else:
            return found


def layers_of(fn: Any) -> list[Any]:
    """A function and those inside of it, as far as decorators say what they were put around."""
    layers = [fn]
    while (inner := getattr(layers[-1], "__wrapped__", None)) is not None and len(layers) < _MOST_LAYERS:
        layers.append(inner)
    return layers


def code_of(fn: Any) -> CodeType | None:
    """The code of a function, or of the one inside of its decorators; None for what has none in Python."""
    code = getattr(layers_of(fn)[-1], "__code__", None)
    return code if isinstance(code, CodeType) else None


def module_of(definition: Any) -> Mapping[str, Any]:
    """The globals of the module that defines a function or class; what is known of them, where it is gone."""
    name = getattr(definition, "__module__", None)
    module = sys.modules.get(name) if isinstance(name, str) else None
    modules: list[Mapping[str, Any]] = [{"__name__": name} if module is None else vars(module)]
    if isinstance(definition, type):  # a profiler runs programs in other modules than the one of their name
        modules += _globals_of(vars(definition).values(), name)
        return next((module for module in modules if _found_in(module, definition)), modules[0])
    return next(_globals_of((layers_of(definition)[-1],), name), modules[0])


def _globals_of(definitions: Iterable[Any], name: Any) -> Iterator[dict[str, Any]]:
    for fn in map(underlying, definitions):
        if isinstance(fn, FunctionType) and fn.__globals__.get("__name__") == name:
            yield fn.__globals__


def _found_in(module: Mapping[str, Any], definition: Any) -> bool:
    first, *rest = qualname_of(definition).split(".")
    found = module.get(first)
    for name in rest:
        if not isinstance(found, type):
            return False
        found = vars(found).get(name)
    return underlying(found) is underlying(definition)


def label_of(definition: Any) -> str:
    """Program or module and qualified name of a function or class, whether they lead to it or not."""
    return f"{program_of(module_of(definition))}:{qualname_of(definition)}"


def qualname_of(definition: Any) -> str:
    """The qualified name of a function or class, as it says itself; empty for what has none."""
    name = getattr(definition, "__qualname__", None) or getattr(definition, "__name__", None)
    return name if isinstance(name, str) else ""


def leads_to(definition: Any) -> bool:
    """Whether the name of a function or class, looked up in its module, leads to it."""
    return _found_in(module_of(definition), definition)


def defined_once(definition: Any) -> bool:
    """Whether a function or class of this name is defined at one place, which runs once; compiled modules have one."""
    if isinstance(definition, type):
        if definition.__flags__ & (_HEAP_TYPE | _IMMUTABLE_TYPE) != _HEAP_TYPE:
            return True
        filename = module_of(definition).get("__file__")
    else:
        code = code_of(definition)
        if code is None:
            return True
        filename = code.co_filename
    if not isinstance(filename, str):
        return False
    if filename.endswith(tuple(EXTENSION_SUFFIXES)):
        return True
    source = source_of(filename, module_of(definition))
    return source is not None and source.defines_once(qualname_of(definition))


def name_of(definition: Any) -> str | None:
    """What a function or class is called wherever it is found; None where its name does not say which one it is."""
    if isinstance(definition, type) and not definition.__flags__ & _HEAP_TYPE:
        return f"{definition.__module__}:{definition.__qualname__}"
    return label_of(definition) if leads_to(definition) and defined_once(definition) else None
