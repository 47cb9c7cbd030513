"""``pgresults export`` and ``pgresults import file``: results as files."""

import io
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Annotated, BinaryIO

import typer

from pgresults.audit import formats
from pgresults.audit.transfer import Exported, exported, import_result
from pgresults.cli.output import Output, fail, note, replacing, say
from pgresults.cli.progress import counting
from pgresults.cli.session import Create, session
from pgresults.errors import IntegrityError, LockedError, SerializationError


class Format(StrEnum):
    """What a file of results is written in."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"


_READERS = {Format.JSONL: formats.read_jsonl, Format.CSV: formats.read_csv, Format.PARQUET: formats.read_parquet}
_WRITERS = {Format.JSONL: formats.write_jsonl, Format.CSV: formats.write_csv}

_STDIN = Path("-")


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("export")(export_results)


def export_results(
    context: typer.Context,
    output: Output = None,
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
    wanted = kind or (Format.JSONL if output is None or _is_device(output) else _by_name(output))
    if wanted is Format.PARQUET and output is None:
        raise typer.BadParameter("Parquet goes to a file: give --output")
    refusals: list[str] = []

    def refuse(error: IntegrityError) -> None:
        refusals.append(f"left out: {error}")

    with session(context).storage() as storage, counting("Exporting") as progress:
        results = _counted(exported(storage, prefix, refuse if leave_out else None), progress)
        if output is None:
            with _utf8(sys.stdout.buffer) as stdout:
                _WRITERS[wanted](results, stdout)
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
    file: Annotated[
        Path,
        typer.Argument(help="What export wrote; - is standard input."),
    ],
    kind: Annotated[
        Format | None,
        typer.Option("--format", help="By default what the file's name ends with; of standard input jsonl."),
    ] = None,
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
    if file != _STDIN and not file.exists():
        raise typer.BadParameter(f"there is no file {file}")
    wanted = kind or (Format.JSONL if file == _STDIN else _by_name(file))
    outcomes = Counter[bool]()
    refusals: list[str] = []
    with session(context).storage(create=create) as storage, _given(file) as path, counting("Importing") as progress:
        for one in _counted(_READERS[wanted](path), progress):
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


def _by_name(path: Path) -> Format:
    """The format that a file's name ends with; raises BadParameter."""
    ending = path.suffix.removeprefix(".").lower()
    found = next((one for one in Format if one.value == ending), None)
    if found is None:
        known = ", ".join(f".{one}" for one in Format)
        raise typer.BadParameter(f"{path} does not end with {known}: give --format")
    return found


def _is_device(path: Path) -> bool:
    """Whether it is a device or a pipe, whose name says nothing."""
    return path.exists() and not path.is_file()


@contextmanager
def _utf8(stream: BinaryIO) -> Iterator[IO[str]]:
    """A stream of bytes as one of text, whatever the locale; it stays open."""
    text = io.TextIOWrapper(stream, encoding="utf-8", newline="")
    try:
        yield text
        text.flush()
    finally:
        text.detach()


@contextmanager
def _given(file: Path) -> Iterator[Path]:
    """The file, or what comes by standard input as one: it is read more than once, or not from its beginning."""
    if file != _STDIN:
        yield file
        return
    with NamedTemporaryFile(prefix="pgresults-") as kept:
        shutil.copyfileobj(sys.stdin.buffer, kept)
        kept.flush()
        try:
            yield Path(kept.name)
        except SerializationError as error:
            raise SerializationError(str(error).replace(kept.name, "standard input")) from error


def _counted(results: Iterable[Exported], progress: Callable[[int], None]) -> Iterator[Exported]:
    for one in results:
        yield one
        progress(1)
