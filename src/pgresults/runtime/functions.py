"""What tasks and flows have in common: a function with a name, a signature, a source, and a place in a module."""

import hashlib
import inspect
import sys
from collections.abc import Callable
from contextvars import ContextVar
from functools import cached_property, reduce, update_wrapper
from typing import Any, Generic, ParamSpec, TypeVar, cast

import cloudpickle

from pgresults.objects.programs import MAIN_NAMES
from pgresults.serializers.pickles import dumps, loads

P = ParamSpec("P")
R = TypeVar("R")


class Wrapped(Generic[P, R]):
    """A function with options.

    Parameters:
        fn: the function; sync or async.
        options: what was said of it.
    """

    def __init__(self, fn: Callable[P, R], options: dict[str, Any]) -> None:
        if not callable(fn):
            advice = ": put it below @classmethod" if isinstance(fn, classmethod) else ""
            raise TypeError(f"a task or flow is made of a function, not of {type(fn).__name__}{advice}")
        if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
            raise TypeError(f"{fn.__qualname__} is a generator, whose result cannot be stored: return a list")
        self.fn = fn
        self.options = options
        self.isasync = inspect.iscoroutinefunction(fn)
        self.name = str(options.get("name") or getattr(fn, "__name__", type(fn).__name__))
        self._signature = inspect.signature(fn)
        update_wrapper(cast("Any", self), fn)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"

    @cached_property
    def full_name(self) -> str:
        """What tells it from others of its name, in every process: the function's module and qualified name."""
        module = getattr(self.fn, "__module__", "")
        name = getattr(self.fn, "__qualname__", None) or self.code_hash
        return f"{'__main__' if module == '__mp_main__' else module}.{name}"  # as multiprocessing calls it in a child

    @cached_property
    def code_hash(self) -> str:
        """The digest of the function's source, or of its bytecode where there is no source."""
        try:
            source = inspect.getsource(self.fn).encode()
        except (OSError, TypeError):
            code = getattr(self.fn, "__code__", None)
            source = repr((code.co_code, code.co_consts)).encode() if code else cloudpickle.dumps(self.fn)
        return hashlib.sha256(source).hexdigest()

    def _bind(self, args: Any, kwargs: Any) -> dict[str, Any]:
        """The parameters of a call by name, defaults included.

        Raises: TypeError as the call itself would.
        """
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return dict(bound.arguments)

    def _changed(self, given: dict[str, Any], not_set: object) -> dict[str, Any]:
        """The options with those that are given in their place."""
        return {**self.options, **{name: value for name, value in given.items() if value is not not_set}}

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        return type(self)(self.fn.__get__(instance, owner), self.options)

    def __reduce__(self) -> Any:
        name = getattr(self, "__qualname__", "")
        try:
            found: Any = reduce(getattr, name.split("."), sys.modules[self.__module__])
        except (AttributeError, KeyError):
            found = None
        if self.__module__ in MAIN_NAMES:
            found = None  # another module, where this is unpickled
        if found is self:
            return name
        if isinstance(found, Wrapped) and found.fn is self.fn:
            return _varied, (found, dumps((self.options, self._extras())))
        if _PICKLING.get():
            return _blank, (type(self),), (self.fn, self.options, self._extras())
        token = _PICKLING.set(True)
        try:
            return loads, (dumps(self),)
        finally:
            _PICKLING.reset(token)

    def __setstate__(self, state: tuple[Any, Any, dict[str, Any]]) -> None:
        fn, options, extras = state
        self.__init__(fn, options)  # type: ignore[misc]
        vars(self).update(extras)

    def _extras(self) -> dict[str, Any]:
        """What else makes this one, beside function and options: a copy in another process has no source there."""
        return {"code_hash": self.code_hash}


_PICKLING: ContextVar[bool] = ContextVar("pgresults.pickling", default=False)
"""Whether cloudpickle is at work: it remembers what it has pickled, so that a function may name its own task."""


def _blank(kind: type[Wrapped[Any, Any]]) -> Wrapped[Any, Any]:
    return kind.__new__(kind)


def _varied(known: Wrapped[Any, Any], state: bytes) -> Wrapped[Any, Any]:
    options, extras = loads(state)
    varied = _blank(type(known))
    varied.__setstate__((known.fn, options, extras))
    return varied
