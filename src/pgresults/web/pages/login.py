"""Letting somebody in who has the token."""

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from pgresults.web.guarding import Guard, own_address
from pgresults.web.rendering import render
from pgresults.web.views import ADDRESSES, same, see, visitor_of

_PAUSE = 0.5  # seconds that a wrong token costs


async def login(request: Request) -> Response:
    """Ask for the token, and begin a session for whom has it."""
    guard: Guard = request.state.guard
    then = own_address(request.query_params.get("then", "/"), ADDRESSES)
    if not guard.asks:
        return see(then)
    wrong = False
    if request.method == "POST":
        form = await request.form(max_files=0, max_fields=5)
        if same(str(form.get("token", "")), visitor_of(request).token) and guard.proves(str(form.get("secret", ""))):
            response = see(then)
            response.headers.append("set-cookie", guard.proven_cookie(request))
            return response
        wrong = True
        await asyncio.sleep(_PAUSE)
    theme = request.cookies.get("theme")
    values = {"then": then, "wrong": wrong, "token": visitor_of(request).token}
    return render("login.html", 401 if wrong else 200, **values, theme=theme if theme in ("dark", "light") else "")
