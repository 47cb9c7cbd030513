"""What a version was computed from, and what was computed from it."""

import asyncio

from starlette.responses import Response

from pgresults.errors import InvalidArgument
from pgresults.records.keys import require_key
from pgresults.sql.grants import Kind
from pgresults.store import ResultStore
from pgresults.web.drawing import drawing
from pgresults.web.views import View, page

_DEPTHS = (1, 3, 10)
_LIMIT = 100


@page("lineage", Kind.HISTORIAN)
async def lineage(view: View) -> Response:
    """The lineage of a version, drawn and as a list."""
    key, version = require_key(view.asked("key")), view.number("version")
    depth = view.number("depth") or _DEPTHS[1]
    if depth not in _DEPTHS:
        raise InvalidArgument(f"depth is one of {', '.join(map(str, _DEPTHS))}", argument="depth", value=depth)
    store = ResultStore(result_storage=view.storage)
    up, down = await asyncio.gather(
        store.alineage(key, version, "up", depth, _LIMIT), store.alineage(key, version, "down", depth, _LIMIT)
    )
    return view.render(
        key=key,
        version=up.start.version,
        depth=depth,
        depths=_DEPTHS,
        drawn=drawing(up, down),
        lists=(("computed from", up.versions[1:]), ("computed from it", down.versions[1:])),
    )
