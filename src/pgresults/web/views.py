"""A request's way to a page: where it looks, who asks, and what becomes of a failure."""

import hmac
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import wraps
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from pgresults.database.errors import is_forbidden
from pgresults.errors import (
    ConfigurationError,
    IntegrityError,
    InvalidArgument,
    LockedError,
    MissingResult,
    PayloadTooLarge,
    PgResultsError,
    SchemaVersionError,
    StorageUnavailable,
)
from pgresults.records.provenance import actor
from pgresults.sql.grants import Kind
from pgresults.storage.postgres import PostgresStorage
from pgresults.web.figures import Figures
from pgresults.web.guarding import Visitor
from pgresults.web.jobs import Jobs
from pgresults.web.options import Options
from pgresults.web.places import Place, Places
from pgresults.web.rendering import render

_log = logging.getLogger(__name__)
_MOST_STORAGES = 50


class Entry(NamedTuple):
    """A page in the navigation: its name, which is its path, and its title."""

    name: str
    title: str


PAGES = (
    Entry("log", "Log"),
    Entry("results", "Results"),
    Entry("tasks", "Tasks"),
    Entry("locks", "Locks"),
    Entry("space", "Space"),
    Entry("holds", "Holds and retention"),
    Entry("integrity", "Integrity"),
    Entry("health", "Health"),
)
ADDRESSES = frozenset(("/", "/key", "/lineage", *(f"/{page.name}" for page in PAGES)))
"""Where a visitor may be led to."""


@dataclass(frozen=True)
class Console:
    """What all requests share."""

    options: Options
    places: Places
    figures: Figures
    jobs: Jobs


@dataclass(frozen=True)
class View:
    """A request for a page.

    Parameters:
        request: what was asked.
        console: what all requests share.
        place: where to look; None: it could not be found out.
        page: the page's name.
    """

    request: Request
    console: Console
    place: Place
    page: str

    @property
    def storage(self) -> PostgresStorage:
        """The storage, only to look at."""
        return self.place.storage

    @property
    def visitor(self) -> Visitor:
        """Who asks."""
        return visitor_of(self.request)

    def asked(self, name: str) -> str | None:
        """A parameter of the address; None where it is missing or empty."""
        return self.request.query_params.get(name) or None

    def number(self, name: str, least: int = 1) -> int | None:
        """A parameter that is a number; raises InvalidArgument for any other text."""
        given = self.asked(name)
        if given is None:
            return None
        if not (given.isascii() and given.isdecimal() and len(given) <= 18 and int(given) >= least):
            raise InvalidArgument(f"{name} is a number from {least} on, and not {given!r}", argument=name, value=given)
        return int(given)

    def url(self, page: str, **parameters: object) -> str:
        """The address of a page about the same storage."""
        return address(page, {**_place_in(self.console, self.place), **parameters})

    def here(self, **changed: object) -> str:
        """The address of this page with some parameters changed; None leaves one out."""
        return address(self.page, {**dict(self.request.query_params), **changed})

    def note(self, key: str, version: int | None, how: str) -> None:
        """Note in the access log that somebody looks at a payload."""
        self.console.options.note(
            {
                "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "who": self.visitor.name or actor(),
                "from": self.visitor.host,
                "schema": self.storage.schema,
                "storage": self.storage.name,
                "key": key,
                "version": version,
                "how": how,
            }
        )

    def render(self, template: str | None = None, status: int = 200, **values: Any) -> Response:
        """The page."""
        shown = _frame(self.request, self.page) | {
            "url": self.url,
            "here": self.here,
            "schema": self.storage.schema,
            "storage": self.storage.name,
            "schemas": sorted({*self.place.schemas, self.storage.schema}),
            "storages": _some(self.place.storages.values(), self.storage.name),
            "changes": self.place.changing is not None,
        }
        return render(template or f"{self.page}.html", status, **{**shown, **values})


Handler: TypeAlias = Callable[[View], Awaitable[Response]]


