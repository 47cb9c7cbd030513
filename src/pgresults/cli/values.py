"""What users write on the command line, as values: spans and moments of time, sizes, texts."""

import math
import re
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import typer
from pydantic import ByteSize, TypeAdapter, ValidationError

_UNITS = {"w": "weeks", "d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
_SPAN = re.compile(
    r"(\d+)\s*(w|weeks?|d|days?|h|hrs?|hours?|m|mins?|minutes?|s|secs?|seconds?)(?:,?\s+|$|(?=\d))", re.ASCII
)
_BARE_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_LIKE_TIME = "2030-01-31, 2030-01-31T12:00:00Z, 3h ago, in 2 days or yesterday"


def duration(text: str) -> timedelta:
    """A time span such as ``7d``, ``1d12h`` or ``2 hours``; raises BadParameter."""
    span = _span(text)
    if span is None:
        raise typer.BadParameter(f"{text!r} is no time span; write for example 90s, 30m, 12h, 7d, 1d12h or 2 days")
    if not span:
        raise typer.BadParameter("a time span is longer than nothing")
    _from_now(span, text)
    return span


def moment(text: str) -> datetime:
    """A moment such as ``2030-01-31`` (UTC), ``2030-01-31T12:00:00+01:00``, ``3h ago`` or ``yesterday``.

    A bare span is so long ago. Raises BadParameter.
    """
    return _moment(text, -1)


def coming_moment(text: str) -> datetime:
    """A moment that is yet to come; a bare span is so long from now. Raises BadParameter."""
    given = _moment(text, 1)
    if given <= datetime.now(UTC):
        raise typer.BadParameter(f"{text!r} is {given:%Y-%m-%d %H:%M:%SZ}, which is in the past")
    return given


def size(text: str) -> int:
    """A number of bytes such as ``500``, ``10kB``, ``1.5 MB`` or ``2GiB``; raises BadParameter."""
    try:
        return TypeAdapter(ByteSize).validate_python(text)
    except ValidationError:
        raise typer.BadParameter(f"{text!r} is no size; write for example 500, 10kB, 1.5MB or 2GiB") from None


def require_one_expiration(expires_in: timedelta | None, expires_at: datetime | None) -> None:
    """Refuse an expiration that is said twice; raises BadParameter."""
    if expires_in is not None and expires_at is not None:
        raise typer.BadParameter("give --expires-in or --expires-at, not both")


def text_from_stdin() -> str:
    """The text on standard input, which is UTF-8 whatever the locale; raises BadParameter."""
    stream = getattr(sys.stdin, "buffer", None)
    if stream is None:
        raise typer.BadParameter("standard input is closed")
    try:
        return plain_text(stream.read().decode(), "standard input")
    except UnicodeDecodeError:
        raise typer.BadParameter("standard input is no UTF-8 text; store bytes with --file") from None


def plain_text(text: str, name: str) -> str:
    """Give a text back if it is one: with no NUL and no byte that the locale could not read; raises BadParameter."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise typer.BadParameter(f"{name} is no UTF-8 text; store bytes with --file") from None
    if "\0" in text:
        raise typer.BadParameter(f"{name} holds NUL, so it is no text; store bytes with --file")
    return text


def require_jsonb(document: Any) -> Any:
    """Give a document back if Postgres can read it as ``jsonb``.

    Raises: BadParameter for its texts; ValueError for NaN and for numbers beyond all bounds.
    """
    left = [document]
    while left:
        one = left.pop()
        if isinstance(one, str):
            plain_text(one, "VALUE")
        elif isinstance(one, float) and not math.isfinite(one):
            raise ValueError(f"{one} is no number there")
        elif isinstance(one, dict | list):
            left += [*one, *one.values()] if isinstance(one, dict) else one
    return document


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
        raise typer.BadParameter(f"{text!r} goes beyond the year 9999") from None
    return total


def _from_now(span: timedelta, text: str) -> datetime:
    try:
        return datetime.now(UTC) + span
    except OverflowError:
        raise typer.BadParameter(f"{text!r} is beyond the years 1 to 9999") from None


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
        raise typer.BadParameter(f"{text!r} has no time zone; write for example {given.isoformat()}Z for UTC")
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
        raise typer.BadParameter(f"{text!r} is no time; write for example {_LIKE_TIME}")
    moment: datetime = found.astimezone(UTC)
    return moment
