"""``pgresults lineage``: what a version was computed from, and what was computed from it."""

from dataclasses import asdict
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.text import Text
from rich.tree import Tree

from pgresults.audit.descent import LineageVersion
from pgresults.audit.lineage import MOST_VERSIONS, Lineage
from pgresults.cli.listing import AsJson
from pgresults.cli.output import note, print_json, shown, terminal
from pgresults.cli.progress import waiting
from pgresults.cli.results import Key
from pgresults.cli.session import session
from pgresults.cli.tables import print_rows
from pgresults.store import ResultStore

_COLUMNS = ("distance", "key", "version", "at", "actor", "task", "live", "storage")


class Format(StrEnum):
    """In whose words a lineage is printed."""

    TREE = "tree"
    JSON = "json"
    PROV = "prov-json"
    OPENLINEAGE = "openlineage"


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command()(lineage)


def lineage(
    context: typer.Context,
    key: Key,
    version: Annotated[int | None, typer.Option(min=1, help="By default the newest one.")] = None,
    down: Annotated[bool, typer.Option("--down", help="What was computed from it, not from what it was.")] = False,
    depth: Annotated[int | None, typer.Option(min=0, help="How many steps to go; by default all.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many versions at most.")] = MOST_VERSIONS,
    output: Annotated[Format, typer.Option("--format", help="In whose words.")] = Format.TREE,
    as_json: AsJson = False,
) -> None:
    """Show from which versions that of KEY was computed, directly or over others."""
    with session(context).storage() as storage, waiting("Looking through the history"):
        store = ResultStore(result_storage=storage)
        found = store.lineage(key, version, "down" if down else "up", depth, limit)
    _print(found, Format.JSON if as_json else output)
    if not found.complete:
        note(f"and more: these are the nearest {limit:,}")


def _print(found: Lineage, output: Format) -> None:
    match output:
        case Format.JSON:
            edges = [{"version": _named(edge.version), "parent": _named(edge.parent)} for edge in found.edges]
            versions = [asdict(one) for one in found.versions]
            print_json({"direction": found.direction, "complete": found.complete, "versions": versions, "edges": edges})
        case Format.PROV:
            print_json(found.to_prov())
        case Format.OPENLINEAGE:
            print_json(found.to_openlineage())
        case _ if terminal.is_terminal:
            terminal.print(_tree(found))
        case _:
            print_rows(_COLUMNS, ([getattr(one, name) for name in _COLUMNS] for one in found.versions))


def _named(one: LineageVersion) -> dict[str, Any]:
    return {"storage": one.storage, "key": one.key, "version": one.version}


def _tree(found: Lineage) -> Tree:
    """The versions as they follow each other; one to which several ways lead goes on at the first of them."""
    root = Tree(_line(found, found.start))
    waiting_for, seen = [(root, found.start)], {found.start}
    while waiting_for:
        node, here = waiting_for.pop(0)
        for there in found.next_of(here):
            if there in seen:
                node.add(Text.assemble(_line(found, there), (" (see there)", "dim")))
            else:
                seen.add(there)
                waiting_for.append((node.add(_line(found, there)), there))
    return root


def _line(found: Lineage, one: LineageVersion) -> Text:
    elsewhere = f" in {one.storage}" if one.storage != found.start.storage else ""
    return Text.assemble(
        (shown(one.key), "bold"),
        f" version {one.version}{shown(elsewhere)}",
        (f"  {shown(one.at)} {shown(one.task or one.actor)}{'' if one.live else ', no more live'}", "dim"),
    )
