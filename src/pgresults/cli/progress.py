"""What a command shows while it works, and what it asks before it destroys."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import typer
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from pgresults.cli.output import errors

_SOON = 1.0
"""Seconds that nobody needs to be told of."""


@contextmanager
def on_terminal(*columns: ProgressColumn) -> Iterator[Progress]:
    """A progress display on stderr; nothing is printed where that is no terminal."""
    if errors.is_terminal:
        with Progress(*columns, console=errors) as progress:
            yield progress
    else:
        yield Progress(*columns, console=errors, disable=True)  # not begun: at its end rich 13 prints a line


@contextmanager
def waiting(label: str) -> Iterator[None]:
    """Something that moves on stderr while the block runs, on a terminal only, once that takes longer than a second."""
    progress = Progress(SpinnerColumn(), TextColumn(label), TimeElapsedColumn(), console=errors, transient=True)
    progress.add_task("", total=None)
    with _shown_late(progress):
        yield


@contextmanager
def copying(*steps: str, total: int | None) -> Iterator[list[Callable[[int], None]]]:
    """A bar for each step that many bytes take, shown as `waiting` is; gives what is told of the bytes so far."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    progress = Progress(*columns, console=errors, transient=True)
    with _shown_late(progress):
        yield [partial(_moved, progress, progress.add_task(step, total=total)) for step in steps]


def _moved(progress: Progress, task: TaskID, done: int) -> None:
    progress.update(task, completed=done)


@contextmanager
def _shown_late(progress: Progress) -> Iterator[None]:
    if not errors.is_terminal:
        yield
        return
    late = threading.Timer(_SOON, progress.start)
    late.daemon = True
    late.start()
    try:
        yield
    finally:
        late.cancel()
        late.join()
        if progress.live.is_started:
            progress.stop()


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
