"""What users write on the command line, as values."""

import re
from datetime import UTC, datetime, timedelta

import typer

_UNITS = {"w": "weeks", "d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
_DURATION = re.compile(r"(?:(\d+)([wdhms]))", re.ASCII)


def duration(text: str) -> timedelta:
    """A time span such as ``7d`` or ``1d12h``; raises BadParameter."""
    parts = _DURATION.findall(text)
    if not parts or "".join(map("".join, parts)) != text:
        raise typer.BadParameter(f"{text!r} is no time span; write for example 90s, 30m, 12h, 7d or 1d12h")
    try:
        span = sum((timedelta(**{_UNITS[unit]: int(number)}) for number, unit in parts), timedelta())
        datetime.now(UTC) + span
    except OverflowError:
        raise typer.BadParameter(f"{text!r} goes beyond the year 9999") from None
    if not span:
        raise typer.BadParameter("a time span is longer than nothing")
    return span


def moment(text: str) -> datetime:
    """A time with its zone such as ``2030-01-31T12:00:00+01:00``; raises BadParameter."""
    try:
        given = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no time; write for example 2030-01-31T12:00:00Z") from None
    if given.utcoffset() is None:
        raise typer.BadParameter(f"{text!r} has no time zone; write for example {given.isoformat()}Z for UTC")
    return given


def expiration(expires_in: timedelta | None, expires_at: datetime | None) -> datetime | None:
    """When a result shall expire; raises BadParameter when it is said twice."""
    if expires_in is not None and expires_at is not None:
        raise typer.BadParameter("give --expires-in or --expires-at, not both")
    return datetime.now(UTC) + expires_in if expires_in is not None else expires_at
