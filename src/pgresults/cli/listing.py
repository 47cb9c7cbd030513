"""``pgresults ls | expiring | storages``: what there is."""

import sys
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import islice
from typing import Annotated, Any

import typer

from pgresults.cli.output import print_json_list
from pgresults.cli.progress import waiting
from pgresults.cli.session import session
from pgresults.cli.tables import print_rows
from pgresults.cli.values import duration, moment, size
from pgresults.database.following import Wanted
from pgresults.database.programs import call, perform
from pgresults.database.standbys import looking_back
from pgresults.operations import views
from pgresults.operations.results import Listed
from pgresults.operations.views import FoundResult
from pgresults.storage import finding
from pgresults.storage.postgres import PostgresStorage
from pgresults.store import ResultStore

AsJson = Annotated[bool, typer.Option("--json", help="Print a JSON array with every detail.")]
Limit = Annotated[int | None, typer.Option(min=1, help="How many at most; by default all.")]
Tags = Annotated[list[str] | None, typer.Option(help="Only what carries this word; may be repeated.")]
Task = Annotated[str | None, typer.Option(help="Only what this task wrote.")]
Flow = Annotated[str | None, typer.Option(help="Only what was written in this flow.")]
Since = Annotated[
    datetime | None,
    typer.Option(parser=moment, metavar="TIME", help="Only from then on, for example 2030-01-31, 3h ago or yesterday."),
]

_COLUMNS = ("key", "version", "created_at", "expires_at", "size", "serializer", "tags", "task", "flow")
_SPARE = ("flow", "serializer", "task", "version", "tags")


class Sort(StrEnum):
    """What a list is sorted by: by time the latest first, by size the largest."""

    KEY = "key"
    WRITTEN = "written"
    EXPIRES = "expires"
    SIZE = "size"


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    for command in (ls, expiring, storages):
        app.command()(command)


def ls(
    context: typer.Context,
    prefix: Annotated[str | None, typer.Argument(help="Only keys that begin so; by default all.")] = None,
    tag: Tags = None,
    task: Task = None,
    flow: Flow = None,
    min_size: Annotated[
        int | None, typer.Option(parser=size, metavar="SIZE", help="Bytes at least, for example 10kB or 1.5MB.")
    ] = None,
    since: Since = None,
    sort: Annotated[Sort, typer.Option(help="By time the latest first, by size the largest.")] = Sort.KEY,
    limit: Limit = None,
    as_json: AsJson = False,
) -> None:
    """List the live results."""
    chosen = finding.conditions(prefix or None, tag, task, flow, since, None, None, min_size, None)
    with session(context).storage() as storage:
        with waiting("Looking for results"):
            rows: Iterable[FoundResult] = islice(
                _sorted(live(storage, chosen, looking_back(storage.database)), sort), limit
            )
            rows = rows if as_json else list(rows)
        if as_json:
            print_json_list(row._asdict() for row in rows)
        else:
            print_rows(_COLUMNS, ([_cell(row, name) for name in _COLUMNS] for row in rows), _SPARE)


def _cell(row: FoundResult, name: str) -> object:
    return ", ".join(row.tags or ()) or None if name == "tags" else getattr(row, name)


def live(storage: PostgresStorage, chosen: Mapping[str, Any], wanted: Wanted | None = None) -> Iterator[FoundResult]:
    """The live results that meet conditions, page by page; see `reading` for how new they have to be."""
    after = ""
    while page := perform(finding.page_of(storage, chosen, after, finding.PAGE, wanted)):
        yield from page
        after = page[-1].key


def _sorted(rows: Iterator[FoundResult], sort: Sort) -> Iterator[FoundResult]:
    match sort:
        case Sort.KEY:
            return rows
        case Sort.WRITTEN:
            return iter(sorted(rows, key=lambda row: row.created_at, reverse=True))
        case Sort.SIZE:
            return iter(sorted(rows, key=lambda row: row.size, reverse=True))
    return iter(sorted(rows, key=lambda row: row.expires_at.timestamp() if row.expires_at else sys.maxsize))


def expiring(
    context: typer.Context,
    within: Annotated[timedelta, typer.Option(parser=duration, metavar="SPAN", help="For example 1d or 12h.")],
    limit: Limit = None,
    as_json: AsJson = False,
) -> None:
    """List what expires within a time from now, the next one first."""
    with session(context).storage() as storage, waiting("Looking for results"):
        listed = ResultStore(result_storage=storage).expiring(within, limit)
    if as_json:
        print_json_list(row._asdict() for row in listed)
    else:
        print_rows(Listed._fields, listed, _SPARE)


def storages(context: typer.Context, as_json: AsJson = False) -> None:
    """List the storages of the schema, with what they hold."""
    with session(context).database(there=True) as storage, waiting("Counting"):
        found = perform(call(storage.database, lambda _: views.storages()))
    if as_json:
        print_json_list(row._asdict() for row in found)
    else:
        print_rows(views.StorageRow._fields, found)
