"""Checking what callers give: texts, moments, tags; each is refused with an error that names it."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import partial
from inspect import iscoroutinefunction
from typing import Any

from pgresults.errors import InvalidArgument

MAX_TAG_BYTES = 256
"""The longest tag, in bytes of UTF-8: tags are indexed."""


def flaw_of(text: object, max_bytes: int | None = None) -> str | None:
    """Why a value cannot be stored as text of at most so many bytes of UTF-8; None when it can."""
    if not isinstance(text, str):
        return f"it is a {type(text).__name__}, not a str"
    if not text:
        return "it is empty"
    if "\0" in text:
        return "it holds a NUL character"
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return "it is no valid Unicode: it holds half a surrogate pair"
    if max_bytes is not None and size > max_bytes:
        return f"it has {size:,} bytes of UTF-8, the limit is {max_bytes:,}"
    return None


def require_text(text: str | None, argument: str, max_bytes: int | None = None) -> str | None:
    """Give a text back if it can be stored; None is left out.

    Raises: InvalidArgument naming the argument.
    """
    flaw = None if text is None else flaw_of(text, max_bytes)
    if flaw:
        raise InvalidArgument(f"{argument} cannot be stored: {flaw}", argument=argument, value=text)
    return text


def require_plain(function: object, argument: str) -> None:
    """See that something can be called for what it returns.

    Raises: InvalidArgument for what cannot be called, and for what would have to be awaited.
    """
    called = function
    while isinstance(called, partial):
        called = called.func
    if not callable(called):
        raise InvalidArgument(
            f"{argument} is a function, not a {type(called).__name__}", argument=argument, value=called
        )
    if any(map(iscoroutinefunction, (called, type(called).__call__))):
        raise InvalidArgument(
            f"{argument} is called, and not awaited: give a plain function, not an async one",
            argument=argument,
            value=function,
        )


def require_holder(holder: object) -> str:
    """Give the name of a holder back.

    Raises: InvalidArgument for what names nobody or cannot be stored.
    """
    if flaw := flaw_of(holder):
        raise InvalidArgument(f"a holder is named by a text: {flaw}", argument="holder", value=holder)
    return holder  # type: ignore[return-value]


def aware_utc(moment: Any) -> Any:
    """Give an aware datetime, or its ISO text, in UTC; raises ValueError for a naive one and for numbers."""
    if isinstance(moment, datetime) and moment.tzinfo is UTC:
        return moment
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    if not isinstance(moment, datetime):
        raise ValueError(  # noqa: TRY004  # pydantic lets a TypeError through
            f"not a datetime but {type(moment).__name__}: give e.g. datetime.now(UTC) + timedelta(...)"
        )
    if moment.utcoffset() is None:
        raise ValueError(f"{moment.isoformat()} is naive: give it a time zone, e.g. datetime.now(UTC)")
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{moment.isoformat()} cannot be said in UTC: give a time within years 1 to 9999") from None


def require_moment(moment: object, argument: str) -> datetime:
    """A moment in UTC.

    Raises: InvalidArgument for a naive one and for what is none.
    """
    try:
        return aware_utc(moment)  # type: ignore[no-any-return]
    except ValueError as error:
        raise InvalidArgument(f"{argument}: {error}", argument=argument, value=moment) from error


def require_number(number: object, argument: str, most: int = 2**63 - 1) -> int:
    """A number of something.

    Raises: InvalidArgument for what is no whole number, and for one that is below one or too large.
    """
    if not isinstance(number, int) or not 0 < number <= most:
        raise InvalidArgument(f"{argument} is a number from 1 to {most:,}", argument=argument, value=number)
    return number


_LONGEST = timedelta(days=1_000_000)  # added to the time of a call it still is a date


def require_span(span: object, argument: str) -> timedelta:
    """A time from now.

    Raises: InvalidArgument for what is no timedelta, and for one that is not above zero or of more than 1,000,000 days.
    """
    if not isinstance(span, timedelta) or not timedelta() < span <= _LONGEST:
        raise InvalidArgument(
            f"{argument} is a timedelta above zero and of at most {_LONGEST.days:,} days", argument=argument, value=span
        )
    return span


def require_staleness(stale_ok: object) -> timedelta:
    """By how much an answer may be behind; zero: not at all.

    Raises: InvalidArgument for what is no timedelta, and for one that is below zero.
    """
    if not isinstance(stale_ok, timedelta) or stale_ok < timedelta():
        raise InvalidArgument("stale_ok is a timedelta that is not below zero", argument="stale_ok", value=stale_ok)
    return stale_ok


def require_tags(tags: Iterable[str] | None) -> list[str] | None:
    """The tags as a list.

    Raises: InvalidArgument for a single text and for tags that are none.
    """
    if tags is None:
        return None
    if isinstance(tags, str) or not isinstance(tags, Iterable):
        raise InvalidArgument("tags are a list of texts", argument="tags", value=tags)
    given = list(tags)
    for tag in given:
        if flaw := flaw_of(tag, MAX_TAG_BYTES):
            raise InvalidArgument(f"the tag {tag!r} cannot be stored: {flaw}", argument="tags", value=given)
    return given
