"""``pgresults history | show | diff``: what a key's results were."""

from dataclasses import asdict
from datetime import datetime
from difflib import unified_diff
from typing import Annotated

import typer

from pgresults.audit.past import find_as_of, find_version
from pgresults.cli.output import fail, note, print_json_list, say
from pgresults.cli.payloads import Raw, Unpickle, content_in, fetch_live, present
from pgresults.cli.progress import waiting
from pgresults.cli.results import Key
from pgresults.cli.rights import hint
from pgresults.cli.session import session
from pgresults.cli.tables import print_rows
from pgresults.cli.values import moment
from pgresults.database.programs import perform
from pgresults.database.standbys import looking_back
from pgresults.errors import MissingResult, PgResultsError
from pgresults.serializers.preview import Content
from pgresults.store import ResultStore

DIFFERENT, NOT_COMPARED = 1, 2

_COLUMNS = ("version", "action", "at", "actor", "expiration", "size", "tags", "reason")


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    for command in (history, show, diff):
        app.command()(command)


def history(
    context: typer.Context,
    key: Key,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array with every detail.")] = False,
) -> None:
    """Show everything that happened under KEY, oldest first."""
    with session(context).storage() as storage, waiting("Reading"):
        steps = ResultStore(result_storage=storage).history(key)
    if not steps:
        raise MissingResult(f"nothing ever happened under {key!r}", key=key, reason="never written")
    if as_json:
        said = (asdict(step) for step in steps)
        hidden = ("result", "has_result")
        print_json_list({name: value for name, value in step.items() if name not in hidden} for step in said)
    else:
        rows = (
            [", ".join(step.tags) if name == "tags" else getattr(step, name) for name in _COLUMNS] for step in steps
        )
        print_rows(_COLUMNS, rows)


def show(
    context: typer.Context,
    key: Key,
    version: Annotated[int | None, typer.Option(min=1, help="This version, as long as it is kept.")] = None,
    as_of: Annotated[
        datetime | None, typer.Option(parser=moment, metavar="TIME", help="What was live at a moment.")
    ] = None,
    raw: Raw = False,
    unpickle: Unpickle = False,
) -> None:
    """Print a result as it is, or as it was; of a pickled object only a preview."""
    if version is not None and as_of is not None:
        raise typer.BadParameter("give --version or --as-of, not both")
    with session(context).storage() as storage, waiting("Reading"):
        if version is not None:
            found = perform(find_version(storage, key, version, looking_back(storage.database)))
        elif as_of is not None:
            found = perform(find_as_of(storage, key, as_of, looking_back(storage.database, since=as_of)))
        else:
            found = fetch_live(storage, key)
        content = content_in(storage, found, key, unpickle)
    present(key, found, content, raw)


def diff(
    context: typer.Context,
    key: Key,
    old: Annotated[int, typer.Argument(min=1, metavar="V1", help="A version.")],
    new: Annotated[int, typer.Argument(min=1, metavar="V2", help="Another.")],
    unpickle: Unpickle = False,
) -> None:
    """Show how one version of KEY differs from another; of what is no text, JSON or plain value only whether it does.

    Exit code 0 no difference, 1 there is one, 2 could not compare.
    """
    try:
        with session(context).storage() as storage, waiting("Reading"):
            wanted = looking_back(storage.database)
            found = [perform(find_version(storage, key, version, wanted)) for version in (old, new)]
            before, after = (content_in(storage, one, key, unpickle) for one in found)
    except PgResultsError as error:  # only a difference may end with the code of one
        fail(f"{error}{hint('diff', error)}")
        raise typer.Exit(NOT_COMPARED) from error
    if (before.kind, before.data) == (after.kind, after.data) or before.lines() == after.lines() is not None:
        note("no difference")
        return
    _show_difference(f"{key} version {old}", before, f"{key} version {new}", after)
    raise typer.Exit(DIFFERENT)


def _show_difference(old: str, before: Content, new: str, after: Content) -> None:
    old_lines, new_lines = before.lines(), after.lines()
    if old_lines is not None and new_lines is not None:
        for line in unified_diff(old_lines, new_lines, old, new, lineterm=""):
            say(line)
        return
    say(f"different: {old} is {_summary(before)}, {new} is {_summary(after)}")
    if before.is_opaque or after.is_opaque:
        note("To see in what, add --unpickle if you trust who wrote them.")


def _summary(content: Content) -> str:
    return f"{content.kind} of {len(content.data):,} bytes"
