"""What users write on the command line, as values: spans and moments of time, sizes, texts."""

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import typer
from pydantic import ByteSize, TypeAdapter, ValidationError

from pgresults.errors import InvalidArgument
from pgresults.records import moments


def duration(text: str) -> timedelta:
    """A time span such as ``7d``, ``1d12h`` or ``2 hours``; raises BadParameter."""
    with _refused():
        return moments.duration(text)


def moment(text: str) -> datetime:
    """A moment such as ``2030-01-31`` (UTC), ``2030-01-31T12:00:00+01:00``, ``3h ago`` or ``yesterday``.

    A bare span is so long ago. Raises BadParameter.
    """
    with _refused():
        return moments.moment(text)


def coming_moment(text: str) -> datetime:
    """A moment that is yet to come; a bare span is so long from now. Raises BadParameter."""
    with _refused():
        given = moments.moment(text, ahead=True)
    if given <= datetime.now(UTC):
        raise typer.BadParameter(f"{text!r} is {given:%Y-%m-%d %H:%M:%SZ}, which is in the past")
    return given


@contextmanager
def _refused() -> Iterator[None]:
    """Refuse as the command line does what somebody wrote."""
    try:
        yield
    except InvalidArgument as error:
        raise typer.BadParameter(str(error)) from None


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
