"""``pgresults web``: the console in a browser."""

import gc
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from threading import Lock
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from pgresults.cli.output import say
from pgresults.cli.session import Session, session
from pgresults.errors import ConfigurationError

if TYPE_CHECKING:
    from pgresults.web.options import Options

_PORT = 9790
_PARTS = ("jinja2", "python_multipart", "starlette", "uvicorn")


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command()(web)


def web(
    context: typer.Context,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where to listen; 0: any that is free.")] = _PORT,
    host: Annotated[
        str, typer.Option(help="The address to listen at; others than this machine's need a token or a proxy.")
    ] = "127.0.0.1",
    allow_changes: Annotated[
        bool, typer.Option("--allow-changes", help="Let visitors break locks and forget results.")
    ] = False,
    seal: Annotated[
        list[Path] | None,
        typer.Option(metavar="SEALS", help="Show the age of the seals in this file or directory; may be repeated."),
    ] = None,
    access_log: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="Note there who looks at which payload; by default on stderr."),
    ] = None,
    demo: Annotated[
        bool, typer.Option("--demo", help="Show a store that is made for it, and removed at the end.")
    ] = False,
) -> None:
    """Show a store in the browser: what happens, what there is, who holds what, and whether it can be believed."""
    _require_parts()
    from pgresults.web.demo import demonstrated
    from pgresults.web.options import Options

    given = session(context)
    with demonstrated() if demo else nullcontext(None) as shown, _noting(access_log) as note:
        used = given if shown is None else Session(dict(shown))
        options = Options(used.settings, used.storage_name, note, allow_changes, host, seal or ())
        options.require_safe()
        serve(options, port)


def serve(options: "Options", port: int) -> None:
    """Serve a console until a signal ends it."""
    import uvicorn

    from pgresults.web.app import create_app

    class Server(uvicorn.Server):
        """Says where it listens, once it does."""

        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            for server in self.servers:
                place, at, *_ = server.sockets[0].getsockname()
                shown = f"[{place}]" if ":" in place else place
                say(f"the console is at http://{shown}:{at}/; Ctrl-C ends it")

    app = create_app(options)
    gc.collect()
    gc.freeze()  # else each full collection goes through all that is imported, while a visitor waits
    Server(
        uvicorn.Config(
            app,
            host=options.host,
            port=port,
            log_level="warning",
            proxy_headers=False,  # an address that anybody may claim would be trusted
            server_header=False,
            timeout_graceful_shutdown=3,
        )
    ).run()


def _require_parts() -> None:
    try:
        for part in _PARTS:
            __import__(part)
    except ImportError as error:
        if error.name not in _PARTS:
            raise
        raise ConfigurationError("the console needs an extra: pip install 'pgresults[web]'") from error


@contextmanager
def _noting(file: Path | None) -> Iterator[Any]:
    """Takes lines of the access log, each a JSON object."""
    turn = Lock()
    with nullcontext(sys.stderr) if file is None else file.open("a") as stream:
        out: IO[str] = stream

        def note(line: Mapping[str, Any]) -> None:
            with turn:
                out.write(json.dumps(line) + "\n")
                out.flush()

        yield note
