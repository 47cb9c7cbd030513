"""Doing something whenever it is due, until a signal says that it is enough."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from threading import Event
from typing import Any

from pgresults.cli.output import fail
from pgresults.errors import reason_of

_PATIENCE = 60.0
"""Seconds after which what failed is tried anew, where it is not due sooner."""


def serve(
    every: timedelta,
    work: Callable[[], None],
    enough: Event,
    passing: tuple[type[Exception], ...],
    now: Callable[[], float] = time.monotonic,
) -> None:
    """Work, and again each time that it is due, until an event is set.

    What fails for a time is said and tried anew in a minute; what is due meanwhile is made up for once.

    Parameters:
        every: how often.
        work: what to do.
        enough: says that it is; what is being done then is done to its end.
        passing: what is waited out; any other failure ends it.
        now: a clock that goes on evenly, in seconds.
    """
    span, due = every.total_seconds(), now()
    while not enough.is_set():
        try:
            work()
        except passing as error:
            fail(reason_of(error) if isinstance(error, OSError) else str(error))
            delay = min(span, _PATIENCE)
        else:
            due += span * max(1, -((due - now()) // span))
            delay = max(0.0, due - now())
        enough.wait(delay)


@contextmanager
def until_signalled() -> Iterator[Event]:
    """An event that Ctrl-C and SIGTERM set; a second one ends the program at once."""
    enough, before = Event(), {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for one, handler in before.items():
            signal.signal(one, handler)

    def end(*_: Any) -> None:
        enough.set()
        restore()

    for one in before:
        signal.signal(one, end)
    try:
        yield enough
    finally:
        restore()
