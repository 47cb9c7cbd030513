"""Leaving a block whatever interrupts it: by its exit, or by being let go of where that was never reached.

A signal handler may interrupt a program at the very first line of an exit, or of an entry's own clean-up; Python calls
nothing after that. But a ``with`` statement holds what it is to call at the end, and lets go of it in any case.
"""

import weakref
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from functools import partial
from types import MethodType
from typing import Any


class Within:
    """Values that context variables have within a block.

    Parameters:
        values: which ones.
    """

    def __init__(self, values: Sequence[tuple[ContextVar[Any], Any]]) -> None:
        self._values = values
        self._around = _INNERMOST.get()
        self._before = [(variable, variable.get()) for variable, _ in values]

    def enter(self) -> None:
        """Set them."""
        _INNERMOST.set(self)
        for variable, value in self._values:
            variable.set(value)

    def leave(self) -> None:
        """Have them be as they were before.

        To do it again, after an interruption, does no harm. Another context is left alone: that of who closes a
        coroutine which nobody awaits any more.
        """
        inner = _INNERMOST.get()
        while inner is not None and inner is not self:
            inner = inner._around
        if inner is self:
            for variable, before in self._before:
                variable.set(before)
            _INNERMOST.set(self._around)


_INNERMOST: ContextVar[Within | None] = ContextVar("pgresults.within", default=None)


class Leave:
    """A method that a ``with`` statement looks up before it enters a block, and calls to leave it.

    A coroutine needs none: an event loop cancels where it waits, and goes on with its ``finally``.

    Parameters:
        method: the exit of a block that has `_awaits_entry` and `_let_go`; the latter is called when the statement that
            entered it is over, unless `_held` is None by then.
    """

    def __init__(self, method: Callable[..., Any]) -> None:
        self._method = method
        self.__doc__ = method.__doc__

    def __get__(self, block: Any, owner: type | None = None) -> Any:
        if block is None:
            return self._method
        leave = MethodType(self._method, block)
        if not block._awaits_entry():
            return leave
        held = partial(leave)  # no frame of ours refers to it, so that a traceback does not keep it
        block._held = weakref.ref(held, lambda _: block._let_go())
        return held
