"""Pages from templates, in which everything is escaped."""

import gzip
import hashlib
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse

from pgresults.web import charts, texts

_ROOM = files("pgresults.web")


@cache
def static(name: str) -> bytes:
    """A file that is served as it is."""
    return (_ROOM / "static" / name).read_bytes()


@cache
def zipped(name: str) -> bytes:
    """Such a file, smaller; no page is zipped, for its length would tell of what is secret in it."""
    return gzip.compress(static(name), mtime=0)


STATIC = {
    "console.css": "text/css; charset=utf-8",
    "console.js": "text/javascript; charset=utf-8",
    "htmx.min.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
"""The files that are served, and their types."""


def _address(name: str) -> str:
    """Where a file is served, so that another version of it is never taken for this one."""
    return f"/static/{name}?{hashlib.sha256(static(name)).hexdigest()[:12]}"


def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("pgresults.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters |= texts.FILTERS
    made.globals |= {"charts": charts, "static": {name: _address(name) for name in STATIC}}
    return made


_templates = _environment()
for _name in _templates.list_templates(["html"]):
    _templates.get_template(_name)  # compiled now, and not while the first visitor waits


def render(template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A page of a template.

    Parameters:
        template: its name.
        status: that of the answer.
        values: what it shows.
    """
    return HTMLResponse(_templates.get_template(template).render(values), status)
