"""The console as an application of ASGI."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from pgresults.web.figures import Figures
from pgresults.web.guarding import Guard
from pgresults.web.jobs import Jobs
from pgresults.web.options import Options
from pgresults.web.pages import health, holds, integrity, key, lineage, locks, log, login, results, space, tasks
from pgresults.web.places import Places
from pgresults.web.rendering import STATIC, static, zipped
from pgresults.web.views import Console, refused

_NOT_FOUND = 404


def create_app(options: Options) -> ASGIApp:
    """The console.

    Parameters:
        options: what it shows, to whom, and what it may change.

    Raises: ConfigurationError where anybody would reach it from elsewhere.
    """
    options.require_safe()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        console: Console = app.state.console
        try:
            yield
        finally:
            await console.jobs.aclose()
            await console.figures.aclose()
            await console.places.aclose()

    app = Starlette(
        routes=[
            Route("/", results.first),
            Route("/healthz", health.healthz),
            Route("/metrics", health.metrics),
            Route("/health", health.health),
            Route("/holds", holds.holds),
            Route("/static/{name}", _static),
            Route("/login", login.login, methods=["GET", "POST"]),
            Route("/log", log.log),
            Route("/results", results.results),
            Route("/suggestions", results.suggestions),
            Route("/key", key.key),
            Route("/lineage", lineage.lineage),
            Route("/key/delete", key.delete, methods=["POST"]),
            Route("/raw", key.raw),
            Route("/locks", locks.locks),
            Route("/locks/break", locks.break_lock, methods=["POST"]),
            Route("/tasks", tasks.tasks),
            Route("/tasks/forget", tasks.forget, methods=["POST"]),
            Route("/integrity", integrity.integrity),
            Route("/integrity/run", integrity.run),
            Route("/integrity/verify", integrity.verify, methods=["POST"]),
            Route("/integrity/check", integrity.check, methods=["POST"]),
            Route("/space", space.space),
            Route("/space/retain", space.retained, methods=["POST"]),
        ],
        lifespan=lifespan,
        exception_handlers={HTTPException: _no_such_page, Exception: _failed},
    )
    places = Places(options.settings, options.storage, options.allow_changes)
    app.state.console = Console(options, places, Figures(options.patience), Jobs())
    return Guard(app, options)  # around all of it, so that what fails is guarded as well


async def _static(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in STATIC:
        return PlainTextResponse("there is no such file\n", 404)
    if "gzip" in request.headers.get("accept-encoding", ""):
        told = {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
        return Response(zipped(name), headers=told, media_type=STATIC[name])
    return Response(static(name), media_type=STATIC[name])


async def _no_such_page(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 (what it is registered for)
    if not hasattr(request.state, "visitor"):  # who asks for a file is not looked at
        return PlainTextResponse(f"{error.detail}\n", error.status_code)
    title = "There is no such page" if error.status_code == _NOT_FOUND else "That is not taken"
    return refused(request, "", error.status_code, title, str(error.detail))


async def _failed(request: Request, _error: Exception) -> Response:
    return refused(request, "", 500, "This failed", "It is a fault of the console: its own log says more.")
