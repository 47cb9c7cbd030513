"""When a database call is tried again: where repeating is safe, and only there."""

import sys
from types import TracebackType

from pgresults.database.connections import NoneFree, Silence
from pgresults.database.errors import DRIVER_ERRORS, AlreadyStored, Conflict, ConnectionLost, ReadOnlyError, translate
from pgresults.database.telemetry import count, note_retry, type_of
from pgresults.errors import StorageUnavailable
from pgresults.interruptions import interruption_behind
from pgresults.operations.requests import Request

_MOST_LOSSES = 2
_MOST_TRIES = 20
_CONFLICTS = "40"
"""How the states begin of what the server undid for another transaction's sake; a session may forget things, too."""


class Attempts:
    """The tries of a call, in a context entered for each of them until one returns or raises.

    It translates what the driver raises, and swallows it where another try may follow: after a lost connection there
    are few, after a conflict with others, of which the server has undone everything, there are many.

    The caller says how far a try has come: ``connected`` once a connection is there, ``started`` before the first
    statement that changes anything.

    Parameters:
        repeatable: whether another try can do no harm when one got through unnoticed.
        most: how many tries there are at most.
    """

    __slots__ = (
        "_changes",
        "_changing",
        "_handled",
        "_left",
        "_losses",
        "_refused",
        "_repeatable",
        "connected",
        "started",
    )

    def __init__(self, *, repeatable: bool, most: int = _MOST_TRIES) -> None:
        self._left = most
        self._losses = 0
        self._changing = self._refused = False
        self._changes = 0
        self._handled: BaseException | None = None
        self._repeatable = repeatable
        self.connected = False
        self.started = False

    @classmethod
    def only(cls) -> "Attempts":
        """A single try, on a connection that is there."""
        only = cls(repeatable=False, most=1)
        only.connected = only.started = True
        return only

    def note(self, request: Request) -> None:
        """Be told what is about to be asked for."""
        if request.statement.changes:
            self._changing = True
            self._changes += 1

    @property
    def changing(self) -> bool:
        """Whether anything was asked for that changes something."""
        return self._changing

    @property
    def repeated(self) -> bool:
        """Whether an earlier try may have been carried out."""
        return self._losses > 0

    @property
    def distrustful(self) -> bool:
        """Whether connections that were opened before the last try are not to be trusted."""
        return self._losses > 0 or self._refused

    def __enter__(self) -> None:
        self._left -= 1
        self._changes = 0
        self._handled = sys.exc_info()[1]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if not isinstance(error, DRIVER_ERRORS):
            return False
        if (interruption := interruption_behind(error, self._handled)) is not None:
            try:
                raise interruption  # what it left behind is no failure of the database's
            finally:
                del error, interruption  # the traceback keeps this frame
        translated = translate(error, connected=self.connected)
        _count(error, translated)
        if self._may_follow(error, translated):
            note_retry(translated)
            self.connected = self.started = False
            return True
        if isinstance(translated, StorageUnavailable):
            lost = isinstance(translated, ConnectionLost) and self.started
            translated.outcome_unknown = self._changing and (lost or self.repeated)
        raise translated from error

    def _may_follow(self, error: BaseException, translated: Exception) -> bool:
        """Whether another try may follow one that failed."""
        if not self._left:
            return False
        if isinstance(translated, Conflict):
            return True
        if isinstance(translated, ReadOnlyError):
            # A server that has become a standby since; on a new connection it may be another one.
            return self._refuse()
        # After a silence the caller's time is up, whatever another try might bring.
        harmless = (self._repeatable or not self.started) and not isinstance(error, Silence)
        if harmless and self._losses < _MOST_LOSSES and isinstance(translated, (ConnectionLost, AlreadyStored)):
            self._losses += 1
            return True
        return False

    def _refuse(self) -> bool:
        """Note that the server takes no changes; gives whether another try may find one that does."""
        refused_before, self._refused = self._refused, True
        return not refused_before and (self._repeatable or self._changes <= 1)


def _count(error: BaseException, translated: Exception) -> None:
    if isinstance(translated, Conflict) and (state := type_of(translated)).startswith(_CONFLICTS):
        count("pgresults.conflicts", error_type=state)
    elif isinstance(error, NoneFree):
        count("db.client.connection.timeouts")
