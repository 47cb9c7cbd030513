"""``pgresults metrics``: what Prometheus asks for."""

import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pgresults.cli.output import fail, note, say
from pgresults.cli.session import session
from pgresults.errors import ConfigurationError

if TYPE_CHECKING:
    from pgresults.web.gauges import Told

_PATH = "/metrics"
_USUALLY = "127.0.0.1:9791"
_PATIENCE = 10.0
_UNAVAILABLE = 503


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command()(metrics)


def _place(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (colon and host and port.isdecimal() and int(port) < 2**16):
        raise typer.BadParameter(f"{text} is no HOST:PORT, such as {_USUALLY} or [::1]:9791")
    return host, int(port)


def metrics(
    context: typer.Context,
    listen: Annotated[
        Any,
        typer.Option(
            parser=_place, metavar="HOST:PORT", help=f"Where to serve them, {_USUALLY} by default: without a password."
        ),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Print them, and end.")] = False,
    seal: Annotated[
        list[Path] | None, typer.Option(metavar="SEAL", help="Say of what age this seal is; may be repeated.")
    ] = None,
) -> None:
    """Serve what Prometheus asks for: sizes, expirations, locks and the revision, of all storages or of --storage."""
    if once and listen is not None:
        raise typer.BadParameter("--once prints, --listen says where to serve: give one of them")
    gather = _gatherer()
    used = session(context)
    with used.database() as storage:
        only = storage.name if used.named else None

        def look() -> "Told":
            return gather(storage.database, only, seal or ())

        if once:
            _print(look())
        else:
            _serve(listen or _place(_USUALLY), look)


def _gatherer() -> Callable[..., "Told"]:
    try:
        from pgresults.web.gauges import gather
    except ImportError as error:
        if error.name is None or error.name.partition(".")[0] != "prometheus_client":
            raise
        raise ConfigurationError("metrics need an extra: pip install 'pgresults[metrics]'") from error
    return gather


def _print(told: "Told") -> None:
    text, _ = told.encoded("")
    typer.echo(text.decode(), nl=False)
    for line in told.notes:
        note(line)
    if told.failure is not None:
        fail(told.failure)
        raise typer.Exit(1)


class _Server(ThreadingHTTPServer):
    """Serves what a look tells, one look at a time.

    Parameters:
        place: host and port.
        look: looks.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, place: tuple[str, int], look: Callable[[], "Told"]) -> None:
        self.address_family = socket.getaddrinfo(*place, type=socket.SOCK_STREAM)[0][0]
        self._look = look
        self._turn = threading.Lock()
        self._said: object = None
        super().__init__(place, _Handler)

    def told(self) -> "Told | None":
        """What there is to tell; None where others are being told, for too long."""
        if not self._turn.acquire(timeout=_PATIENCE):
            return None
        try:
            told = self._look()
            self._say(told)
            return told
        finally:
            self._turn.release()

    def _say(self, told: "Told") -> None:
        """Say beside it what is new."""
        said = (told.failure, *told.notes)
        if said != self._said:
            for line in told.notes:
                note(line)
            if told.failure is not None:
                fail(told.failure)
        self._said = said


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        """Answer with the metrics."""
        if self.path.partition("?")[0] != _PATH:
            self.send_error(404, f"what there is, is under {_PATH}")
            return
        told = self.server.told()
        if told is None:
            self.send_error(_UNAVAILABLE, "an earlier look is not over yet")
            return
        text, kind = told.encoded(self.headers.get("Accept") or "")
        self.send_response(200 if told.failure is None else _UNAVAILABLE)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    do_HEAD = do_GET  # noqa: N815 (the name is the server's)

    def log_message(self, *_: Any) -> None:
        """Say nothing of each request."""


def _serve(place: tuple[str, int], look: Callable[[], "Told"]) -> None:
    with _Server(place, look) as server:
        host, port = server.server_address[:2]
        shown = f"[{host!s}]" if ":" in str(host) else str(host)
        say(f"metrics are served at http://{shown}:{port}{_PATH}; Ctrl-C ends that")
        server.serve_forever()
