"""Time that runs out."""

import time
from dataclasses import dataclass

from pgresults.errors import InvalidArgument


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
        if not isinstance(seconds, int | float) or not seconds >= 0:
            raise InvalidArgument(
                f"{argument} is a number of seconds, 0 or more, or None", argument=argument, value=seconds
            )
        return cls(time.monotonic() + seconds)

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
