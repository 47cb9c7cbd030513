"""``pgresults history | show | diff``: what a key's results were."""

import json
from dataclasses import asdict
from datetime import datetime
from difflib import unified_diff
from pprint import pformat
from typing import Annotated

import typer

from pgresults.audit.past import find_as_of, find_version
from pgresults.cli.output import note, print_json_list, print_rows, say
from pgresults.cli.preview import Content, content_of
from pgresults.cli.results import Key, fetch_live, present
from pgresults.cli.session import session
from pgresults.cli.values import moment
from pgresults.effects import perform
from pgresults.encoding import require_intact
from pgresults.errors import MissingResult
from pgresults.operations.results import Found
from pgresults.store import ResultStore

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
    with session(context).storage() as storage:
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
) -> None:
    """Print a result as it is, or as it was; of a pickled object only a preview."""
    if version is not None and as_of is not None:
        raise typer.BadParameter("give --version or --as-of, not both")
    with session(context).storage() as storage:
        if version is not None:
            found = perform(find_version(storage, key, version))
        elif as_of is not None:
            found = perform(find_as_of(storage, key, as_of))
        else:
            found = fetch_live(storage, key)
    present(key, found, _content(found, key))


def diff(
    context: typer.Context,
    key: Key,
    old: Annotated[int, typer.Argument(min=1, metavar="V1", help="A version.")],
    new: Annotated[int, typer.Argument(min=1, metavar="V2", help="Another.")],
) -> None:
    """Show how one version of KEY differs from another; of what is no text or JSON only whether."""
    with session(context).storage() as storage:
        contents = [_content(perform(find_version(storage, key, version)), key) for version in (old, new)]
    before, after = map(_lines, contents)
    lines = unified_diff(before, after, f"{key} version {old}", f"{key} version {new}", lineterm="")
    different = False
    for line in lines:
        different = True
        say(line)
    if not different:
        note("no difference")


def _content(found: Found, key: str) -> Content:
    return content_of(found.head.serializer, bytes(require_intact(found, key)))


def _lines(content: Content) -> list[str]:
    match content.kind:
        case "json":
            return json.dumps(content.document, indent=2, ensure_ascii=False, sort_keys=True).splitlines()
        case "text":
            return content.data.decode().splitlines()
    return pformat(content.data[:1_000_000], width=100).splitlines()
