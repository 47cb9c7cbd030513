"""``pgresults retention``: rules for what is kept, and what goes by them."""

from datetime import timedelta
from typing import Annotated
from uuid import UUID

import typer

from pgresults.cli.output import note, print_json_list, say
from pgresults.cli.progress import waiting
from pgresults.cli.session import session
from pgresults.cli.tables import print_rows
from pgresults.cli.values import duration
from pgresults.errors import PgResultsError
from pgresults.operations.retention import Due, RetentionRule
from pgresults.store import ResultStore

Because = Annotated[str, typer.Option(help="Why; kept in the history.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print a JSON array.")]

_SPARE = ("actor", "since", "db_user")
_SHOWN = 1000

app = typer.Typer(help="Rules for what is kept, how long.", invoke_without_command=True)


@app.callback()
def rules(
    context: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="What the next sweep takes by the rules.")] = False,
    within: Annotated[
        timedelta | None,
        typer.Option(parser=duration, metavar="SPAN", help="What goes by the rules up to then, for example 30d."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the rules; or what goes by them, when, and how many bytes that is."""
    if context.invoked_subcommand is not None:
        return
    with session(context).storage() as storage:
        store = ResultStore(result_storage=storage)
        if not dry_run and within is None:
            _print_rules(store.retention(), as_json)
            return
        with waiting("Looking through keys"):
            due = store.retention_due(within or timedelta())
    if as_json:
        print_json_list(one._asdict() for one in due)
        return
    print_rows(Due._fields[:-1], [one[:-1] for one in due[:_SHOWN]], ("payloads",))
    if len(due) > _SHOWN:
        note(f"{len(due) - _SHOWN:,} more are left out: --json gives all.")
    free = _final(due)
    held = sum(one.payloads for one in due if one.held)
    say(
        f"{sum(one.payloads for one in free):,} payloads of {sum(one.bytes for one in free):,} bytes would go"
        + (f", {held:,} more are on hold" if held else "")
    )


def _final(due: list[Due]) -> list[Due]:
    """What goes, each payload once: what is superseded goes with all of its key, if that goes."""
    whole = {one.key for one in due if one.version is None}
    return [one for one in due if not one.held and (one.version is None or one.key not in whole)]


def _print_rules(found: list[RetentionRule], as_json: bool) -> None:
    if as_json:
        print_json_list(one._asdict() for one in found)
    else:
        print_rows(RetentionRule._fields, found, _SPARE, ("id",))


@app.command("set")
def set_rule(
    context: typer.Context,
    reason: Because,
    prefix: Annotated[str | None, typer.Option(help="For keys that begin so; '' for all.")] = None,
    tag: Annotated[
        list[str] | None, typer.Option("--tag", help="For keys whose newest version has this; may be repeated.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="For keys whose newest version is a result of this task.")] = None,
    versions: Annotated[int | None, typer.Option(min=1, help="Keep so many newest versions.")] = None,
    age: Annotated[
        timedelta | None,
        typer.Option(parser=duration, metavar="SPAN", help="Keep a version so long after it was superseded."),
    ] = None,
    redact_after: Annotated[
        timedelta | None,
        typer.Option(parser=duration, metavar="SPAN", help="Erase everything so long after the last write."),
    ] = None,
) -> None:
    """Set a rule, which `pgresults sweep` carries out; a sweeper's or owner's role may do so."""
    if (prefix is not None) + bool(tag) + (task is not None) != 1:
        raise typer.BadParameter("give one of --prefix, --tag and --task")
    if versions is None and age is None and redact_after is None:
        raise typer.BadParameter("say what is kept: --versions, --age, --redact-after")
    with session(context).storage() as storage:
        store = ResultStore(result_storage=storage)
        placed = store.set_retention(prefix, tag or None, task, versions, age, redact_after, reason)
    say(f"rule {placed}")


@app.command()
def remove(
    context: typer.Context,
    rule: Annotated[UUID, typer.Argument(help="Its id, as `pgresults retention` lists it.")],
    reason: Because,
) -> None:
    """End a rule; what it alone has kept goes with the next sweep."""
    with session(context).storage() as storage:
        if not ResultStore(result_storage=storage).end_retention(rule, reason):
            raise PgResultsError(f"there is no rule {rule}; `pgresults retention` lists them")
    say(f"rule {rule} has ended")
