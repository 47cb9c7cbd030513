"""Times and spans of time, as people write them."""

import re
from datetime import UTC, datetime, timedelta

from pgresults.errors import InvalidArgument

_UNITS = {"w": "weeks", "d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
_SPAN = re.compile(
    r"(\d+)\s*(w|weeks?|d|days?|h|hrs?|hours?|m|mins?|minutes?|s|secs?|seconds?)(?:,?\s+|$|(?=\d))", re.ASCII
)
_BARE_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_LIKE_TIME = "2030-01-31, 2030-01-31T12:00:00Z, 3h ago, in 2 days or yesterday"


def duration(text: str) -> timedelta:
    """A time span such as ``7d``, ``1d12h`` or ``2 hours``; raises InvalidArgument."""
    span = _span(text)
    if span is None:
        raise _useless(text, "is no time span; write for example 90s, 30m, 12h, 7d, 1d12h or 2 days")
    if not span:
        raise InvalidArgument("a time span is longer than nothing", value=text)
    _from_now(span, text)
    return span


def moment(text: str, ahead: bool = False) -> datetime:
    """A moment such as ``2030-01-31`` (UTC), ``2030-01-31T12:00:00+01:00``, ``3h ago`` or ``yesterday``.

    Parameters:
        text: what somebody wrote.
        ahead: whether a bare span is so long from now, and not so long ago.

    Raises: InvalidArgument.
    """
    return _moment(text, 1 if ahead else -1)


def _useless(text: str, why: str) -> InvalidArgument:
    return InvalidArgument(f"{text!r} {why}", value=text)


def _span(text: str) -> timedelta | None:
    """The sum of numbers with units that a text is, or None."""
    rest, total = text.strip().lower(), timedelta()
    if not rest:
        return None
    try:
        while rest:
            found = _SPAN.match(rest)
            if found is None:
                return None
            total += timedelta(**{_UNITS[found[2][0]]: int(found[1])})
            rest = rest[found.end() :]
    except (OverflowError, ValueError):
        raise _useless(text, "goes beyond the year 9999") from None
    return total


def _from_now(span: timedelta, text: str) -> datetime:
    try:
        return datetime.now(UTC) + span
    except OverflowError:
        raise _useless(text, "is beyond the years 1 to 9999") from None


def _moment(text: str, direction: int) -> datetime:
    written = text.strip()
    relative, ago, ahead = written, written.removesuffix(" ago"), written.removeprefix("in ")
    if ago != written:
        relative, direction = ago, -1
    elif ahead != written:
        relative, direction = ahead, 1
    if (span := _span(relative)) is not None:
        return _from_now(direction * span, text)
    try:
        given = datetime.fromisoformat(written)
    except ValueError:
        return _in_words(written, direction)
    if _BARE_DATE.fullmatch(written):
        return given.replace(tzinfo=UTC)
    if given.utcoffset() is None:
        raise _useless(text, f"has no time zone; write for example {given.isoformat()}Z for UTC")
    return given


def _in_words(text: str, direction: int) -> datetime:
    """A moment such as ``yesterday`` or ``3 May 2025``; in what has no letters day and month could be confused."""
    import dateparser  # takes a while, and few times are written so

    settings = {
        "STRICT_PARSING": True,
        "TIMEZONE": "UTC",
        "RETURN_AS_TIMEZONE_AWARE": True,
        "PREFER_DATES_FROM": "future" if direction > 0 else "past",
    }
    spelt = any(letter.isalpha() for letter in text)
    found = dateparser.parse(text, languages=["en"], settings=settings) if spelt else None
    if found is None:
        raise _useless(text, f"is no time; write for example {_LIKE_TIME}")
    moment: datetime = found.astimezone(UTC)
    return moment
