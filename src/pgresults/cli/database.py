"""``pgresults db``: the schema in a team's database."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from pgresults.audit.house import inspect
from pgresults.cli.output import fail, note, say, shown
from pgresults.cli.progress import waiting
from pgresults.cli.session import session, where
from pgresults.database import distribution, migrations
from pgresults.database.database import Database
from pgresults.database.programs import perform
from pgresults.database.standbys import lag
from pgresults.errors import ConfigurationError, PgResultsError
from pgresults.sql.grants import ROLES, Kind, granting, grants

_SHARDS = typer.Option("--shards", min=1, help="In how many parts the tables are spread.")

app = typer.Typer(no_args_is_help=True, help="The schema in the database.")


@app.command()
def upgrade(
    context: typer.Context,
    lock_timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait for another upgrade.")] = 30.0,
    distributed: Annotated[
        bool, typer.Option("--distributed", help="Spread the tables over the servers of a Citus cluster, too.")
    ] = False,
    shards: Annotated[int, _SHARDS] = 32,
) -> None:
    """Create the tables, or bring them to this version; what is spread over several servers stays so."""
    with session(context).database() as storage, waiting("Upgrading"):
        url, schema = storage.database.url(), storage.schema
        revision = migrations.upgrade(url, schema, lock_timeout)
        if distributed or distribution.distribution_of(url, schema):
            distribution.distribute(url, schema, shards)
    say(f"schema {storage.schema} is at revision {revision}")


@app.command()
def distribute(context: typer.Context, shards: Annotated[int, _SHARDS] = 32) -> None:
    """Spread the tables of a schema that is in use over the servers of a Citus cluster; who writes meanwhile waits.

    Start the programs that use it anew afterwards.
    """
    with session(context).database(there=True) as storage:
        said: set[str] = set()

        def show(table: str) -> None:
            if table not in said:
                said.add(table)
                typer.echo(f"spreading {table} …", err=True)

        found = distribution.distribute(storage.database.url(), storage.schema, shards, show)
        say(f"schema {storage.schema}: {found}")


@app.command()
def current(context: typer.Context) -> None:
    """Print the revision that the schema is at, or "none"; and what is spread over several servers, and the standby."""
    with session(context).database() as storage:
        revision = migrations.current(storage.database.url(), storage.schema)
        say(revision or "none")
        if found := distribution.distribution_of(storage.database.url(), storage.schema):
            typer.echo(str(found), err=True)  # a script takes what is printed for the revision
        if revision is not None:
            for line in _about_standby(storage.database):
                note(line)


@app.command()
def check(context: typer.Context) -> None:
    """Fail unless the schema is the one this version works with, and as it was made.

    Functions, views, triggers, keys, rights and so on are compared with those that this version ships.
    """
    with session(context).storage() as storage:
        for doubt in migrations.require_sound(storage.database.url(), storage.schema):
            typer.echo(f"warning: {doubt}", err=True)
        findings, unseen = perform(inspect(storage))
        for part in unseen:
            typer.echo(f"warning: not checked: {part}", err=True)
        for finding in findings:
            fail(f"{finding.kind}: {finding.message}")
        if findings:
            raise typer.Exit(1)
        found = distribution.distribution_of(storage.database.url(), storage.schema)
        if found and found.missing:
            raise ConfigurationError(
                f"schema {storage.schema!r} is spread in part: {', '.join(found.missing)} of it is not",
                setting="database_schema",
            )
        say(f"schema {storage.schema} is up to date" + (f": {found}" if found else ""))
        for line in _about_standby(storage.database):
            say(line)


def _named(kind: Kind, purpose: str) -> Any:
    return typer.Option(f"--{kind}", metavar="ROLE", help=f"The role that {purpose}.")


@app.command()
def sql(
    context: typer.Context,
    start: Annotated[
        str | None,
        typer.Option("--from", metavar="REVISION", help="Only what brings tables of this revision to the newest."),
    ] = None,
    grants_only: Annotated[
        bool, typer.Option("--grants-only", help="The roles and grants without the tables.")
    ] = False,
    writer: Annotated[str, _named(Kind.WRITER, "stores results")] = ROLES[Kind.WRITER],
    reader: Annotated[str, _named(Kind.READER, "reads what is there now")] = ROLES[Kind.READER],
    auditor: Annotated[str, _named(Kind.AUDITOR, "reads everything, and verifies")] = ROLES[Kind.AUDITOR],
    historian: Annotated[str, _named(Kind.HISTORIAN, "reads history without payloads")] = ROLES[Kind.HISTORIAN],
    sweeper: Annotated[str, _named(Kind.SWEEPER, "sweeps, retains and redacts")] = ROLES[Kind.SWEEPER],
    owner: Annotated[str, _named(Kind.OWNER, "may do everything")] = ROLES[Kind.OWNER],
) -> None:
    """Print the statements for a database owner: tables, roles and grants. Touches no database.

    After an upgrade, with --from what `pgresults db current` printed before it.
    """
    schema = session(context).settings.database_schema
    roles = dict(zip(Kind, (writer, reader, auditor, historian, sweeper, owner), strict=True))
    if start is not None and start not in (known := migrations.revisions()):
        raise typer.BadParameter(f"there is no revision {start!r}; there are: {', '.join(known)}")
    if not grants_only:
        typer.echo(migrations.ddl(schema, start))
    typer.echo(grants(schema, roles), nl=False)


@app.command()
def grant(
    context: typer.Context,
    role: Annotated[str, typer.Argument(help="A role that exists.")],
    kind: Annotated[Kind, typer.Option("--as", help="What it may do.")],
) -> None:
    """Let ROLE store results, read them, audit them, sweep them, or own them; run as the owner of the tables."""
    with session(context).database(there=True) as storage:
        migrations.execute(storage.database.url(), granting(storage.schema, role, kind))
        say(f"{role} is {'an' if kind[0] in 'aeiou' else 'a'} {kind.value} of schema {storage.schema}")


def _about_standby(database: Database) -> Iterator[str]:
    """How far the standby that reads may go to is behind, if there is one."""
    if (standby := database.standby) is None:
        return
    name = f"standby {where(standby)}"
    try:
        behind = perform(lag(database, standby))
    except PgResultsError as error:
        yield f"{name} serves no reads: {error}"
        return
    last = "" if behind.last is None else f"; the last commit that it has is of {shown(behind.last)}"
    yield f"{name} follows, {behind.size:,} bytes behind{last}"
