"""``pgresults export`` and ``pgresults import file``: results as files."""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pgresults.audit import formats
from pgresults.audit.transfer import Exported, exported, import_result
from pgresults.cli.output import fail, note, replacing, say
from pgresults.cli.progress import counting
from pgresults.cli.session import Create, session
from pgresults.errors import IntegrityError, LockedError


class Format(StrEnum):
    """What a file of results is written in."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"


_READERS = {Format.JSONL: formats.read_jsonl, Format.CSV: formats.read_csv, Format.PARQUET: formats.read_parquet}
_WRITERS = {Format.JSONL: formats.write_jsonl, Format.CSV: formats.write_csv}


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("export")(export_results)


def register_import(imports: typer.Typer) -> None:
    """Add the command to those that import."""
    imports.command("file")(import_results)


def export_results(
    context: typer.Context,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", dir_okay=False, writable=True, help="By default standard output.")
    ] = None,
    kind: Annotated[
        Format | None, typer.Option("--format", help="By default what the file's name ends with, else jsonl.")
    ] = None,
    prefix: Annotated[str, typer.Option(help="Only keys that begin so.")] = "",
    leave_out: Annotated[
        bool, typer.Option("--leave-out", help="Leave out what is damaged or not signed as it must be, and say so.")
    ] = False,
) -> None:
    """Write the live results to a file, each with its payload and all that is said of it.

    One that is damaged, or not signed as the settings demand, ends it; with --leave-out the exit code is 1 at the end.
    """
    wanted = kind or _by_name(output) or Format.JSONL
    if wanted is Format.PARQUET and output is None:
        raise typer.BadParameter("Parquet goes to a file: give --output")
    refusals: list[str] = []

    def refuse(error: IntegrityError) -> None:
        refusals.append(f"left out: {error}")

    with session(context).storage() as storage, counting("Exporting") as progress:
        results = _counted(exported(storage, prefix, refuse if leave_out else None), progress)
        if output is None:
            _WRITERS[wanted](results, sys.stdout)
        else:
            with replacing(output) as file:
                _write(wanted, results, file)
    _report(refusals)


def _write(wanted: Format, results: Iterable[Exported], output: Path) -> None:
    if wanted is Format.PARQUET:
        formats.write_parquet(results, output)
        return
    with output.open("w", encoding="utf-8", newline="") as file:
        _WRITERS[wanted](results, file)


def import_results(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="What export wrote.")],
    kind: Annotated[Format | None, typer.Option("--format", help="By default what the file's name ends with.")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Also where a live result is there: as its next version.")
    ] = False,
    vouch: Annotated[
        bool, typer.Option("--vouch", help="Sign also what no key known here has signed: you answer for the file.")
    ] = False,
    create: Create = False,
) -> None:
    """Store exported results; those whose key has a live result, or is locked, are left out.

    So are, where a signing key is set, those that were not exported with it. What was left out but for a live result is
    reported, and the exit code is 1 then.
    """
    wanted = kind or _by_name(file)
    if wanted is None:
        raise typer.BadParameter(f"{file} does not say what it is: give --format")
    outcomes = Counter[bool]()
    refusals: list[str] = []
    with session(context).storage(create=create) as storage, counting("Importing") as progress:
        for one in _counted(_READERS[wanted](file), progress):
            try:
                outcomes[import_result(storage, one, overwrite=overwrite, vouched=vouch)] += 1
            except LockedError as error:
                refusals.append(f"left out, import again when it is free: {error}")
            except IntegrityError as error:
                refusals.append(f"left out: {error}")
    say(f"{outcomes[True]:,} results imported")
    if outcomes[False]:
        note(f"{outcomes[False]:,} left out, their keys have live results: add --overwrite to store them all the same")
    _report(refusals)


def _report(refusals: list[str]) -> None:
    """Tell what was left out, and end so that a program notices."""
    for refusal in refusals:
        fail(refusal)
    if refusals:
        raise typer.Exit(1)


def _by_name(path: Path | None) -> Format | None:
    ending = path.suffix.removeprefix(".") if path else ""
    return next((one for one in Format if one.value == ending), None)


def _counted(results: Iterable[Exported], progress: Callable[[int], None]) -> Iterator[Exported]:
    for one in results:
        yield one
        progress(1)
