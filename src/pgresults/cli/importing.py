"""``pgresults import``: results from elsewhere."""

from collections import Counter
from dataclasses import replace
from typing import Annotated

import typer

from pgresults.cli.output import note, say
from pgresults.cli.progress import counting
from pgresults.cli.session import Session, session
from pgresults.integrations.prefect.documents import BLOCK_STORAGE
from pgresults.integrations.prefect.files import import_files
from pgresults.integrations.prefect.places import source_of

LEFT_OUT = 1

app = typer.Typer(no_args_is_help=True, help="Results from elsewhere.")


@app.callback()
def _imports() -> None:
    """Have the command keep its name though it is the only one."""


@app.command()
def prefect(
    context: typer.Context,
    path: Annotated[
        str,
        typer.Argument(
            help="A directory of results, a URL such as s3://bucket/folder, or a block that Prefect has saved, such as "
            "block:remote-file-system/results."
        ),
    ],
    vouch: Annotated[
        bool, typer.Option("--vouch", help="Sign them, though nobody has: you answer for where they come from.")
    ] = False,
) -> None:
    """Import the results that Prefect kept as files; what is there already stays, so it may be run again.

    They go where a block looks for them that was given no name of its own: to the storage "prefect", unless --storage
    says another. Files that cannot be read, or whose key is locked, are reported, and the exit code is 1 then.
    """
    source = source_of(path)
    names = source.names()
    outcomes: Counter[str] = Counter()
    with _target(context).storage() as storage, counting("Importing", len(names)) as progress:
        for file in import_files(storage, source, names, vouched=vouch):
            outcomes[file.outcome] += 1
            progress(1)
            if file.reason is not None:
                note(f"{file.name}: {file.reason}")
        into = storage.name
    say(
        f"{len(names):,} files: {outcomes['imported']:,} imported into {into!r}, "
        f"{outcomes['present']:,} there already, {outcomes['kept']:,} older than what is there, "
        f"{outcomes['locked']:,} locked, {outcomes['unreadable']:,} unreadable"
    )
    if outcomes["unreadable"] or outcomes["locked"]:
        raise typer.Exit(LEFT_OUT)


def _target(context: typer.Context) -> Session:
    """The session, with the blocks' own storage where the user names none."""
    given = context.find_root().get_parameter_source("storage")
    if given is None or given.name == "DEFAULT":
        return replace(session(context), storage_name=BLOCK_STORAGE)
    return session(context)
