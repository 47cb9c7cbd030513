"""Leaving a block: by its exit, or by being let go of where that was never reached.

A signal handler may interrupt a program at the very first line of an exit, or of an entry's own clean-up; Python calls
nothing after that. But a ``with`` statement holds what it is to call at the end, and lets go of it in any case.
"""

import weakref
from collections.abc import Callable
from functools import partial
from types import MethodType
from typing import Any


class Leave:
    """A method that a ``with`` statement looks up before it enters a block, and calls to leave it.

    A coroutine needs none: an event loop cancels where it waits, and goes on with its ``finally``.

    Parameters:
        method: the exit of a block that has `is_pending` and `_let_go`; the latter is called when the statement that
            entered it is over, whether the block was left or not.
    """

    def __init__(self, method: Callable[..., Any]) -> None:
        self._method = method
        self.__doc__ = method.__doc__

    def __get__(self, block: Any, owner: type | None = None) -> Any:
        if block is None:
            return self._method
        leave = MethodType(self._method, block)
        if not block.is_pending():
            return leave
        held = partial(leave)  # no frame of ours refers to it, so that a traceback does not keep it
        block._held = weakref.ref(held, lambda _: block._let_go())
        return held
