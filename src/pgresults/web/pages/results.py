"""What there is, by key."""

from starlette.requests import Request
from starlette.responses import Response

from pgresults.database.programs import aperform
from pgresults.database.standbys import looking_back
from pgresults.records.keys import require_key
from pgresults.storage.finding import chosen_conditions, page_of
from pgresults.web.views import View, address, page, see

_LIMIT = 50
_SUGGESTED = 8


@page("results")
async def results(view: View) -> Response:
    """The live results, by key, picked by the beginning of their keys, tag, task and flow."""
    given = chosen_conditions(
        view.asked("prefix"),
        [tag] if (tag := view.asked("tag")) else None,
        view.asked("task"),
        view.asked("flow"),
    )
    after = view.asked("after") or ""
    storage = view.storage
    wanted = looking_back(storage.database)
    found = await aperform(page_of(storage, given, after and require_key(after), _LIMIT + 1, wanted))
    rows = found[:_LIMIT]
    return view.render(
        rows=rows, picked=bool(given), after=after, further=rows[-1].key if len(found) > _LIMIT else None
    )


@page("results")
async def suggestions(view: View) -> Response:
    """The first keys that begin as what is being typed."""
    prefix = view.asked("prefix")
    given = chosen_conditions(prefix, None, None, None)
    found = await aperform(page_of(view.storage, given, "", _SUGGESTED)) if prefix else []
    return view.render("suggestions.html", keys=[row.key for row in found])


async def first(request: Request) -> Response:
    """Lead on to the log."""
    return see(address("log", dict(request.query_params)))
