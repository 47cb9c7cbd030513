"""Where a read goes: to the standby where that is as new as the caller wants, else to the primary."""

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import NamedTuple, TypeAlias

from pgresults.arguments import require_staleness
from pgresults.database.database import Database
from pgresults.database.following import Following, Wanted, now
from pgresults.database.programs import Program, call
from pgresults.errors import ConfigurationError, PgResultsError, SchemaVersionError, StorageUnavailable
from pgresults.operations import standbys as operations
from pgresults.operations.requests import Operation, T
from pgresults.operations.standbys import Place

StartAt: TypeAlias = Callable[[Database, bool], Operation[T]]
"""Begins an operation at a database; see `Start`."""

_NO_SERVICE = (StorageUnavailable, ConfigurationError, SchemaVersionError)
"""What a standby may say in place of an answer; the primary is asked then."""


class _TooOld(PgResultsError):  # noqa: N818 (a signal between an operation and who began it)
    """The standby is not shown to be as new as it has to be."""


class Lag(NamedTuple):
    """How far a standby is behind its primary.

    Parameters:
        size: bytes of the log that it has yet to repeat.
        last: when what it repeated last was committed on the primary.
    """

    size: int
    last: datetime | None


def current(stale_ok: timedelta | None) -> Wanted | None:
    """How new an answer about the present has to be; None: the primary gives it.

    Raises: InvalidArgument for what is no time.
    """
    return None if stale_ok is None else Wanted(require_staleness(stale_ok).total_seconds(), own=False)


def looking_back(database: Database, stale_ok: timedelta | None = None, since: datetime | None = None) -> Wanted:
    """How new an answer about the past, or a listing, has to be.

    If nothing is said, as new as the settings say, and it has what this process has changed.

    Parameters:
        database: what is asked.
        stale_ok: what the caller says.
        since: the moment that the question is about, if it is about one.

    Raises: InvalidArgument for what is no time.
    """
    said = current(stale_ok) or Wanted(database.settings.read_staleness)
    return said._replace(since=since)


def reading(
    database: Database,
    start: StartAt[T],
    wanted: Wanted | None,
    *,
    atomic: bool = False,
    believed: Callable[[T], bool] = lambda _: True,
) -> Program[T]:
    """Have an operation that changes nothing carried out by the standby, or by the primary.

    Parameters:
        database: the primary, which may have a standby.
        start: begins the operation; it is told at which of them, and whether an earlier try may have been carried out.
        wanted: how new the answer has to be; None: the primary is asked.
        atomic: whether the operation needs a transaction at the primary; at a standby it always has one, so that its
            statements go to one server behind any pooler.
        believed: whether an answer of the standby is to be believed; one that says that something is missing is not.

    Raises: what `call` raises for the primary; never what speaks against the standby alone.
    """
    if wanted is None or database.standby is None or not wanted.seconds:
        return call(database, partial(start, database), atomic=atomic)
    return _reading(database, database.standby, start, wanted, atomic, believed)


def _reading(
    database: Database,
    standby: Database,
    start: StartAt[T],
    wanted: Wanted,
    atomic: bool,
    believed: Callable[[T], bool],
) -> Program[T]:
    following = database.following
    if not database.is_spread and following.may_try():
        yield from _marking(database, standby, wanted)
        try:
            answer = yield from call(
                standby, lambda repeated: _if_new(standby, following, wanted, start(standby, repeated)), atomic=True
            )
        except _TooOld:
            pass
        except _NO_SERVICE as error:
            following.gives_up(standby, error)
        else:
            following.serves()
            if believed(answer):
                return answer
    return (yield from call(database, partial(start, database), atomic=atomic))


def _marking(database: Database, standby: Database, wanted: Wanted) -> Program[None]:
    """See that it is known where the primary is; while it is out of reach, what was known before serves as long as it
    is new enough."""
    following = database.following
    if following.wants_mark(wanted):
        asked = now()
        try:
            following.note_mark(asked, (yield from call(database, lambda _: operations.place())))
        except StorageUnavailable:
            if not following.has_mark(wanted):
                raise
        except _NO_SERVICE as error:
            following.gives_up(standby, error)


def _if_new(standby: Database, following: Following, wanted: Wanted, operation: Operation[T]) -> Operation[T]:
    """Carry an operation out on a standby that is shown to be new enough before, on the same connection."""
    _require_standby(following, (place := (yield from operations.place())))
    # How far a coordinator has come says nothing of the servers that its tables are spread over.
    if standby.is_spread or not following.proves(place, wanted):
        raise _TooOld("the standby is behind")
    return (yield from operation)


def _require_standby(following: Following, place: Place) -> None:
    if not place.follows:
        raise ConfigurationError(
            "PGRESULTS_READ_URL (read_url) leads to a server that follows no other one, such as a standby that was "
            "promoted: what it has may be another history",
            setting="read_url",
        )
    if following.is_of_another(place):
        raise ConfigurationError(
            "PGRESULTS_READ_URL (read_url) leads to a standby of another server or to another database than that of "
            "PGRESULTS_DATABASE_URL",
            setting="read_url",
        )


def lag(database: Database, standby: Database) -> Program[Lag]:
    """How far a standby is behind.

    Raises: ConfigurationError where it is none of this database, or follows another branch of its history;
        StorageUnavailable; SchemaVersionError.
    """
    following, asked = Following(), now()
    primary = yield from call(database, lambda _: operations.place())
    following.note_mark(asked, primary)
    place = yield from call(standby, lambda _: operations.place())
    _require_standby(following, place)
    if place.timeline != primary.timeline and not primary.follows:
        raise ConfigurationError(
            f"the standby is on timeline {place.timeline} of the history, its primary on {primary.timeline}: after a "
            "failover it takes until its next restart point, or it does not follow the new primary",
            setting="read_url",
        )
    last = yield from call(standby, lambda _: operations.last_replayed())
    return Lag(max(0, primary.lsn - place.lsn), last)
