"""Showing something again and again."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from time import sleep
from typing import Annotated, TypeVar

import typer

from pgresults.cli.output import fail, shown, terminal
from pgresults.cli.values import duration
from pgresults.errors import StorageUnavailable

T = TypeVar("T")

Watch = Annotated[bool, typer.Option("--watch", help="Show it again and again; Ctrl-C ends that.")]
Every = Annotated[
    timedelta | None, typer.Option("--every", parser=duration, metavar="SPAN", help="How often, with --watch.")
]


def interval(watch: bool, every: timedelta | None, usual: timedelta) -> timedelta | None:
    """How often to look; None: once. Raises BadParameter."""
    if every is not None and not watch:
        raise typer.BadParameter("--every says how often --watch looks: give both")
    return (every or usual) if watch else None


def watching(
    every: timedelta | None, look: Callable[[], T], show: Callable[[T], None], until: Callable[[T], bool] | None = None
) -> T:
    """Look and show what was seen; on a terminal each time in the place of the time before.

    Parameters:
        every: how often; None: once. A database out of reach is said then, and ends nothing.
        look: looks.
        show: shows it.
        until: whether what was seen is the last to look for.

    Returns: what was seen last.
    """
    while True:
        try:
            seen = look()
        except StorageUnavailable as error:
            if every is None:
                raise
            fail(str(error))
        else:
            if every is not None and terminal.is_terminal:
                terminal.clear()
                terminal.print(f"{shown(datetime.now(UTC))}, every {every.total_seconds():g} s", style="dim")
            show(seen)
            if every is None or (until is not None and until(seen)):
                return seen
        sleep(every.total_seconds())
