"""Which object came from which version, as long as a run lasts: what is given to a task tells what it was made of.

Objects are known by identity, and only those that can be nobody else's: a number, a text or a constant may be the same
object in two places that have nothing to do with each other, and a version must not be derived from what it never saw.
"""

import enum
import logging
import re
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator
from contextvars import ContextVar
from datetime import tzinfo
from threading import Lock
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

from pgresults.records.lineage import Origin, note

_PARTS_KEPT = 1_000
_PARTS_ASKED = 100_000
_STRONG = 50_000
_STRONG_BYTES = 64 * 1024 * 1024

_SHARED = (
    type, FunctionType, BuiltinFunctionType, MethodType, ModuleType, enum.Enum, re.Pattern, tzinfo, logging.Logger,
    frozenset,
)  # fmt: skip
"""What can be referred to weakly, but is often one object for all who ask."""

_SINGLE = frozenset(("NAType", "NaTType"))
"""The types of pandas' missing values, by name: of each there is one object in a process."""


_CHANGING = Lock()


class Remembered:
    """Objects that came from versions. What can be referred to weakly is; of lists and dicts so many are kept alive."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Any, tuple[Origin, ...]]] = {}
        self._alive: dict[int, int] = {}
        self._bytes = 0

    def keep(
        self,
        result: Any,
        origins: tuple[Origin, ...],
        given: Iterable[Origin],
        size: int,
        handed: Collection[int] = (),
    ) -> None:
        """Remember what a call gave.

        Parameters:
            result: the object; what is in it, up to a thousand parts, came from there as well.
            origins: the version it is, or what it was computed from.
            given: what the call used: an object that came from there is only handed through.
            size: about how many bytes it has.
            handed: the ids of the objects that the call was handed: none of them came from there.
        """
        used = {one.identity for one in given}
        for part in _parts(result, _PARTS_KEPT):
            if id(part) in handed:
                continue
            with _CHANGING:
                self._keep(part, origins, used, size if part is result else 0)

    def origins_in(self, values: Iterable[Any]) -> list[Origin]:
        """The versions that some values came from, or what is in them."""
        if not self._known:
            return []
        found: list[Origin] = []
        for part in _parts(tuple(values), _PARTS_ASKED):
            found.extend(self._origins_of(part))
        return found

    def __len__(self) -> int:
        return len(self._known)

    def _origins_of(self, part: Any) -> tuple[Origin, ...]:
        known = self._known.get(id(part))
        return known[1] if known is not None and _target(known[0]) is part else ()

    def _keep(self, part: Any, origins: tuple[Origin, ...], used: set[object], size: int) -> None:
        number = id(part)
        known = self._known.get(number)
        if known is not None and _target(known[0]) is part:
            before = {one.identity for one in known[1]}
            if before != {one.identity for one in origins} and not before & used:
                # Two calls gave it that knew nothing of each other: it is nobody's.
                self._known[number] = (known[0], ())
            return
        reference = self._reference(part, number)
        if reference is not None:
            self._known[number] = (reference, origins)
            if reference is part:
                self._hold(number, size)

    def _reference(self, part: Any, number: int) -> Any:
        if type(part) in (list, dict):
            return part
        me = weakref.ref(self)

        def forget(gone: Any) -> None:
            if (memory := me()) is not None and (known := memory._known.get(number)) and known[0] is gone:
                memory._known.pop(number, None)

        try:
            return weakref.ref(part, forget)
        except TypeError:
            return None

    def _hold(self, number: int, size: int) -> None:
        self._alive[number] = size
        self._bytes += size
        while len(self._alive) > _STRONG or self._bytes > _STRONG_BYTES:
            oldest = next(iter(self._alive))
            self._bytes -= self._alive.pop(oldest)
            self._known.pop(oldest, None)


def _target(reference: Any) -> Any:
    return reference() if isinstance(reference, weakref.ref) else reference


def _parts(value: Any, limit: int) -> Iterator[Any]:
    """An object and those in it, as far as they can be told from others: in lists, tuples, dicts and sets."""
    seen: set[int] = set()
    waiting = [value]
    for _ in range(limit):
        if not waiting:
            return
        part = waiting.pop()
        kind = type(part)
        if kind in _ATOMS or id(part) in seen:
            continue
        seen.add(id(part))
        for container, contents in _CONTENTS:
            if issubclass(kind, container):
                waiting.extend(contents(part))
                break
        if not issubclass(kind, (tuple, *_SHARED)) and kind.__name__ not in _SINGLE:
            yield part


_CONTENTS: tuple[tuple[type, Callable[[Any], Iterable[Any]]], ...] = (
    (dict, lambda part: reversed(dict.values(part))),
    (list, list.__reversed__),
    (tuple, lambda part: tuple.__getitem__(part, slice(None, None, -1))),
    (set, set.__iter__),
    (frozenset, frozenset.__iter__),
)
"""How to get at what is in an object, the last one first, whatever its class makes of that: it may load something."""

_ATOMS = frozenset((type(None), bool, int, float, complex, str, bytes))

REMEMBERED: ContextVar[Remembered | None] = ContextVar("pgresults.remembered", default=None)
"""What the outermost run around knows of objects."""


def remembering() -> Remembered:
    """What the outermost run around knows; a new memory where there is none."""
    memory = REMEMBERED.get()
    return Remembered() if memory is None else memory


class Given:
    """What a call had from elsewhere, and may only hand on.

    Parameters:
        sources: the versions that it used.
        values: its arguments, before it changes them.
        parameters: what these are with the defaults, which came from nowhere.
    """

    __slots__ = ("came_from", "handed", "sources")

    def __init__(
        self, sources: Iterable[Origin] = (), values: Iterable[Any] = (), parameters: Iterable[Any] = ()
    ) -> None:
        self.sources = sources
        self.came_from: list[Origin] = []
        """The versions that the arguments came from, as far as the enclosing run remembers."""
        self.handed: set[int] = set()
        """The ids of all objects in them."""
        if (memory := REMEMBERED.get()) is None:
            return
        for part in _parts(tuple(values), _PARTS_ASKED):
            self.handed.add(id(part))
            self.came_from.extend(memory._origins_of(part))
        defaults = tuple(one for one in parameters if id(one) not in self.handed)
        self.handed.update(id(part) for part in _parts(defaults, _PARTS_ASKED))

    def __reduce__(self) -> Any:
        return Given, ()  # what comes from another process are other objects


_NOTHING = Given()


def use(result: Any, origins: tuple[Origin, ...], size: int, given: Given = _NOTHING) -> None:
    """Have the enclosing run, if there is one, know that it uses a result, and remember where that came from.

    Parameters:
        result: what a call gave it.
        origins: the version it is, or what it was computed from.
        size: about how many bytes it has.
        given: what the call had from elsewhere.
    """
    note(origins)
    if origins and (memory := REMEMBERED.get()) is not None:
        memory.keep(result, origins, given.sources, size, given.handed)


def sources_of(values: Iterable[Any]) -> tuple[Origin, ...]:
    """The versions that some values came from, as far as the enclosing run remembers."""
    memory = REMEMBERED.get()
    return () if memory is None else tuple(memory.origins_in(values))
