"""``pgresults history | show | diff``: what a key's results were."""

import json
from dataclasses import asdict
from datetime import datetime
from difflib import unified_diff
from typing import Annotated

import typer

from pgresults.audit.past import find_as_of, find_version
from pgresults.cli.output import note, print_json_list, print_rows, say
from pgresults.cli.preview import Content, content_of
from pgresults.cli.results import Key, Unpickle, fetch_live, present, unpickled
from pgresults.cli.session import session
from pgresults.cli.values import moment
from pgresults.database.programs import perform
from pgresults.errors import MissingResult
from pgresults.operations.results import Found
from pgresults.storage.checking import require_intact, require_signed
from pgresults.storage.postgres import PostgresStorage
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
    unpickle: Unpickle = False,
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
        content = _content(storage, found, key, unpickle)
    present(key, found, content)


def diff(
    context: typer.Context,
    key: Key,
    old: Annotated[int, typer.Argument(min=1, metavar="V1", help="A version.")],
    new: Annotated[int, typer.Argument(min=1, metavar="V2", help="Another.")],
    unpickle: Unpickle = False,
) -> None:
    """Show how one version of KEY differs from another; of what is no text or JSON only whether it does."""
    with session(context).storage() as storage:
        found = [perform(find_version(storage, key, version)) for version in (old, new)]
        before, after = (_content(storage, one, key, unpickle) for one in found)
    old_lines, new_lines = _lines(before), _lines(after)
    if old_lines is None or new_lines is None:
        _say_whether(old, before, new, after)
    elif old_lines == new_lines:
        note("no difference")
    else:
        names = (f"{key} version {old}", f"{key} version {new}")
        for line in unified_diff(old_lines, new_lines, *names, lineterm=""):
            say(line)


def _say_whether(old: int, before: Content, new: int, after: Content) -> None:
    if (before.kind, before.data) == (after.kind, after.data):
        note("no difference")
        return
    say(f"different: version {old} is {_summary(before)}, version {new} is {_summary(after)}")
    if before.is_opaque or after.is_opaque:
        note("To see in what, add --unpickle if you trust who wrote them.")


def _content(storage: PostgresStorage, found: Found, key: str, unpickle: bool) -> Content:
    require_signed(found.head, key, storage._trust)
    content = content_of(found.head.serializer, bytes(require_intact(found, key)))
    return unpickled(storage, found, key) if unpickle and content.is_opaque else content


def _lines(content: Content) -> list[str] | None:
    """What can be compared line by line."""
    if content.kind == "json":
        return json.dumps(content.document, indent=2, ensure_ascii=False, sort_keys=True).splitlines()
    try:
        return None if content.is_opaque else content.data.decode().splitlines()
    except UnicodeDecodeError:
        return None


def _summary(content: Content) -> str:
    return f"{content.kind} of {len(content.data):,} bytes"
