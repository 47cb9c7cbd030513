"""What happens, the newest first."""

from datetime import datetime
from typing import Any

from starlette.responses import Response

from pgresults.arguments import require_tags, require_text
from pgresults.audit.checks import ACTIONS
from pgresults.audit.entries import HistoryEntry, shown_entry
from pgresults.database.programs import aperform
from pgresults.database.standbys import looking_back, reading
from pgresults.errors import InvalidArgument
from pgresults.operations import console
from pgresults.operations.console import At
from pgresults.records.moments import moment
from pgresults.sql.grants import Kind
from pgresults.storage.finding import bound
from pgresults.web.views import View, page

_LIMIT = 50
_WINDOW = 10_000
"""How many entries one request looks at where some are to be picked: what is further back is the next request's."""


@page("log", Kind.HISTORIAN)
async def log(view: View) -> Response:
    """The log, picked by actor, action, key, task, tag and time."""
    given = _chosen(view)
    before = view.asked("before")
    chosen = frozenset(given) | ({"last_at"} if before else frozenset())
    last = _place_of(before) if before else None
    parameters = {
        **bound(given),
        "storage_id": view.storage.id,
        **({} if last is None else {"last_at": last.at, "last_key": last.key, "last_seq": last.seq}),
    }
    found = await aperform(
        reading(
            view.storage.database,
            lambda *_: console.log(parameters, chosen, _LIMIT, _WINDOW),
            looking_back(view.storage.database),
        )
    )
    return view.render(
        rows=[(key, shown_entry(entry)) for key, entry in found.entries],
        task_of=task_of,
        actions=ACTIONS,
        picked=bool(given),
        further=None if found.last is None else _written(found.last),
        back_to=found.last and found.last.at,
        live=before is None and "until" not in given and view.asked("live") != "no",
    )


def _chosen(view: View) -> dict[str, Any]:
    """What is asked for, checked."""
    given: dict[str, Any] = {}
    for name in ("actor", "action", "prefix", "task"):
        if (text := view.asked(name)) is not None:
            given[name] = require_text(text, name)
    if (tag := view.asked("tag")) is not None:
        given["tags"] = require_tags([tag])
    for name in ("since", "until"):
        if (text := view.asked(name)) is not None:
            given[name] = moment(text)
    return given


def task_of(entry: HistoryEntry) -> str | None:
    """The name of the task that wrote a version."""
    task = (entry.provenance or {}).get("task")
    name = task.get("name") if isinstance(task, dict) else None
    return name if isinstance(name, str) else None


def _written(last: At) -> str:
    return f"{last.at.isoformat()},{last.seq},{last.key}"


def _place_of(before: str) -> At:
    """The place that an address goes on from; raises InvalidArgument."""
    at, _, rest = before.partition(",")
    seq, _, key = rest.partition(",")
    try:
        found = At(datetime.fromisoformat(at), require_text(key, "before") or "", int(seq[:19]))
    except ValueError:
        found = None
    if found is None or found.at.utcoffset() is None or not 0 <= found.seq < 2**63:
        raise InvalidArgument("this is no place in the log", argument="before", value=before)
    return found
