"""Times as they come from the server."""

from datetime import UTC, datetime


def utc(moment: datetime | None) -> datetime | None:
    """The moment in UTC, whatever the session's time zone; a naive one is in UTC already."""
    if moment is None:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
