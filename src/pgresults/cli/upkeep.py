"""``pgresults sweep | retain``: what need not be kept."""

import time
from datetime import timedelta
from typing import Annotated

import typer

from pgresults.audit.sweeping import Taken
from pgresults.cli.output import say
from pgresults.cli.progress import confirm, counting
from pgresults.cli.removing import Yes
from pgresults.cli.session import session
from pgresults.cli.values import duration
from pgresults.store import ResultStore

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say how many there are.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    for command in (sweep, retain):
        app.command()(command)


def sweep(
    context: typer.Context,
    every: Annotated[
        timedelta | None, typer.Option(parser=duration, metavar="SPAN", help="Again and again, for example 5m.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, max=100_000, help="Results in one transaction.")] = 1000,
    dry_run: DryRun = False,
) -> None:
    """Delete what has expired, and what rules of retention let go; history stays. Any number of processes may do so."""
    with session(context).storage() as storage:
        store = ResultStore(result_storage=storage)
        while True:
            with counting("Sweeping") as progress:
                swept = store.sweep(batch_size, dry_run, progress)
            ruled = (
                f", {swept.by_rules:,} payloads {'would go' if dry_run else 'gone'} by rules" if swept.by_rules else ""
            )
            say(f"{swept:,} expired results {'are there' if dry_run else 'swept'}{ruled}{_kept(swept)}")
            if every is None:
                return
            time.sleep(every.total_seconds())


def retain(
    context: typer.Context,
    versions: Annotated[int | None, typer.Option(min=1, help="Keep so many last versions of each key.")] = None,
    age: Annotated[
        timedelta | None,
        typer.Option(parser=duration, metavar="SPAN", help="Keep a version so long after it was superseded."),
    ] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Take the payloads of superseded versions away; what is current and all history stay."""
    if versions is None and age is None:
        raise typer.BadParameter("say what to keep: --versions, --age, or both")
    with session(context).storage() as storage:
        store = ResultStore(result_storage=storage)
        if not dry_run:
            confirm("Take the payloads of superseded versions away for good?", yes)
        with counting("Looking through keys") as progress:
            gone = store.retain(versions, age, dry_run, progress)
    say(f"{gone:,} payloads {'would go' if dry_run else 'taken away'}{_kept(gone)}")


def _kept(taken: Taken) -> str:
    """What is said of those that a hold kept."""
    return f", {taken.held:,} more on hold" if taken.held else ""
