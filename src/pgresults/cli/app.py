"""The program: its global options, its commands, and how it ends.

Exit codes: 0 done, 1 refused or failed (one line on stderr says why), 2 wrong usage, 130 interrupted by Ctrl-C,
141 the reader of the output went away.
"""

import io
import os
import sys
from importlib.metadata import version
from typing import Annotated, Any, cast

import typer

from pgresults.cli import DEFAULT_STORAGE, INTERRUPTED
from pgresults.cli.commands import Commands
from pgresults.cli.output import fail
from pgresults.cli.usage import WRONG_USAGE, HelpfulGroup
from pgresults.errors import InvalidArgument, PgResultsError, reason_of

FAILED, PIPE_CLOSED = 1, 141


class _Program(HelpfulGroup):
    """The group of all commands; here every failure becomes a line and an exit code."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands = cast("Any", Commands())  # of which nothing is ever added or taken away

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except PgResultsError as error:
            from pgresults.cli.rights import hint  # with SQLAlchemy, which not all commands need

            fail(f"{error}{hint(ctx.invoked_subcommand, error)}")
            raise typer.Exit(WRONG_USAGE if isinstance(error, InvalidArgument) else FAILED) from None
        except BrokenPipeError:
            # What is still buffered must not fail again when the interpreter ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(PIPE_CLOSED) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except OSError as error:
            fail(reason_of(error))
        raise typer.Exit(FAILED)


app = typer.Typer(
    cls=_Program,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Results of Python programs, kept in Postgres.",
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage (of verify: could not check), 130 interrupted.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(version("pgresults"))
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    database_url: Annotated[
        str | None,
        typer.Option(
            help="The database, postgresql://…; others may read a command line, so better set PGRESULTS_DATABASE_URL. "
            "Without either: an embedded server in PGRESULTS_EMBEDDED_PATH (.pgresults)."
        ),
    ] = None,
    storage: Annotated[str, typer.Option(help="The collection of results.")] = DEFAULT_STORAGE,
    schema: Annotated[
        str | None, typer.Option(help="The schema of the tables; by default PGRESULTS_DATABASE_SCHEMA (pgresults).")
    ] = None,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    from pgresults.cli.session import Session  # with all of a store

    given = {"database_url": database_url, "database_schema": schema}
    context.obj = Session(
        {name: value for name, value in given.items() if value is not None}, storage, _is_given(context, "storage")
    )


def _is_given(context: typer.Context, name: str) -> bool:
    """Whether an option was said by the user."""
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def run() -> None:
    """Run the program on the arguments of this process."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # None where it is closed
            stream.reconfigure(errors="backslashreplace")
    app(prog_name="pgresults")
