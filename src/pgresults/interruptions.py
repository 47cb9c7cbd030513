"""Telling an exception that interrupted our code from one that the code it called has raised.

A time-out or an order to end comes from a signal handler, at whatever line is being run: it is no failure of that line,
and is never to be translated into one.
"""

import signal
import sys
from asyncio import CancelledError
from collections.abc import Iterator
from types import CodeType, FunctionType, MethodType
from typing import Any


def is_interruption(error: BaseException) -> bool:
    """Whether an exception came from a signal handler or from what traces this thread, or is none of `Exception`'s."""
    if not isinstance(error, Exception):
        return True
    handlers = set(_handlers())
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code in handlers:
            return True
        trace = trace.tb_next
    return False


def interruption_behind(error: BaseException, handled: BaseException | None) -> BaseException | None:
    """What interrupted the code that then failed with an error of its own; None where nothing did.

    Parameters:
        error: the failure.
        handled: what was being handled already when that code was called, by `sys.exc_info`.
    """
    seen: set[int] = set()
    behind = _context(error)
    while behind is not None and behind is not handled and id(behind) not in seen:
        if is_interruption(behind):
            return behind
        seen.add(id(behind))
        behind = _context(behind)
    return None


def _context(error: BaseException) -> BaseException | None:
    """What was being handled when an exception was raised."""
    if isinstance(error, TimeoutError) and isinstance(error.__cause__, CancelledError):
        error = error.__cause__  # asyncio cancelled a task itself because its time was up
    return error.__context__


def _handlers() -> Iterator[CodeType]:
    functions: list[Any] = [signal.getsignal(number) for number in signal.valid_signals()]
    for function in (*functions, sys.gettrace()):
        if callable(function) and not isinstance(function, FunctionType | MethodType):
            function = function.__call__
        if isinstance(function, MethodType):
            function = function.__func__
        if isinstance(function, FunctionType):
            yield function.__code__
