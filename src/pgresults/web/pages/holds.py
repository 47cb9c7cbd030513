"""What nobody may take away, why, and until when."""

from starlette.responses import Response

from pgresults.operations.holds import Hold
from pgresults.sql.grants import Kind
from pgresults.store import ResultStore
from pgresults.web.views import View, page

_LIMIT = 100


@page("holds", Kind.HISTORIAN)
async def holds(view: View) -> Response:
    """The holds that stand, the oldest first."""
    found = await ResultStore(result_storage=view.storage).aholds()
    start = view.number("from", 0) or 0
    some = list(found[start : start + _LIMIT])
    return view.render(
        holds=[(one, address_of(view, one)) for one in some],
        count=len(found),
        start=start,
        further=start + len(some) if start + len(some) < len(found) else None,
    )


def address_of(view: View, hold: Hold) -> str:
    """Where what a hold is on is shown."""
    if hold.key is not None:
        return view.url("key", key=hold.key)
    return view.url("results", prefix=hold.prefix, tag=hold.tags[0] if hold.tags else None)


def covers(hold: Hold, key: str, tags: frozenset[str]) -> bool:
    """Whether a hold is on a key whose versions carry or carried tags."""
    if hold.key is not None:
        return hold.key == key
    if hold.prefix is not None:
        return key.startswith(hold.prefix)
    return hold.tags is not None and set(hold.tags) <= tags
