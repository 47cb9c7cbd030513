"""Time that runs out."""

import time
from dataclasses import dataclass

from pgresults.errors import InvalidArgument

_FOR_EVER = 1e9
"""Seconds that nobody waits: some thirty years, and what no clock here can count."""


def require_seconds(seconds: float | None, argument: str) -> float | None:
    """A number of seconds; None, as what is beyond any clock, is without end.

    Raises: InvalidArgument for what is no number of seconds.
    """
    if seconds is None:
        return None
    if not isinstance(seconds, int | float) or not seconds >= 0:
        raise InvalidArgument(
            f"{argument} is a number of seconds, 0 or more, or None", argument=argument, value=seconds
        )
    return None if seconds >= _FOR_EVER else float(seconds)


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on this process's clock, or never (None)."""

    at: float | None

    @classmethod
    def after(cls, seconds: float | None, argument: str = "timeout") -> "Deadline":
        """The moment in so many seconds; None: never.

        Raises: InvalidArgument for what is no number of seconds.
        """
        if seconds is None:
            return cls(None)
        seconds = require_seconds(seconds, argument)
        return cls(None if seconds is None else time.monotonic() + seconds)

    def left(self) -> float | None:
        """The seconds left, never below 0; None: without end."""
        return None if self.at is None else max(0.0, self.at - time.monotonic())

    def passed(self) -> bool:
        """Whether the time is up."""
        return self.at is not None and time.monotonic() >= self.at

    def or_earlier(self, other: "Deadline") -> "Deadline":
        """Whichever of the two comes first."""
        moments = [moment for moment in (self.at, other.at) if moment is not None]
        return Deadline(min(moments, default=None))
