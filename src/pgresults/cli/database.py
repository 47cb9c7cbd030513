"""``pgresults db``: the schema in a team's database."""

from typing import Annotated

import typer

from pgresults.cli.output import say
from pgresults.cli.session import Session, session
from pgresults.database import migrations
from pgresults.sql.grants import Kind, Roles, granting, grants

app = typer.Typer(no_args_is_help=True, help="The schema in the database.")

_ROLES = Roles()


@app.command()
def upgrade(
    context: typer.Context,
    lock_timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait for another upgrade.")] = 30.0,
) -> None:
    """Create the tables, or bring them to this version."""
    with session(context).storage() as storage:
        revision = migrations.upgrade(storage.database.url(), storage.schema, lock_timeout)
        say(f"schema {storage.schema} is at revision {revision}")


@app.command()
def current(context: typer.Context) -> None:
    """Print the revision that the schema is at, or "none"."""
    say(_revision(session(context)) or "none")


@app.command()
def check(context: typer.Context) -> None:
    """Fail unless the schema is the one this version works with, and as it was made."""
    with session(context).storage() as storage:
        for doubt in migrations.require_sound(storage.database.url(), storage.schema):
            typer.echo(f"warning: {doubt}", err=True)
        say(f"schema {storage.schema} is up to date")


@app.command()
def sql(
    context: typer.Context,
    grants_only: Annotated[
        bool, typer.Option("--grants-only", help="The roles and grants without the tables.")
    ] = False,
    writer: Annotated[str, typer.Option(help="The role that stores results.")] = _ROLES.writer,
    reader: Annotated[str, typer.Option(help="The role that reads them.")] = _ROLES.reader,
) -> None:
    """Print the statements for a database owner: tables, roles and grants. Touches no database."""
    schema = session(context).settings.database_schema
    if not grants_only:
        typer.echo(migrations.ddl(schema))
    typer.echo(grants(schema, Roles(writer, reader)), nl=False)


@app.command()
def grant(
    context: typer.Context,
    role: Annotated[str, typer.Argument(help="A role that exists.")],
    kind: Annotated[Kind, typer.Option("--as", help="What it may do.")],
) -> None:
    """Let ROLE store results, read them, audit them, sweep them, or own them; run as the owner of the tables."""
    with session(context).storage() as storage:
        migrations.execute(storage.database.url(), granting(storage.schema, role, kind))
        say(f"{role} is a {kind.value} of schema {storage.schema}")


def _revision(used: Session) -> str | None:
    with used.storage() as storage:
        return migrations.current(storage.database.url(), storage.schema)
