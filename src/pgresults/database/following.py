"""What a process knows of how far a standby follows its primary.

A mark is where the primary stood when it was asked. A standby that has come to a mark has everything that was committed
before the primary was asked for it, and nothing else is believed of it. So no clocks of two machines are compared, an
idle primary is not ahead of anybody, and a standby that hears nothing any more comes to no further mark.
"""

import time
from datetime import datetime, timedelta
from logging import getLogger
from typing import Final, NamedTuple

from pgresults.errors import PgResultsError
from pgresults.operations.standbys import Place

AGAIN: Final = 10.0
"""Seconds after which a standby that did not serve is tried again."""

_MOST_MARKS: Final = 32
# One that goes on while the machine is suspended, where there is one.
_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_log = getLogger(__name__)


class Wanted(NamedTuple):
    """How new an answer has to be.

    Parameters:
        seconds: what was committed before so many is in it.
        since: and so is what was committed before a moment of the primary's clock.
        own: and so is what this process has changed before.
    """

    seconds: float
    since: datetime | None = None
    own: bool = True


class _Mark(NamedTuple):
    """What was committed before a moment, on two clocks, lies before a place in the log.

    Parameters:
        asked: the moment on the process's clock.
        at: the same on the primary's.
        lsn: the place.
        place: where the primary was.
    """

    asked: float
    at: datetime
    lsn: int
    place: Place


class Following:
    """How far a standby follows its primary, for all threads and event loops of a process."""

    def __init__(self) -> None:
        self._marks: tuple[_Mark, ...] = ()
        self._asked = self._changed = self._again = float("-inf")
        self._in_trouble = False

    def note_change(self) -> None:
        """This process may have changed something."""
        self._changed = now()

    def note_mark(self, asked: float, place: Place) -> None:
        """The primary, asked at a moment of this process's clock, was at a place.

        That gives two marks. What is written and not yet certain has all commits of before, but a standby gets it when
        it is certain, and without any commit that may take long; what is certain has all of a little before.
        """
        if not place.follows:
            before = _Mark(asked - place.delay.total_seconds(), place.at - place.delay, place.lsn, place)
            self._marks = (*self._marks[2 - _MOST_MARKS :], before, _Mark(asked, place.at, place.written, place))

    def wants_mark(self, wanted: Wanted) -> bool:
        """Whether to ask the primary where it is: one question serves for half of the time that is allowed."""
        if self.has_mark(wanted) and now() - self._asked < wanted.seconds / 2:
            return False
        self._asked = now()
        return True

    def has_mark(self, wanted: Wanted) -> bool:
        """Whether a standby that has come to one of the marks is new enough."""
        return any(self._is_new_enough(mark, wanted) for mark in self._marks)

    def proves(self, place: Place, wanted: Wanted) -> bool:
        """Whether a standby that is at a place is new enough.

        Its clock counts, too, for it is what tells what has expired there: one that is behind a mark's has to be waited
        for, and one that is ahead by more than is allowed would let results expire too early.
        """
        return any(
            self._is_new_enough(mark, wanted)
            and mark.place.timeline == place.timeline
            and mark.lsn <= place.lsn
            and timedelta() <= place.at - mark.at <= timedelta(seconds=now() - mark.asked + wanted.seconds)
            for mark in self._marks
        )

    def is_of_another(self, place: Place) -> bool:
        """Whether a place is one of another database than the marks are."""
        return any(
            (mark.place.system, mark.place.database) != (place.system, place.database) for mark in self._marks[-1:]
        )

    def may_try(self) -> bool:
        """Whether to ask the standby; of one that did not serve, one caller at a time finds out whether it does now."""
        if not self._in_trouble:
            return True
        if now() < self._again:
            return False
        self._again = now() + AGAIN
        return True

    def serves(self) -> None:
        """The standby has answered."""
        self._in_trouble = False

    def gives_up(self, standby: object, error: PgResultsError) -> None:
        """The standby did not serve: it is left alone for a while, and said so once until it serves again."""
        self._again = now() + AGAIN
        if not self._in_trouble:
            self._in_trouble = True
            _log.warning("%r does not serve reads, the primary does in its place: %s", standby, error)

    def _is_new_enough(self, mark: _Mark, wanted: Wanted) -> bool:
        oldest = now() - wanted.seconds
        oldest = max(oldest, self._changed) if wanted.own else oldest
        return mark.asked >= oldest and (wanted.since is None or mark.at >= wanted.since)


def now() -> float:
    """Seconds on this process's clock."""
    return time.clock_gettime(_CLOCK)
