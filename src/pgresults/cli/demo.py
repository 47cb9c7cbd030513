"""``pgresults demo``: the main job, with its progress and its summary."""

import os
import time
from dataclasses import asdict, dataclass
from datetime import UTC, timedelta
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn

from pgresults.cli.output import note, print_json, say, shown
from pgresults.cli.progress import on_terminal
from pgresults.cli.session import Create, session, where
from pgresults.cli.tables import print_rows
from pgresults.cli.values import duration
from pgresults.demo import report
from pgresults.demo.modules import Module, distinct, standard_library
from pgresults.demo.runner import analyse_library
from pgresults.errors import PgResultsError
from pgresults.runtime.mapping import MapProgress
from pgresults.storage.postgres import PostgresStorage


@dataclass(frozen=True, slots=True)
class Run:
    """How many modules there were, how many of them repeat another's content, and for how many of the others a result
    was computed or there from an earlier run; time in seconds.
    """

    modules: int
    copies: int
    computed: int
    reused: int
    seconds: float

    def __str__(self) -> str:
        copies = f", {self.copies:,} of them copies" if self.copies else ""
        counts = f"{self.computed:,} computed, {self.reused:,} reused"
        return f"{self.modules:,} modules{copies}: {counts}, in {self.seconds:.1f} s"


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command()(demo)


def demo(
    context: typer.Context,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first modules by name.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Worker processes; by default one a processor.")] = None,
    expires_in: Annotated[
        timedelta, typer.Option(parser=duration, metavar="SPAN", help="How long the results are kept.")
    ] = "7d",  # type: ignore[assignment] # parsed like what a user writes
    create: Create = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Analyse every module of Python's standard library, once: a second run reuses the results."""
    started = time.monotonic()
    with session(context).storage(create=create) as storage:
        note(f"Results go to {where(storage.database)}.")
        modules, done = _analyse(storage, limit, expires_in, workers or os.cpu_count() or 1)
        if not modules:
            raise PgResultsError("this Python keeps no standard library as files: nothing to analyse")
        keys = [module.key for module in distinct(modules)]
        seconds = round(time.monotonic() - started, 2)
        run = Run(len(modules), len(modules) - len(keys), done.computed, done.reused, seconds)
        _summarise(storage, keys, run, as_json)


def _analyse(
    storage: PostgresStorage, limit: int | None, expires_in: timedelta, workers: int
) -> tuple[list[Module], MapProgress]:
    done = [MapProgress(0, 0, 0)]
    columns = (TextColumn("Analysing"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with on_terminal(*columns) as progress:
        bar = progress.add_task("", total=None)

        def show(now: MapProgress) -> None:
            done.append(now)
            progress.update(bar, total=now.total, completed=now.done)

        try:
            modules = analyse_library.with_options(result_storage=storage)(limit, expires_in, workers, show)
        except KeyboardInterrupt:
            wanted = distinct(standard_library(limit))
            stored = len(report.live_keys(storage, [module.key for module in wanted]))
            note(f"Interrupted: {stored:,} of {len(wanted):,} results are stored. The same command resumes there.")
            raise
    return modules, done[-1]


def _summarise(storage: PostgresStorage, keys: list[str], run: Run, as_json: bool) -> None:
    totals, functions = report.totals(storage, keys), report.most_complex(storage, keys)
    expirations = report.expirations(storage)
    if as_json:
        parts = {"totals": totals._asdict(), "most_complex": [row._asdict() for row in functions]}
        print_json(asdict(run) | parts | {"expirations": [row._asdict() for row in expirations]})
        return
    say(str(run))
    say(
        f"{totals.lines:,} lines, {totals.classes:,} classes and {totals.functions:,} functions in {totals.results:,} "
        f"distinct files, {totals.unparsable:,} of them not parsable as Python"
    )
    say("The most complex functions:")
    print_rows(report.Complex._fields, functions)
    say("What expires when:")
    for row in expirations:
        verb = "expired" if row.expired else "expire"
        say(f"{row.results:,} results of {row.bytes:,} bytes {verb} at {shown(row.expires_at.astimezone(UTC))}")
