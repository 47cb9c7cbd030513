"""``pgresults hold | holds | release``: what nobody may take away."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

import typer

from pgresults.cli.output import print_json_list, say
from pgresults.cli.session import session
from pgresults.cli.tables import print_rows
from pgresults.cli.values import coming_moment
from pgresults.errors import PgResultsError
from pgresults.operations.holds import Hold
from pgresults.store import ResultStore

OfKey = Annotated[str | None, typer.Argument(metavar="[KEY]", help="A key.")]
Prefix = Annotated[str | None, typer.Option(help="All keys that begin so.")]
Tags = Annotated[
    list[str] | None, typer.Option("--tag", help="All of which any version carries this word; may be repeated.")
]
Because = Annotated[str, typer.Option(help="Why; kept in the history.")]

_SPARE = ("actor", "since")


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    for command in (hold, holds, release):
        app.command()(command)


def hold(
    context: typer.Context,
    reason: Because,
    key: OfKey = None,
    prefix: Prefix = None,
    tag: Tags = None,
    until: Annotated[
        datetime | None,
        typer.Option(parser=coming_moment, metavar="TIME", help="When it ends; without: when it is released."),
    ] = None,
) -> None:
    """Have nobody delete, erase or drop what is under KEY, a prefix or tags, whatever its rules say."""
    _require_one(key, prefix, tag)
    with session(context).storage() as storage:
        placed = ResultStore(result_storage=storage).hold(key, prefix, tag, reason, until)
    say(f"on hold: {_covered(key, prefix, tag)}, by hold {placed}")


def holds(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array.")] = False,
) -> None:
    """List the holds that stand: what they cover, why, since when, by whom."""
    with session(context).storage() as storage:
        standing = ResultStore(result_storage=storage).holds()
    if as_json:
        print_json_list(one._asdict() for one in standing)
    else:
        print_rows(Hold._fields, standing, _SPARE, ("id",))


def release(
    context: typer.Context,
    reason: Because,
    key: OfKey = None,
    prefix: Prefix = None,
    tag: Tags = None,
    hold_id: Annotated[
        UUID | None, typer.Option("--id", help="This hold alone, as `pgresults holds` lists it.")
    ] = None,
) -> None:
    """Release the holds on just this, whoever placed them; an auditor's or owner's role may do so."""
    if hold_id is None:
        _require_one(key, prefix, tag)
    elif (key, prefix, tag or None) != (None, None, None):
        raise typer.BadParameter("give --id alone")
    with session(context).storage() as storage:
        released = ResultStore(result_storage=storage).release_hold(key, prefix, tag or None, reason, hold_id)
    what = f"hold {hold_id}" if hold_id else _covered(key, prefix, tag)
    if not released:
        raise PgResultsError(f"no hold stands on just that: {what}; `pgresults holds` lists them")
    say(f"{released:,} holds released: {what}")


def _require_one(key: str | None, prefix: str | None, tags: list[str] | None) -> None:
    if (key is not None) + (prefix is not None) + bool(tags) != 1:
        raise typer.BadParameter("give a key, --prefix or --tag")


def _covered(key: str | None, prefix: str | None, tags: list[str] | None) -> str:
    if key is not None:
        return key
    return f"all that begins with {prefix!r}" if prefix is not None else f"all with {', '.join(tags or ())}"
