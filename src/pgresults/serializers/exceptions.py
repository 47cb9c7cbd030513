"""What an exception is made of, and an exception made of it without calling its class."""

from types import FunctionType, MemberDescriptorType
from typing import Any

_OF_THE_RAISE = ("obj",)
"""What tells where an exception was raised, as its traceback does, and not what it is."""


def builtin_base(cls: type[BaseException]) -> Any:
    """The nearest ancestor that is written in C."""
    return next(base for base in cls.__mro__ if base.__module__ == "builtins")


def attributes_of(exc: BaseException) -> dict[str, Any]:
    """The attributes of an exception, those that C code keeps beside its arguments among them."""
    state = object.__getstate__(exc)
    own, slots = state if isinstance(state, tuple) else (state, None)
    return {**_members(exc), **(own or {}), **(slots or {})}


def has_own_initializer(cls: type[BaseException]) -> bool:
    """Whether calling a class with the arguments of an exception need not give the same one again."""
    base = builtin_base(cls)
    return (
        isinstance(cls.__init__, FunctionType)
        and cls.__reduce__ is base.__reduce__
        and cls.__reduce_ex__ is base.__reduce_ex__
        and getattr(cls, "__setstate__", None) is getattr(base, "__setstate__", None)
        and getattr(cls, "__getstate__", None) is getattr(base, "__getstate__", None)
    )


def _members(exc: BaseException) -> dict[str, Any]:
    if isinstance(exc, BaseExceptionGroup):
        return {}  # fixed by its arguments
    names = [
        name
        for base in type(exc).__mro__
        for name, member in vars(base).items()
        if base.__module__ == "builtins" and isinstance(member, MemberDescriptorType)
    ]
    values = {name: getattr(exc, name, None) for name in names if not name.startswith("__")}
    return {name: value for name, value in values.items() if value is not None and name not in _OF_THE_RAISE}
