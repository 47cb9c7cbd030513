"""Up to where a server has come, so that a standby can be compared with its primary."""

from datetime import datetime, timedelta
from typing import NamedTuple

from pgresults.operations.requests import Execute, Operation
from pgresults.sql import standbys as statements


class Place(NamedTuple):
    """Where a server is in the log of changes.

    Parameters:
        follows: whether it is a standby.
        system: what is the same in a primary and its standbys alone.
        database: the database's number there.
        timeline: which of the histories that failovers branch off; a standby's may be an earlier one than it is on.
        lsn: the bytes of the log that are certain, or that a standby has repeated.
        written: the bytes of the log with those that a crash would take back.
        delay: after what time at most a commit is certain for which nobody waits to be so (``synchronous_commit``).
        at: what time it is by the server's clock.
    """

    follows: bool
    system: int
    database: int
    timeline: int
    lsn: int
    written: int
    delay: timedelta
    at: datetime


def place() -> Operation[Place]:
    """Where a server is."""
    return Place(*(yield Execute(statements.PLACE, {}))[0])


def last_replayed() -> Operation[datetime | None]:
    """When what a standby repeated last was committed; None where it has repeated nothing yet."""
    moment: datetime | None = (yield Execute(statements.LAST_REPLAYED, {}))[0][0]
    return moment
