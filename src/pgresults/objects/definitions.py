"""Functions, methods, modules and classes as values: by name where that says which one, else by what defines them."""

import functools
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final
from weakref import WeakKeyDictionary

from pgresults.objects.codes import code_token
from pgresults.objects.names import label_of, layers_of, name_of
from pgresults.objects.programs import program_of
from pgresults.objects.tokens import NoToken, joined, text_token

Token = Callable[[Any], bytes]
"""Gives the token of a value; what holds values asks it for theirs. Raises NoToken."""


class GivesToken:
    """What knows its own token."""

    def _token(self, token: Token) -> bytes:
        raise NotImplementedError


_NAMES: WeakKeyDictionary[Any, str] = WeakKeyDictionary()

_KEPT_DUNDERS: Final = ("__slots__", "__annotations__", "__match_args__", "__pydantic_fields__")
_MACHINERY: Final = ("_abc_impl", "_value2member_map_", "_hashable_values_", "_unhashable_values_")
_CODE: Final = (types.FunctionType, classmethod, staticmethod, property, functools.cached_property)


def known_name(definition: Any) -> str | None:
    """The name of a function or class if it says which one it is; what was found once is not looked up again."""
    try:
        name = _NAMES.get(definition)
    except TypeError:  # without weak references or a hash
        return name_of(definition)
    if name is None and (name := name_of(definition)) is not None:
        _NAMES[definition] = name
    return name


def function_token(fn: types.FunctionType, token: Token) -> bytes:
    """The token of a function: its name and, as far as that is not enough, its code and what it closes over."""
    name = known_name(fn)
    if name is not None:
        return named_token(name, [possible_token(cell, token) for cell in decorating_cells(fn)])
    return unnamed_token(label_of(fn), code_token(fn.__code__), map(token, enclosed_cells(fn)))


def named_token(name: str, decoration: list[bytes]) -> bytes:
    """The token of a function whose name says which it is, together with the values that its decorators keep."""
    return joined(b"F", [text_token(name), *decoration])


def unnamed_token(label: str, code: bytes, enclosed: Iterable[bytes]) -> bytes:
    """The token of a function that is told from others by its code and by the values that it was made with."""
    return joined(b"L", [text_token(label), code, *enclosed])


def enclosed_cells(fn: types.FunctionType) -> list[types.CellType]:
    """What a function was made with: its defaults, and the variables around it."""
    return [types.CellType((fn.__defaults__, fn.__kwdefaults__)), *(fn.__closure__ or ())]


def decorating_cells(fn: Any) -> Iterator[types.CellType]:
    """What decorators keep for a function beside the function, like how often it is to be tried."""
    layers = layers_of(fn)
    for layer in layers:
        if isinstance(layer, types.FunctionType):
            for name, cell in zip(layer.__code__.co_freevars, layer.__closure__ or (), strict=True):
                if name != "__class__" and not any(_holds(cell, other) for other in layers):
                    yield cell


def possible_token(value: Any, token: Token) -> bytes:
    """The token of a value, or something in its place where it has none: of what matters less than it would fail."""
    try:
        return token(value)
    except Exception:
        return b"X"


def class_token(cls: type, token: Token) -> bytes:
    """The token of a class: its name or, where that is not enough, what defines it."""
    name = known_name(cls)
    if name is not None:
        return joined(b"K", [text_token(name)])
    parts = [text_token(label_of(cls)), token(type(cls)), *map(token, cls.__bases__)]
    for attribute, value in sorted(vars(cls).items()):
        if _defines(attribute, value):
            parts += [text_token(attribute), token(type(value)), possible_token(value, token)]
    return joined(b"k", parts)


def _defines(attribute: str, value: Any) -> bool:
    if attribute.startswith("__") and attribute.endswith("__"):
        return attribute in _KEPT_DUNDERS or isinstance(value, _CODE)
    return attribute not in _MACHINERY


def _holds(cell: types.CellType, value: Any) -> bool:
    try:
        return cell.cell_contents is value
    except ValueError:
        return False


def _cell_token(cell: types.CellType, token: Token) -> bytes:
    try:
        content = cell.cell_contents
    except ValueError:
        return b"O"
    return token(content)


def _method_token(method: types.MethodType, token: Token) -> bytes:
    return joined(b"m", [token(method.__self__), token(method.__func__)])


def _builtin_token(fn: types.BuiltinFunctionType, token: Token) -> bytes:
    owner: Any = getattr(fn, "__self__", None)
    if owner is None or isinstance(owner, types.ModuleType):
        return joined(b"F", [text_token(f"{fn.__module__}:{fn.__qualname__}")])
    return joined(b"m", [token(owner), text_token(fn.__name__)])


def _descriptor_token(descriptor: Any, token: Token) -> bytes:
    return joined(b"m", [token(descriptor.__objclass__), text_token(descriptor.__name__)])


def _module_token(module: types.ModuleType, _: Token) -> bytes:
    if sys.modules.get(module.__name__) is not module:
        raise NoToken(f"the module {module.__name__!r} is not the one that is imported under its name")
    return joined(b"M", [text_token(program_of(vars(module)))])


def _cached_token(fn: Any, token: Token) -> bytes:
    name = known_name(fn)
    return _wrapper_token("lru_cache", token(fn.__wrapped__)) if name is None else joined(b"F", [text_token(name)])


def _wrapper_token(kind: str, *parts: bytes) -> bytes:
    return joined(b"w", [text_token(kind), *parts])


DEFINITIONS: Final[dict[type, Callable[[Any, Token], bytes]]] = {
    types.FunctionType: function_token,
    types.MethodType: _method_token,
    types.BuiltinFunctionType: _builtin_token,
    types.MethodWrapperType: lambda method, token: joined(b"m", [token(method.__self__), text_token(method.__name__)]),
    types.MethodDescriptorType: _descriptor_token,
    types.WrapperDescriptorType: _descriptor_token,
    types.ClassMethodDescriptorType: _descriptor_token,
    types.MemberDescriptorType: _descriptor_token,
    types.GetSetDescriptorType: _descriptor_token,
    types.ModuleType: _module_token,
    types.CodeType: lambda code, _: code_token(code),
    types.CellType: _cell_token,
    classmethod: lambda method, token: _wrapper_token("classmethod", token(method.__func__)),
    staticmethod: lambda method, token: _wrapper_token("staticmethod", token(method.__func__)),
    property: lambda prop, token: _wrapper_token("property", *map(token, (prop.fget, prop.fset, prop.fdel))),
    functools.cached_property: lambda prop, token: _wrapper_token("cached_property", token(prop.func)),
    functools._lru_cache_wrapper: _cached_token,
}
"""The tokens of what is defined, by type."""
