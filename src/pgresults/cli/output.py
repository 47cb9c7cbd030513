"""Printing: lines, notes and errors that are safe on a terminal; JSON and bytes for programs."""

import json
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer
from rich.console import Console
from rich.text import Text

from pgresults.records.texts import UNSHOWABLE, visible

Output = Annotated[
    Path | None, typer.Option("--output", "-o", dir_okay=False, writable=True, help="By default standard output.")
]

terminal = Console(highlight=False)
errors = Console(stderr=True, highlight=False, soft_wrap=True)

_LIBRARYS_TIME = re.compile(r"\b(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(?:\.\d+)?\+00:00(?!:?\d)")


def in_our_times(message: str) -> str:
    """A message of the library, its times written as all times here are."""
    return _LIBRARYS_TIME.sub(r"\1 \2Z", message)


def shown(value: object) -> str:
    """The value as text that is safe to print on one line."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case datetime():
            return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"
    return visible(str(value))


def steers_terminal(content: bytes) -> bool:
    """Whether a terminal would do something else with it than show it as a text of lines."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return True
    return UNSHOWABLE.search(text.translate(dict.fromkeys(map(ord, "\t\r\n")))) is not None


def say(line: str) -> None:
    """Print one line."""
    typer.echo(shown(line))


def note(line: str) -> None:
    """Tell the user something beside the output, on stderr."""
    errors.print(Text(shown(line)))


def fail(message: str) -> None:
    """Print an error and its advice in red, on stderr."""
    errors.print(Text(f"error: {shown(in_our_times(message))}", style="red"))


def print_json(value: object) -> None:
    """Print one JSON document, readable by people and programs."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=_plain)
    typer.echo("\n".join(map(shown, text.split("\n"))))


def as_json_line(value: object) -> str:
    """A JSON document on one line."""
    return json.dumps(value, default=_plain)


def print_json_list(items: Iterable[object]) -> None:
    """Print a JSON array, one item a line, as the items come."""
    separator = "["
    for item in items:
        typer.echo(separator + as_json_line(item), nl=False)
        separator = ",\n "
    typer.echo("]" if separator != "[" else "[]")


def print_bytes(content: bytes) -> None:
    """Print bytes as they are."""
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


def _plain(value: object) -> object:
    match value:
        case datetime():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case UUID() | Path():
            return str(value)
    raise TypeError(f"{type(value).__name__} is nothing the command line lists")


@contextmanager
def replacing(output: Path) -> Iterator[Path]:
    """Where to write a file that takes its place when it is complete: an interrupted one replaces nothing.

    What a link leads to is replaced, and who may read it stays as it was.
    """
    if output.exists() and not output.is_file():
        yield output  # a device or a pipe
        return
    target = output.resolve()
    beside = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        beside.touch()
        if target.exists():
            beside.chmod(stat.S_IMODE(target.stat().st_mode))
        yield beside
        beside.replace(target)
    except OSError as error:
        if error.filename == str(beside):
            error.filename = str(output)
        raise
    finally:
        beside.unlink(missing_ok=True)
