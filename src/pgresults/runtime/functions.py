"""What tasks and flows have in common: a function with a name, a signature, a source, and a place in a module."""

import inspect
import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from functools import reduce, update_wrapper
from types import MethodType
from typing import Any, Generic, ParamSpec, Self, TypeVar, cast

from pgresults.arguments import require_text
from pgresults.objects.definitions import GivesToken, Token
from pgresults.objects.identity import Identity, code_digest
from pgresults.objects.names import StandIn, underlying
from pgresults.objects.programs import MAIN_NAMES
from pgresults.objects.tokens import joined
from pgresults.runtime.absent import INSTEAD, advice
from pgresults.runtime.binding import Binder
from pgresults.serializers.pickles import dumps, loads

P = ParamSpec("P")
R = TypeVar("R", covariant=True)


_OF_CALLS = frozenset(("return_state", "wait_for"))


class Wrapped(StandIn, GivesToken, Generic[P, R]):
    """A function with options.

    Parameters:
        fn: the function; sync or async; a method, whose instance or class is its first parameter.
        options: what was said of it.
    """

    def __init__(self, fn: Callable[P, R], options: dict[str, Any]) -> None:
        definition: Any = fn
        called: Any = definition.__func__ if isinstance(definition, classmethod | staticmethod) else definition
        if not callable(called):
            raise TypeError(f"a task or flow is made of a function, not of {type(fn).__name__}")
        own = () if isinstance(called, StandIn) else ("__dict__",)
        update_wrapper(cast("Any", self), called, updated=own)  # first: what a function has does not replace ours
        self.fn = called
        self._definition = definition
        function = underlying(called)
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(f"{function.__qualname__} is a generator, whose result cannot be stored: return a list")
        self.options = options
        self.isasync = inspect.iscoroutinefunction(self.fn)
        self.name = str(options.get("name") or getattr(self.fn, "__name__", type(self.fn).__name__))
        for text in (self.name, *(getattr(function, part, None) for part in ("__module__", "__qualname__"))):
            require_text(text or None, "name")  # all of them are recorded with every result
        if not hasattr(self, "_identity"):  # a copy, or one from another process, comes with that of its original
            self._identity = Identity(function)
            self.code_hash = code_digest(function)
        self._first: tuple[Any, ...] = (called.__self__,) if isinstance(called, MethodType) else ()
        self._unbound: Self | None = None
        self._signature = _signature_of(called.__func__ if self._first else called)
        self._binder = Binder(self._signature)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"

    @property
    def identity(self) -> str:
        """What tells the function from all others, in every process alike.

        Raises: SerializationError where it was made with something that has no stable digest.
        """
        return self._identity.text()

    def _bind(self, args: Any, kwargs: Any) -> dict[str, Any]:
        """The parameters of a call by name, defaults included, those of a method with its instance or class.

        Raises: TypeError as the call itself would.
        """
        try:
            return self._binder.bind((*self._first, *args), kwargs)
        except TypeError as error:
            for name in _OF_CALLS & kwargs.keys():
                raise TypeError(f"{self.name}: {error}; {advice(name)}") from None
            raise

    def __getattr__(self, name: str) -> Any:
        if name in INSTEAD:
            raise AttributeError(f"{self!r} has no {name!r}; {advice(name)}", name=name, obj=self)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)

    def _changed(self, options: Mapping[str, Any]) -> Self:
        """A copy with other options."""
        if self._unbound is not None:
            return self._unbound._changed(options)._bound_to(self.fn)
        changed: Self = _blank(type(self))
        changed._make(self._definition, {**self.options, **options}, self._extras())
        return changed

    def _make(self, definition: Any, options: dict[str, Any], extras: dict[str, Any]) -> None:
        vars(self).update(extras)
        self.__init__(definition, options)  # type: ignore[misc]
        vars(self).update(extras)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        bind = getattr(type(self._definition), "__get__", None)
        method = self._definition if bind is None else bind(self._definition, instance, owner)
        return self._bound_to(method) if isinstance(method, MethodType) and not self._first else self

    def _bound_to(self, method: MethodType) -> Self:
        """The same for an instance or class: it shares what hooks and whatever else come to know."""
        bound = _blank(type(self))
        vars(bound).update(vars(self))
        bound.fn = bound._definition = bound.__wrapped__ = method
        bound._first = (method.__self__,)
        bound._unbound = self
        return cast("Self", bound)

    def _token(self, token: Token) -> bytes:
        return joined(b"j", [token(self._identity), *map(token, self._first)])

    def __reduce__(self) -> Any:
        if self._unbound is not None:
            return _bound, (self._unbound, *self._first)
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
            return _blank, (type(self),), (self._definition, self.options, self._extras())
        token = _PICKLING.set(True)
        try:
            return loads, (dumps(self),)
        finally:
            _PICKLING.reset(token)

    def __setstate__(self, state: tuple[Any, Any, dict[str, Any]]) -> None:
        self._make(*state)
        self._identity.received_with(underlying(self.fn))

    def _extras(self) -> dict[str, Any]:
        """What else makes this one, beside function and options."""
        return {"_identity": self._identity, "code_hash": self.code_hash}


_PICKLING: ContextVar[bool] = ContextVar("pgresults.pickling", default=False)
"""Whether cloudpickle is at work: it remembers what it has pickled, so that a function may name its own task."""


def _signature_of(fn: Any) -> inspect.Signature:
    try:
        return inspect.signature(fn)
    except ValueError:  # some built-in functions have none
        kinds = (inspect.Parameter.VAR_POSITIONAL, "args"), (inspect.Parameter.VAR_KEYWORD, "kwargs")
        return inspect.Signature([inspect.Parameter(name, kind) for kind, name in kinds])


def _blank(kind: type[Wrapped[Any, Any]]) -> Any:
    return kind.__new__(kind)


def _bound(unbound: Wrapped[Any, Any], instance: Any) -> Wrapped[Any, Any]:
    return unbound._bound_to(MethodType(unbound.fn, instance))


def _varied(known: Wrapped[Any, Any], state: bytes) -> Wrapped[Any, Any]:
    options, extras = loads(state)
    varied: Wrapped[Any, Any] = _blank(type(known))
    varied.__setstate__((known._definition, options, extras))
    return varied
