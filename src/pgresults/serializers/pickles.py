"""Pickles in which a program's own classes are its own again: elsewhere they are copies, as cloudpickle makes them.

cloudpickle carries the classes of ``__main__`` along, so that any program can read them. Such a class is marked here
with the program and its name, in a place that cloudpickle leaves free, and whoever unpickles in that same program is
given the class it has. What reads pickles without these functions sees no difference.
"""

import io
import operator
import pickle
from collections.abc import Callable
from enum import Enum
from functools import partial
from types import FunctionType
from typing import IO, Any, Final

import cloudpickle
from cloudpickle import cloudpickle as by_value

from pgresults.serializers.exceptions import attributes_of, builtin_base, has_own_initializer
from pgresults.serializers.own_classes import identity_of, own_class, own_module
from pgresults.serializers.parts import Parts, PartsFile

_MARK: Final = "pgresults"
_CHILD: Final = "__mp_main__"
_SKELETONS: Final = ("_make_skeleton_class", "_make_skeleton_enum")
_ITS_MODULES: Final = ("cloudpickle.cloudpickle", "cloudpickle.cloudpickle_fast")

_Reduced = Any


def dumps(obj: Any) -> bytes:
    """Pickle an object; raises whatever pickling it raises."""
    with io.BytesIO() as file:
        _Pickler(file).dump(obj)
        return file.getvalue()


def dump(obj: Any) -> Parts:
    """Pickle an object without a copy of the buffers and bytes in it; raises whatever pickling it raises."""
    file = PartsFile()
    _Pickler(file).dump(obj)
    return file.parts()


def load(file: IO[bytes]) -> Any:
    """Give the object of a pickle in a file; see `loads`."""
    return _Unpickler(file).load()


def loads(blob: bytes) -> Any:
    """Give the object of a pickle, ours or any other's; raises whatever unpickling it raises."""
    return _Unpickler(io.BytesIO(blob)).load()


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle's, with marked classes and with exceptions that come back whatever their initializer takes."""

    def reducer_override(self, obj: Any) -> _Reduced:
        if isinstance(obj, type):
            return self._reduce_class(obj)
        if isinstance(obj, FunctionType) and obj.__module__ == _CHILD:
            return _of_main(self._dynamic_function_reduce(obj))
        if isinstance(obj, BaseException):
            return _reduce_exception(obj, self.proto)
        return super().reducer_override(obj) if isinstance(obj, FunctionType) else NotImplemented

    def _reduce_class(self, cls: type) -> _Reduced:
        if (parts := _generic_parts(cls)) is not None:
            return operator.getitem, parts
        reduced = super().reducer_override(cls)
        if reduced is NotImplemented and cls.__module__ == _CHILD:
            reduced = _of_main(by_value._dynamic_class_reduce(cls))
        identity = identity_of(cls)
        if identity is None or reduced is NotImplemented or reduced[0].__name__ not in _SKELETONS:
            return reduced
        make, arguments, *rest = reduced
        return make, (*arguments[:-1], {_MARK: identity}), *rest


class _Unpickler(pickle.Unpickler):
    """The standard one, which gives a program its own classes and leaves them as they are."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self._own: set[int] = set()

    def find_class(self, module: str, name: str) -> Any:
        found = super().find_class(own_module(module), name)
        if module in _ITS_MODULES and name in _SKELETONS:
            return partial(self._made, found, name == "_make_skeleton_enum")
        if module in _ITS_MODULES and name == "_class_setstate":
            return partial(self._completed, found)
        return found

    def _made(self, make: Callable[..., type], is_enum: bool, *arguments: Any) -> type:
        extra = arguments[-1]
        own = own_class(extra.get(_MARK)) if isinstance(extra, dict) else None
        if own is None or issubclass(own, Enum) is not is_enum:
            return make(*arguments)
        self._own.add(id(own))
        return own

    def _completed(self, complete: Callable[[type, Any], type], cls: type, state: Any) -> type:
        return cls if id(cls) in self._own else complete(cls, state)


def _of_main(reduced: _Reduced) -> _Reduced:
    """What a child of multiprocessing would call its own, as the program it is a part of calls it."""
    make, arguments, (state, slots), *rest = reduced
    for names in (*(part for part in arguments if isinstance(part, dict)), state, slots):
        for name in ("__module__", "__name__"):
            if names.get(name) == _CHILD:
                names[name] = "__main__"
    arguments = tuple("__main__" if isinstance(part, str) and part == _CHILD else part for part in arguments)
    return make, arguments, (state, slots), *rest


def _generic_parts(cls: type) -> tuple[type, Any] | None:
    """The class and the arguments of which a pydantic model's parameters made this one."""
    made: dict[str, Any] = getattr(cls, "__pydantic_generic_metadata__", {})
    origin, arguments = made.get("origin"), made.get("args")
    if origin is None or not arguments:
        return None
    given = arguments[0] if len(arguments) == 1 else tuple(arguments)
    return (origin, given) if origin[given] is cls else None


def _reduce_exception(exc: BaseException, protocol: int) -> _Reduced:
    """An exception with its cause, by what it is made of where its own initializer takes something else."""
    cls: Any = type(exc)
    if has_own_initializer(cls):
        reduced: Any = (builtin_base(cls).__new__, (cls, *exc.args), {**attributes_of(exc), "args": exc.args})
    else:
        reduced = exc.__reduce_ex__(protocol)
    if exc.__cause__ is None and not exc.__suppress_context__:
        return reduced
    make, arguments, state, *rest = (*reduced, None)[:3]
    if cls.__setstate__ is not BaseException.__setstate__:
        return reduced
    chained = {"__cause__": exc.__cause__, "__suppress_context__": exc.__suppress_context__}
    return make, arguments, {**(state or {}), **chained}, *rest
