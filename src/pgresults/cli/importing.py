"""``pgresults import``: results from elsewhere."""

from collections import Counter
from dataclasses import replace
from typing import Annotated

import typer

from pgresults.cli.output import note, say
from pgresults.cli.progress import confirm, counting, waiting
from pgresults.cli.removing import Yes
from pgresults.cli.session import Create, Session, session
from pgresults.cli.transfer import import_results
from pgresults.errors import ConfigurationError
from pgresults.integrations.prefect.documents import BLOCK_STORAGE
from pgresults.integrations.prefect.files import import_files
from pgresults.integrations.prefect.places import source_of

LEFT_OUT = 1

MANY = 1000
"""More files are not imported without a question: somebody may have named the wrong place."""

_DATABASE = "prefect.db"

app = typer.Typer(no_args_is_help=True, help="Results from elsewhere.")
app.command("file")(import_results)


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
    bare: Annotated[
        bool, typer.Option("--bare", help="Also what is no result record, as plain bytes; else it is left out.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be imported.")] = False,
    yes: Yes = False,
    create: Create = False,
) -> None:
    """Import the results that Prefect kept as files; what is there already stays, so it may be run again.

    They go where a block looks for them that was given no name of its own: to the storage "prefect", unless --storage
    says another. Files that cannot be read, or whose key is locked, are reported, and the exit code is 1 then.
    """
    source = source_of(path)
    with waiting("Looking for files"):
        names = source.names()
    if _DATABASE in names:
        raise ConfigurationError(
            f"{path} is Prefect's own directory, with its database: its results are in {path.rstrip('/')}/storage, "
            "or where PREFECT_LOCAL_STORAGE_PATH says",
            setting="path",
        )
    outcomes: Counter[str] = Counter()
    with _target(context).storage(create=create) as storage:
        if len(names) > MANY and not dry_run:
            confirm(f"Import {len(names):,} files from {path} into {storage.name!r}?", yes)
        with counting("Importing", len(names)) as progress:
            for file in import_files(storage, source, names, vouched=vouch, bare=bare, dry_run=dry_run):
                outcomes[file.outcome] += 1
                progress(1)
                if file.reason is not None:
                    note(f"{file.name}: {file.reason}")
    imported = f"{outcomes['imported']:,} {'would be imported' if dry_run else 'imported'} into {storage.name!r}"
    say(
        f"{len(names):,} files: {imported}, {outcomes['present']:,} there already, "
        f"{outcomes['kept']:,} older than what is there, {outcomes['locked']:,} locked, "
        f"{outcomes['unreadable']:,} unreadable, {outcomes['bare']:,} no result records"
    )
    if outcomes["unreadable"] or outcomes["locked"]:
        raise typer.Exit(LEFT_OUT)


def _target(context: typer.Context) -> Session:
    """The session, with the blocks' own storage where the user names none."""
    used = session(context)
    return used if used.named else replace(used, storage_name=BLOCK_STORAGE)
