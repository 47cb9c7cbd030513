"""When a database call is tried again: where repeating is safe, and only there."""

from collections.abc import Iterator
from types import TracebackType

from pgresults.connections import Silence
from pgresults.errors import StorageUnavailable
from pgresults.translation import DRIVER_ERRORS, AlreadyStored, Conflict, ConnectionLost, translate

_MOST_LOSSES = 2
_MOST_TRIES = 20


class Attempt:
    """One try of a call: translates what the driver raises, and swallows it when another try may follow.

    ``repeated`` tells whether an earlier try may have been carried out. The caller says how far this one has come:
    ``connected`` once a connection is there, ``started`` before the first statement that changes anything.
    """

    __slots__ = ("_number", "_repeatable", "connected", "losses", "repeated", "started")

    def __init__(self, number: int = 1, losses: int = 0, *, repeatable: bool) -> None:
        self.repeated = losses > 0
        self.losses = losses
        self.connected = False
        self.started = False
        self._number = number
        self._repeatable = repeatable

    @classmethod
    def only(cls) -> "Attempt":
        """A try that no other may follow, on a connection that is there."""
        attempt = cls(_MOST_TRIES, repeatable=False)
        attempt.connected = attempt.started = True
        return attempt

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if not isinstance(error, DRIVER_ERRORS):
            return False
        translated = translate(error, connected=self.connected)
        if isinstance(translated, Conflict) and self._number < _MOST_TRIES:
            return True
        # After a silence the caller's time is up, whatever another try might bring.
        harmless = (self._repeatable or not self.started) and not isinstance(error, Silence)
        if harmless and self.losses < _MOST_LOSSES and isinstance(translated, (ConnectionLost, AlreadyStored)):
            self.losses += 1
            return True
        if isinstance(translated, StorageUnavailable):
            lost = isinstance(translated, ConnectionLost) and self.started
            translated.outcome_unknown = lost or self.repeated
        raise translated from error


def attempts(*, repeatable: bool) -> Iterator[Attempt]:
    """The tries of a call; the loop over them ends when one returns or raises.

    After a lost connection there are few; after a conflict with others, of which the server has undone everything,
    there are many.

    Parameters:
        repeatable: whether a second try can do no harm when the first got through.
    """
    attempt = Attempt(repeatable=repeatable)
    yield attempt
    for number in range(2, _MOST_TRIES + 1):
        attempt = Attempt(number, attempt.losses, repeatable=repeatable)
        yield attempt
