"""What a command shows while it works, and what it asks before it destroys."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn

from pgresults.cli.output import errors


@contextmanager
def on_terminal(*columns: ProgressColumn) -> Iterator[Progress]:
    """A progress display on stderr; nothing is printed where that is no terminal."""
    if errors.is_terminal:
        with Progress(*columns, console=errors) as progress:
            yield progress
    else:
        yield Progress(*columns, console=errors, disable=True)  # not begun: at its end rich 13 prints a line


@contextmanager
def counting(label: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """A bar on stderr, on a terminal only; gives what moves it on."""
    columns = (TextColumn(label), BarColumn(), TextColumn("{task.completed:,.0f}"), TimeElapsedColumn())
    with on_terminal(*columns) as progress:
        task = progress.add_task("", total=total)
        yield lambda done: progress.advance(task, done)


def confirm(question: str, agreed: bool) -> None:
    """Ask before something is destroyed, unless the user has agreed already; ends the program on a no."""
    if not agreed:
        typer.confirm(question, abort=True, err=True)
