"""Printing: tables and colour on a terminal; tab-separated lines, or JSON, for programs."""

import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from sqlalchemy import URL

terminal = Console(highlight=False)
errors = Console(stderr=True, highlight=False, soft_wrap=True)

# What would steer a terminal, turn the reading direction, or not be encodable.
_UNSHOWABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


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
            return f"{value:%Y-%m-%d %H:%M:%S}Z"
    return _UNSHOWABLE.sub(lambda found: json.dumps(found[0])[1:-1], str(value))


def say(line: str) -> None:
    """Print one line."""
    typer.echo(shown(line))


def note(line: str) -> None:
    """Tell the user something beside the output, on stderr."""
    errors.print(Text(shown(line)))


def fail(message: str) -> None:
    """Print an error and its advice in red, on stderr."""
    errors.print(Text(f"error: {shown(message)}", style="red"))


def reason_of(error: OSError) -> str:
    """What went wrong with which file, in one line."""
    reason = error.strerror or str(error)
    return f"{error.filename}: {reason}" if error.filename else reason


def print_rows(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows: as a table on a terminal, as tab-separated lines without a heading in a pipe."""
    if not terminal.is_terminal:
        for row in rows:
            typer.echo("\t".join(_exact(value) for value in row))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(shown(value), justify=_justify(value)) for value in row))
    terminal.print(table)


def print_json(value: object) -> None:
    """Print one JSON document, readable by people and programs."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=_plain)
    typer.echo("\n".join(map(shown, text.split("\n"))))


def print_json_list(items: Iterable[object]) -> None:
    """Print a JSON array, one item a line, as the items come."""
    separator = "["
    for item in items:
        typer.echo(separator + json.dumps(item, default=_plain), nl=False)
        separator = ",\n "
    typer.echo("]" if separator != "[" else "[]")


def print_bytes(content: bytes) -> None:
    """Print bytes as they are."""
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


def masked(url: URL) -> str:
    """The URL without its passwords, also where they are parameters."""
    secrets = [name for name in url.query if "password" in name]
    return url.set(drivername="postgresql").difference_update_query(secrets).render_as_string(hide_password=True)


def _exact(value: object) -> str:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else shown(value)


def _justify(value: object) -> Any:
    return "right" if isinstance(value, int) and not isinstance(value, bool) else "left"


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
    """Where to write a file that takes its place when it is complete: an interrupted one replaces nothing."""
    if output.exists() and not output.is_file():
        yield output  # a device or a pipe
        return
    beside = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        yield beside
        beside.replace(output)
    except OSError as error:
        if error.filename == str(beside):
            error.filename = str(output)
        raise
    finally:
        beside.unlink(missing_ok=True)
