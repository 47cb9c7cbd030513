"""Who may come in, and what is sent along with every answer so that no other site can use a visitor."""

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request, cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pgresults.arguments import flaw_of
from pgresults.records.provenance import ACTOR
from pgresults.web.options import Options, is_loopback, plain_address

COOKIE = "pgresults_console"
_OPEN, _PROVEN = "open", "proven"
_MOST_BYTES = 8 * 1024 * 1024
_DIGITS = 12
_LONGEST_NAME = 200
_SAFE = ("GET", "HEAD")
_DONE = 200
HEALTH, LOGIN, STATIC = "/healthz", "/login", "/static/"

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # with less, a browser does not say where a form comes from
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


@dataclass(frozen=True)
class Visitor:
    """Who asks.

    Parameters:
        name: as a proxy says; None: it says none, and changes are this process's user's.
        session: of which browser.
        token: what a form has to have so that it is one of ours, made for this session.
        host: the address that the request came from.
    """

    name: str | None
    session: str
    token: str
    host: str


class Guard:
    """Lets those in who may, and has every answer say what a browser may do with it.

    Parameters:
        app: what is guarded.
        options: who may come.
    """

    def __init__(self, app: ASGIApp, options: Options) -> None:
        self._app = app
        self._hosts = options.hosts
        web = options.settings.web
        self._token = web.token.get_secret_value() if web.token else None
        self._user_header = web.user_header
        self._proxies = frozenset(web.proxies)
        self._secret = secrets.token_bytes(32)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or have it answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        sending = _Sending(send, cached=request.url.path.startswith(STATIC))
        refusal = self._refusal(request)
        if refusal is None and request.url.path != HEALTH and not request.url.path.startswith(STATIC):
            refusal = self._admit(request, sending)
        if refusal is not None:
            await refusal(scope, receive, sending)
            return
        visitor: Visitor | None = request.state._state.get("visitor")
        token = ACTOR.set(visitor.name if visitor else None)
        try:
            await self._app(scope, _limited(receive), sending)
        finally:
            ACTOR.reset(token)

    @property
    def asks(self) -> bool:
        """Whether there is a token that lets visitors in."""
        return self._token is not None

    def proves(self, token: str) -> bool:
        """Whether a token is the one that is asked for."""
        return self._token is not None and hmac.compare_digest(token.encode(), self._token.encode())

    def proven_cookie(self, request: Request) -> str:
        """A header that begins a session of somebody who has the token."""
        return self._cookie(request, secrets.token_hex(16), _PROVEN)

    def _refusal(self, request: Request) -> Response | None:
        if request.url.path == HEALTH:  # whoever balances the load asks by address
            return None
        name = _host_of(request.headers)
        if name not in self._hosts:
            return PlainTextResponse(
                "the console is not called so; PGRESULTS_WEB_HOSTS names what it may be called\n", 421
            )
        length = request.headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > _DIGITS or int(length) > _MOST_BYTES:
            return PlainTextResponse("that is more than is taken here\n", 413)
        if request.method not in _SAFE and not _is_own(request.headers):
            return PlainTextResponse("another site sent this\n", 403)
        return None

    def _admit(self, request: Request, sending: "_Sending") -> Response | None:
        """Find out who asks; gives an answer to whom is not let in."""
        session, kind = self._session(request)
        name = None if self._user_header is None else self._named(request)
        needs_more = name is None and (self._token is not None or self._user_header is not None)
        if needs_more and not (self._token is not None and (kind == _PROVEN or self._bears_token(request))):
            if self._token is None:
                return PlainTextResponse("no user is named by a proxy that is trusted\n", 403)
            if request.url.path != LOGIN:
                return _to_login(request)
        if session is None:
            session = secrets.token_hex(16)
            sending.cookie = self._cookie(request, session, _OPEN)
        host = request.client.host if request.client else "?"
        request.state.visitor = Visitor(name, session, self._sign("form", session, name or ""), host)
        request.state.guard = self
        return None

    def _named(self, request: Request) -> str | None:
        """The user that a trusted proxy names."""
        client = plain_address(request.client.host if request.client else "")
        trusted = client in self._proxies if self._proxies else is_loopback(client)
        names = request.headers.getlist(self._user_header or "")
        if not trusted or len(names) != 1:
            return None
        name = _as_text(names[0]).strip()
        return None if flaw_of(name, _LONGEST_NAME) or not name.isprintable() else name

    def _bears_token(self, request: Request) -> bool:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and self.proves(token.strip())

    def _session(self, request: Request) -> tuple[str | None, str]:
        for header in request.headers.getlist("cookie"):
            session, _, rest = cookie_parser(header).get(COOKIE, "").partition(".")
            kind, _, signature = rest.partition(".")
            if hmac.compare_digest(signature.encode(), self._sign(kind, session).encode()):
                return session, kind
        return None, _OPEN

    def _cookie(self, request: Request, session: str, kind: str) -> str:
        """A header that has a browser keep a session until it is closed."""
        secure = "https" in (request.url.scheme, request.headers.get("x-forwarded-proto"))
        value = f"{session}.{kind}.{self._sign(kind, session)}"
        return f"{COOKIE}={value}; Path=/; HttpOnly; SameSite=Lax{'; Secure' if secure else ''}"

    def _sign(self, *parts: str) -> str:
        return hmac.new(self._secret, "\0".join(parts).encode(), hashlib.sha256).hexdigest()


class _Sending:
    """Sends an answer with what every answer says.

    Parameters:
        send: sends it.
        cached: whether a browser may keep it.
    """

    def __init__(self, send: Send, *, cached: bool) -> None:
        self._send = send
        self._cached = cached
        self.cookie: str | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
            cached = self._cached and message["status"] == _DONE
            headers["Cache-Control"] = "max-age=31536000, immutable" if cached else "no-store"
            if self.cookie is not None:
                headers.append("set-cookie", self.cookie)
        await self._send(message)


def _limited(receive: Receive) -> Receive:
    taken = 0

    async def limited() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > _MOST_BYTES:
            raise HTTPException(413, "that is more than is taken here")
        return message

    return limited


def _as_text(header: str) -> str:
    """What a header says, which is mostly UTF-8 where it is not ASCII."""
    try:
        return header.encode("latin-1").decode()
    except UnicodeDecodeError:
        return header


def _host_of(headers: Headers) -> str:
    """The name by which the console is called, without the port; an empty text where there is no single one."""
    names = headers.getlist("host")
    if len(names) != 1:
        return ""
    try:
        parts = urlsplit(f"//{names[0]}")
        name = parts.hostname or ""
    except ValueError:
        return ""
    return f"[{name}]" if ":" in name else name


def _is_own(headers: Headers) -> bool:
    """Whether a browser says that what it sends comes from a page of ours; what is no browser says nothing."""
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc == headers.get("host")


def _to_login(request: Request) -> Response:
    if request.method not in _SAFE or "text/html" not in request.headers.get("accept", ""):
        return PlainTextResponse("a token is needed: Authorization: Bearer …\n", 401, {"WWW-Authenticate": "Bearer"})
    asked = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return RedirectResponse(f"{LOGIN}?{urlencode({'then': asked})}", 303)


def own_address(address: str, paths: Iterable[str]) -> str:
    """An address of a page of ours; that of the first one for any other."""
    parts = urlsplit(address) if not set(address) & set("\\\r\n\t") else urlsplit("")
    if parts.scheme or parts.netloc or parts.path not in paths:
        return "/"
    return parts.path + (f"?{parts.query}" if parts.query else "")