def page(name: str, needs: Kind = Kind.READER) -> Callable[[Handler], Callable[[Request], Awaitable[Response]]]:
    """Makes an endpoint of what gives a page.

    Parameters:
        name: the page's name.
        needs: the least kind of role that sees it.
    """

    def decorate(handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        @wraps(handler)
        async def answer(request: Request) -> Response:
            console: Console = request.app.state.console
            try:
                asked = request.query_params
                place = await console.places.find(asked.get("schema"), asked.get("storage"))
                return await handler(View(request, console, place, name))
            except PgResultsError as error:
                return failed(request, name, error, needs)

        return answer

    return decorate


def change(
    name: str, needs: Kind, *, changes: bool = True
) -> Callable[[Handler], Callable[[Request], Awaitable[Response]]]:
    """Makes an endpoint of what a form asks for; only one of ours that was made for the same session is heard.

    Parameters:
        name: the name of the page that it belongs to.
        needs: the least kind of role that may do it.
        changes: whether it changes what is stored, which has to be allowed.
    """

    def decorate(handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        async def checked(view: View) -> Response:
            async with view.request.form(max_files=2, max_fields=20) as form:
                if not same(str(form.get("token", "")), view.visitor.token):
                    title = "This form is not of this session"
                    return refused(view.request, name, 403, title, "Load the page again.")
                if changes and view.place.changing is None:
                    advice = "Start it with --allow-changes to have this done here."
                    return refused(view.request, name, 403, "This console changes nothing", advice)
                return await handler(view)

        return page(name, needs)(wraps(handler)(checked))

    return decorate


def _some(names: Iterable[str], one: str) -> list[str]:
    """Names to choose from, one of them for certain."""
    return sorted({*sorted(names)[:_MOST_STORAGES], one})


def same(one: str, other: str) -> bool:
    """Whether two texts are the same, without telling by the time how much of them is."""
    return hmac.compare_digest(one.encode(), other.encode())


async def because(view: View) -> str:
    """Why somebody wants a change, which its form has to say; raises InvalidArgument."""
    reason = str((await view.request.form()).get("reason", "")).strip()
    if not reason:
        raise InvalidArgument("say why: the reason is kept in the history", argument="reason", value=reason)
    return reason


def see(address: str) -> Response:
    """Lead a browser that has sent a form on to a page."""
    return RedirectResponse(address, 303)


def address(page: str, parameters: Mapping[str, object]) -> str:
    """The address of a page."""
    given = {name: str(value) for name, value in parameters.items() if value is not None and value != ""}
    return f"/{page}" + (f"?{urlencode(given)}" if given else "")


def visitor_of(request: Request) -> Visitor:
    """Who asks."""
    visitor: Visitor = request.state.visitor
    return visitor


def _place_in(console: Console, place: Place) -> dict[str, object]:
    """The parameters by which an address says where to look."""
    storage, first = place.storage, console.places
    return {
        "schema": None if storage.schema == first.schema else storage.schema,
        "storage": None if storage.name == first.name else storage.name,
    }


class _Asked(dict[str, str]):
    """The parameters of an address; what is missing is empty."""

    def __missing__(self, _name: str) -> str:
        return ""


def _frame(request: Request, page: str) -> dict[str, Any]:
    """What is around every page."""
    theme = request.cookies.get("theme")
    return {
        "page": page,
        "pages": PAGES,
        "theme": theme if theme in ("dark", "light") else "",
        "token": visitor_of(request).token,
        "who": visitor_of(request).name or actor(),
        "asked": _Asked(request.query_params),
        "now": datetime.now(UTC),
    }


def refused(request: Request, page: str, status: int, title: str, why: str, command: str = "") -> Response:
    """A page that says why there is none."""
    asked = request.query_params
    given = {name: asked[name] for name in ("schema", "storage") if asked.get(name)}

    def url(page: str, **parameters: object) -> str:
        return address(page, {**given, **parameters})

    shown = _frame(request, page) | {"url": url, "schemas": [], "storages": [], "schema": "", "storage": ""}
    again = "" if request.method == "GET" else url(page)
    response = render("refused.html", status, **shown, title=title, why=why, command=command, again=again)
    if status == _UNAVAILABLE:
        response.headers["Retry-After"] = "5"
    return response


_UNAVAILABLE = 503
_FAILURES: tuple[tuple[type[PgResultsError], int, str], ...] = (
    (StorageUnavailable, _UNAVAILABLE, "The database does not answer"),
    (SchemaVersionError, _UNAVAILABLE, "The schema is not the one that this version works with"),
    (MissingResult, 404, "There is no such thing"),
    (InvalidArgument, 400, "That cannot be asked"),
    (PayloadTooLarge, 413, "That is too large to be shown here"),
    (LockedError, 409, "Somebody else has the lock"),
    (IntegrityError, 409, "This is not as it was written"),
    (ConfigurationError, 409, "The database refuses this"),
)


def failed(request: Request, page: str, error: PgResultsError, needs: Kind) -> Response:
    """The page of a failure."""
    if is_forbidden(error):
        why = f"This page needs the rights of kind “{needs.value}”. The owner of the tables gives them by:"
        return refused(request, page, 403, "This role may not see that", why, f"pgresults db grant ROLE --as {needs}")
    for kind, status, title in _FAILURES:
        if isinstance(error, kind):
            command = getattr(error, "command", None) or ""
            return refused(request, page, status, title, str(error), command)
    _log.error("a page failed", exc_info=error)
    return refused(request, page, 500, "This failed", str(error))
