"""``pgresults seal | attach-timestamp | rotate-seal-key``: what is to be kept out of the database's reach.

Exit codes of ``seal``: 1 also where entries name transactions to come; of a service that a signal ended: 0.
"""

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from pgresults.audit.seals import Seal
from pgresults.audit.signing import rotate
from pgresults.audit.timestamps import attach, stamps
from pgresults.cli.keeping import Keep, NotKept, read_seals
from pgresults.cli.output import Output, note, replacing, say, shown
from pgresults.cli.progress import counting
from pgresults.cli.serving import serve, until_signalled
from pgresults.cli.session import Session, session
from pgresults.cli.values import duration
from pgresults.errors import StorageUnavailable
from pgresults.store import ResultStore

NOT_COVERED = 1

Roots = Annotated[
    list[Path] | None,
    typer.Option("--timestamp-root", dir_okay=False, help="Certificates of who may stamp, in PEM; may be repeated."),
]


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command()(seal)
    app.command("attach-timestamp")(attach_timestamp)
    app.command("rotate-seal-key")(rotate_seal_key)


def seal(
    context: typer.Context,
    output: Output = None,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="PATH|COMMAND",
            help="Keep it in a file, a directory, or by '| COMMAND', which reads it.",
        ),
    ] = None,
    after: Annotated[
        Path | None, typer.Option(dir_okay=False, metavar="SEAL", help="Continue this one; else the newest in --to.")
    ] = None,
    every: Annotated[
        timedelta | None, typer.Option(parser=duration, metavar="SPAN", help="Again and again, for example 1h.")
    ] = None,
) -> None:
    """Sign a root over all committed history, to be kept where the database's users cannot reach it.

    With --to or --after it names the seal before it, once all that this one covers was found as it was.
    """
    if to is not None and output is not None:
        raise typer.BadParameter("give --output or --to, not both")
    if every is not None and to is None:
        raise typer.BadParameter("say where to keep the seals of --every: --to PATH, or --to '| COMMAND'")
    keep = None if to is None else Keep(to)
    if every is None or keep is None:
        previous = None if after is None else read_seals([after])[0]
        _tell(*_sealed(session(context), keep, output, previous))
        return
    _serve(session(context), keep, after, every)


def _serve(used: Session, keep: Keep, after: Path | None, every: timedelta) -> None:
    previous = None if after is None else read_seals([after])[0]

    def work() -> None:
        nonlocal previous
        previous, _ = _sealed(used, keep, None, previous, quiet=True)
        _note_ahead(previous)

    with until_signalled() as enough:
        say(f"sealing to {keep.to} every {every}")
        serve(every, work, enough, (StorageUnavailable, NotKept, OSError))


def _sealed(
    used: Session, keep: Keep | None, output: Path | None, previous: Seal | None, *, quiet: bool = False
) -> tuple[Seal, str | None]:
    """Make a seal and keep it; gives where."""
    with used.storage() as storage:
        store = ResultStore(result_storage=storage)
        if previous is None and keep is not None:
            previous = keep.newest(storage.id)
        if quiet:
            made = store.seal(previous=previous)
        else:
            with counting("Sealing entries") as progress:
                made = store.seal(progress, previous)
    if keep is not None:
        return made, keep.put(made)
    if output is None:
        typer.echo(made.dump_bytes(), nl=False)
        return made, None
    with replacing(output) as file:
        file.write_bytes(made.dump_bytes())
    return made, str(output)


def _tell(made: Seal, where: str | None) -> None:
    if where is not None:
        say(f"{where}: {made.entries:,} entries sealed, root {made.root}")
    note(f"Signed with the public key {made.public_key}")
    if _note_ahead(made):
        raise typer.Exit(NOT_COVERED)


def _note_ahead(made: Seal) -> bool:
    if made.ahead:
        note(f"{made.ahead:,} entries name transactions to come, the seal does not cover them: run pgresults verify")
    return made.ahead > 0


def attach_timestamp(
    seal: Annotated[Path, typer.Argument(dir_okay=False, help="The seal's file, which then has the stamp.")],
    response: Annotated[
        Path | None, typer.Argument(dir_okay=False, help="What the authority answered; none: print what to stamp.")
    ] = None,
    roots: Roots = None,
) -> None:
    """Attach a time stamp of RFC 3161 to a seal; it must be one of the seal's digest, which is printed without one."""
    (loaded,) = read_seals([seal])
    if response is None:
        say(loaded.digest)
        return
    trusted = [root.read_bytes() for root in roots or ()]
    stamped = attach(loaded, response.read_bytes(), trusted)
    with replacing(seal) as file:
        file.write_bytes(stamped.dump_bytes())
    say(f"{seal}: stamped at {shown(stamps(stamped, trusted)[-1])}")
    if not trusted:
        note("Who stamped was not checked: --timestamp-root names the certificates of whom you trust.")


def rotate_seal_key(context: typer.Context) -> None:
    """Put a new key in the place of the one that signs seals; the old one endorses it and is kept beside it."""
    file = session(context).settings.seal_key_file
    old, new = rotate(file)
    say(f"{file}: the key {new} follows {old}")
    note(f"The old key lies in {file}.{old[:8]}: remove it once nobody signs with it.")
