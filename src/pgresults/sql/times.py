"""Times as they come from the server."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, case, func, literal_column

_LAST_MOMENT: ColumnElement[Any] = literal_column("'9999-12-31 23:59:59.999999+00'::timestamptz")
_FIRST_MOMENT: ColumnElement[Any] = literal_column("'0001-01-01 00:00:00+00'::timestamptz")


def as_utc(moment: ColumnElement[Any]) -> ColumnElement[Any]:
    """A time in UTC without a zone, whatever the session's: at the end of the year 9999 others have no datetime.

    What an operator has put beyond all that Python can say is as good as never.
    """
    sayable = moment.between(_FIRST_MOMENT, _LAST_MOMENT)
    return case((sayable, func.timezone(literal_column("'UTC'"), moment)))


_LATEST: ColumnElement[Any] = literal_column("'9999-12-30 23:59:59.999999+00'::timestamptz")
_EARLIEST: ColumnElement[Any] = literal_column("'0001-01-02 00:00:00+00'::timestamptz")


def sayable(moment: ColumnElement[Any]) -> ColumnElement[Any]:
    """A time that Python has in every time zone: one that it has not, which no write of ours gives, as the nearest."""
    return case((moment > _LATEST, _LATEST), (moment < _EARLIEST, _EARLIEST), else_=moment)


FIRST, LAST = (moment.replace(tzinfo=UTC) for moment in (datetime.min, datetime.max))
"""What stands for a time that Python has not, where it was read as it is."""


def expiry(moment: datetime | None) -> datetime | None:
    """An expiration in UTC; one that Python has not is as good as none."""
    return None if moment is FIRST or moment is LAST else utc(moment)


def utc(moment: datetime | None) -> datetime | None:
    """The moment in UTC, whatever the session's time zone; a naive one is in UTC already."""
    if moment is None:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
