"""``pgresults log``: what happened in a storage."""

from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime, timedelta
from enum import StrEnum
from time import sleep
from typing import Annotated, Any

import typer

from pgresults.audit.log import LogEntry
from pgresults.audit.log import log as entries
from pgresults.cli.listing import AsJson, Since, Tags
from pgresults.cli.output import as_json_line, note, print_json_list, shown, terminal
from pgresults.cli.progress import waiting
from pgresults.cli.session import session
from pgresults.cli.tables import print_rows
from pgresults.cli.values import moment
from pgresults.database.programs import perform
from pgresults.database.standbys import looking_back
from pgresults.storage.postgres import PostgresStorage

_COLUMNS = ("at", "action", "key", "version", "actor", "size", "reason")
_SPARE = ("size", "version", "actor")
_BEGINNING = 10
_PAUSE = 1.0
_LATE = timedelta(minutes=1)
"""How long a transaction may last whose entries a follower still sees."""


class Action(StrEnum):
    """What an entry may say."""

    WRITE = "write"
    IMPORT = "import"
    TOUCH = "touch"
    DELETE = "delete"
    EXPIRE = "expire"
    REDACT = "redact"
    RETAIN = "retain"
    BREAK = "break"


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command()(log)


def log(
    context: typer.Context,
    prefix: Annotated[str | None, typer.Argument(help="Only keys that begin so; by default all.")] = None,
    actor: Annotated[str | None, typer.Option(help="Only what this user did, such as ann@host.")] = None,
    action: Annotated[Action | None, typer.Option(help="Only this.")] = None,
    tag: Tags = None,
    since: Since = None,
    until: Annotated[
        datetime | None, typer.Option(parser=moment, metavar="TIME", help="Only before that moment.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many of the newest.")] = 100,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what happens, the newest last.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what happened under all keys, the newest first."""
    if follow and until is not None:
        raise typer.BadParameter("--follow has no end: leave --until out")
    given: dict[str, Any] = {"prefix": prefix or None, "actor": actor, "action": action and action.value, "tags": tag}
    with session(context).storage() as storage:
        if follow:
            for one in _following(storage, given, since):
                typer.echo(as_json_line(_said(one)) if as_json else _line(one))
            return
        with waiting("Looking through the history"):
            found = perform(
                entries(storage, since, until, **given, limit=limit + 1, wanted=looking_back(storage.database))
            )
    if as_json:
        print_json_list(map(_said, found[:limit]))
    else:
        print_rows(_COLUMNS, map(_row, found[:limit]), _SPARE)
    if len(found) > limit:
        note(f"Older entries are left out: --limit gives more than {limit:,}.")


def _following(storage: PostgresStorage, given: dict[str, Any], since: datetime | None) -> Iterator[LogEntry]:
    """The newest entries and then, as they come, all further ones, oldest first.

    An entry carries the time of its statement and can be seen when its transaction is over: so there is a look back.
    """
    found = perform(entries(storage, since, **given, limit=None if since else _BEGINNING))
    seen: dict[tuple[str, int], datetime] = {}
    while True:
        for one in reversed(found):
            if (one.key, one.seq) not in seen:
                seen[one.key, one.seq] = one.at
                yield one
        newest = max(seen.values(), default=None)
        if newest is not None:
            seen = {place: at for place, at in seen.items() if at >= newest - _LATE}
        sleep(_PAUSE)
        found = perform(_newer(storage, given, newest))


def _newer(storage: PostgresStorage, given: dict[str, Any], newest: datetime | None) -> Any:
    return entries(storage, newest and newest - _LATE, **given)


def _said(one: LogEntry) -> dict[str, Any]:
    hidden = ("result", "has_result")
    return {"key": one.key} | {name: value for name, value in asdict(one).items() if name not in hidden}


def _row(one: LogEntry) -> list[Any]:
    said = _said(one)
    return [said[name] for name in _COLUMNS]


def _line(one: LogEntry) -> str:
    if not terminal.is_terminal:
        return "\t".join(shown(value) for value in _row(one))
    why = f": {one.reason}" if one.reason else ""
    return shown(f"{shown(one.at)}  {one.action:<6}  {one.key}  version {one.version} by {one.actor}{why}")
