"""Instances of classes: their class and their state, as pickle would take it, but in no order that means nothing."""

import copyreg
import sys
from collections import OrderedDict
from collections.abc import Callable
from enum import Enum
from functools import cached_property
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any, Final
from uuid import UUID
from weakref import WeakKeyDictionary
from zoneinfo import ZoneInfo

from pydantic import BaseModel

from pgresults.objects.containers import set_token, tokens_of
from pgresults.objects.definitions import Token, known_name, possible_token
from pgresults.objects.names import qualname_of
from pgresults.objects.tokens import NoToken, bytes_token, joined, text_token

_NEW: Final[Any] = copyreg.__newobj__  # type: ignore[attr-defined]  # makes most instances
_DERIVED: WeakKeyDictionary[type, frozenset[str]] = WeakKeyDictionary()


def enum_token(member: Enum, token: Token) -> bytes:
    """The token of an enum's member: its name, and its value.

    Raises: NoToken for a value that has none, where the enum's own name does not say either which one it is.
    """
    cls, value = type(member), member._value_
    of_value = token(value) if known_name(cls) is None else possible_token(value, token)
    return joined(b"e", [token(cls), token(member._name_), of_value])


def model_token(model: BaseModel, token: Token) -> bytes:
    """The token of a pydantic model: its fields, given or not, extra and private ones included."""
    fields = type(model).model_fields
    state = {name: value for name, value in vars(model).items() if name in fields}
    return joined(b"n", [token(part) for part in (type(model), state, model.model_extra, model.__pydantic_private__)])


def set_subclass_token(values: Any, token: Token) -> bytes:
    """The token of an instance of a subclass of set or frozenset."""
    return joined(b"H", [token(type(values)), set_token(values, token), _state_token(values, token)])


def exception_token(error: BaseException, token: Token) -> bytes:
    """The token of an exception, with its cause and without its traceback."""
    return joined(b"x", [instance_token(error, token), token(error.__cause__)])


def instance_token(value: Any, token: Token) -> bytes:
    """The token of anything that pickle can take apart.

    Raises: NoToken for what it cannot, and for a bare `object()`, which is like no other.
    """
    if qualname_of(value) and (name := known_name(value)) is not None:  # a function of a kind of its own
        return joined(b"F", [text_token(name)])
    reduced = _reduced(value)
    if isinstance(reduced, str):
        return _global_token(value, reduced, token)
    make, args, state, items, pairs = (*reduced, None, None, None)[:5]
    if state is None:
        state = _left_out(value)
    parts = [b"+" if make is _NEW else token(make), token(args), _without_derived(type(value), state, token)]
    if items is not None:
        parts.append(joined(b"l", tokens_of(items, token)))
    if pairs is not None:
        each = [joined(b"t", tokens_of(pair, token)) for pair in pairs]
        parts.append(joined(b"d", each if isinstance(value, OrderedDict) else sorted(each)))
    return joined(b"o", parts)


def _of_kind(kind: str, *parts: bytes) -> bytes:
    return joined(b"u", [text_token(kind), *parts])


def _path_token(path: PurePath, _: Token) -> bytes:
    return _of_kind(type(path).__name__, text_token(str(path)))


def _ordered_token(values: OrderedDict[Any, Any], token: Token) -> bytes:
    return _of_kind("OrderedDict", *(joined(b"t", tokens_of(pair, token)) for pair in values.items()))


def _zone_token(zone: ZoneInfo, token: Token) -> bytes:
    return instance_token(zone, token) if zone.key is None else _of_kind("ZoneInfo", text_token(zone.key))


KINDS_OF_THEIR_OWN: Final[dict[type, Callable[[Any, Token], bytes]]] = {
    UUID: lambda value, _: _of_kind("UUID", bytes_token(value.bytes)),  # its state also says how safely it was made
    OrderedDict: _ordered_token,
    ZoneInfo: _zone_token,
    **dict.fromkeys((PurePosixPath, PureWindowsPath, type(Path())), _path_token),
}
"""What pickle takes apart in another way in each Python."""


def _reduced(value: Any) -> Any:
    cls = type(value)
    if cls is object:
        raise NoToken("a bare object() is like no other, and another one in every process")
    try:
        reduce = copyreg.dispatch_table.get(cls)
        return value.__reduce_ex__(4) if reduce is None else reduce(value)
    except Exception as error:
        raise NoToken(f"{cls.__module__}.{cls.__qualname__}: {type(error).__name__}: {error}") from error


def _left_out(value: Any) -> dict[str, Any] | None:
    """What was set on an instance, where a base from the standard library pickles it without."""
    for base in type(value).__mro__:
        if "__reduce__" in vars(base) or "__reduce_ex__" in vars(base):
            known = base is not object and base.__module__.partition(".")[0] in sys.stdlib_module_names
            return getattr(value, "__dict__", None) or None if known else None
    return None


def _global_token(value: Any, name: str, token: Token) -> bytes:
    """The token of what is the only one of its name, like `pandas.NA`."""
    module = getattr(value, "__module__", None) or type(value).__module__
    found = getattr(sys.modules.get(module), name, None)
    if found is not value:
        raise NoToken(f"{module}.{name} is not found under that name")
    return joined(b"g", [token(type(value)), text_token(module), text_token(name)])


def _state_token(value: Any, token: Token) -> bytes:
    return _without_derived(type(value), value.__getstate__(), token)


def _without_derived(cls: type, state: Any, token: Token) -> bytes:
    """The token of a state, without what properties have kept there: it follows from the rest."""
    if isinstance(state, tuple) and len(state) == 2:
        return joined(b"t", [_without_derived(cls, part, token) for part in state])
    if type(state) is dict and (derived := _derived(cls)) and not derived.isdisjoint(state):
        state = {name: kept for name, kept in state.items() if name not in derived}
    return token(state)


def _derived(cls: type) -> frozenset[str]:
    names = _DERIVED.get(cls)
    if names is None:
        names = frozenset(
            name for base in cls.__mro__ for name, value in vars(base).items() if isinstance(value, cached_property)
        )
        _DERIVED[cls] = names
    return names
