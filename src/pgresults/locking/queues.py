"""Waiting in line within one process, whether in a thread or on an event loop."""

import asyncio
import threading
from collections import deque
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress

from pgresults.database.programs import Effect, Program
from pgresults.locking.deadline import Deadline


class Queues:
    """A line for each key: the first in it may go on, the others wait until it leaves.

    It keeps a thousand waiting threads or coroutines from asking the database a thousand times.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._lines: dict[str, deque[Future[None]]] = {}

    def enter(self, key: str, place: Future[None], deadline: Deadline) -> Program[bool]:
        """Stand in line until first, or until the place is ended; False when the time is up. `leave` ends it."""
        with self._mutex:
            line = self._lines.setdefault(key, deque())
            line.append(place)
            if line[0] is place:
                place.set_result(None)
        try:
            yield from wait_for_signal(place, deadline)
        except TimeoutError:
            return False
        return True

    def leave(self, key: str, place: Future[None]) -> None:
        """Step out of line, so that the next may go on; nothing happens where nobody stands there."""
        with self._mutex:
            line = self._lines.get(key)
            if line is None or place not in line:
                return
            line.remove(place)
            if not line:
                del self._lines[key]
            else:
                with suppress(InvalidStateError):  # it is the first already, or was ended
                    line[0].set_result(None)


def wait_for_signal(signal: Future[None], deadline: Deadline) -> Program[None]:
    """Wait until a signal is given.

    Raises: TimeoutError when the time is up first.
    """
    if not signal.done():
        yield Effect(lambda: signal.result(deadline.left()), lambda: _await(signal, deadline.left()))


async def _await(signal: Future[None], seconds: float | None) -> None:
    # Shielded: giving up the wait must not cancel the signal, which its giver may be about to set.
    await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(signal)), seconds)
