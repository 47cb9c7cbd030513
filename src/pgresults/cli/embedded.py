"""``pgresults embedded``: the Postgres server in a directory."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pgresults.cli.output import print_json, say
from pgresults.cli.session import session
from pgresults.cli.tables import print_record, print_rows
from pgresults.server.embedded import EmbeddedPostgres
from pgresults.server.others import running_servers

app = typer.Typer(no_args_is_help=True, help="The Postgres server in a directory.")

_Directory = Annotated[Path | None, typer.Argument(help="Its directory; by default PGRESULTS_EMBEDDED_PATH.")]


@app.command()
def start(context: typer.Context, path: _Directory = None) -> None:
    """Start the server unless it runs, and print its URL."""
    say(_server(context, path).ensure_running())


@app.command()
def status(
    context: typer.Context,
    path: _Directory = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say whether the server runs, where and since which version; starts nothing."""
    found = asdict(_server(context, path).status())
    if as_json:
        print_json(found)
    else:
        print_record(found)


@app.command("list")
def list_running(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the servers that run as this user, each with its directory."""
    servers = running_servers()
    if as_json:
        print_json([asdict(server) for server in servers])
    else:
        rows = [(server.path, server.pid, "" if server.exists else "its directory was removed") for server in servers]
        print_rows(("directory", "pid", ""), rows)


@app.command()
def stop(context: typer.Context, path: _Directory = None) -> None:
    """Stop the server; its data stays."""
    server = _server(context, path)
    ran = server.is_running()
    server.stop()
    say(f"{server.path}: {'stopped' if ran else 'no server runs here'}")


def _server(context: typer.Context, path: Path | None) -> EmbeddedPostgres:
    return EmbeddedPostgres(path or session(context).settings.embedded_directory)
