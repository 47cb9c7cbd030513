"""What nobody may take away, what goes by rules of retention, and what was erased."""

import asyncio
from datetime import timedelta

from starlette.responses import Response

from pgresults.audit.entries import shown_entry
from pgresults.operations import console, retention
from pgresults.operations.holds import Hold
from pgresults.operations.retention import RetentionRule
from pgresults.sql.grants import Kind
from pgresults.storage.finding import bound
from pgresults.store import ResultStore
from pgresults.web.pages.space import counted
from pgresults.web.views import View, page

_LIMIT = 100
_WITHIN = timedelta(days=365)
_ERASURES = 20
_WINDOW = 100_000
"""How many of the newest entries are looked at for erasures, which are rare: further back goes the log."""


@page("holds", Kind.HISTORIAN)
async def holds(view: View) -> Response:
    """The holds and rules that stand, the oldest first; what goes by the rules, and the last erasures."""
    store, id_ = ResultStore(result_storage=view.storage), view.storage.id
    found, rules = await asyncio.gather(store.aholds(), store.aretention())
    wanted = {**bound({"action": "redact"}), "storage_id": id_}
    erased, *due = await asyncio.gather(
        counted(view, "erasures", lambda: console.log(wanted, frozenset({"action"}), _ERASURES, _WINDOW)),
        *([counted(view, "due", lambda: retention.due(id_, _WITHIN, _LIMIT + 1))] if rules else ()),
    )
    start = view.number("from", 0) or 0
    some = list(found[start : start + _LIMIT])
    return view.render(
        holds=[(one, address_of(view, one)) for one in some],
        count=len(found),
        start=start,
        further=start + len(some) if start + len(some) < len(found) else None,
        rules=[(one, address_of(view, one)) for one in rules[:_LIMIT]],
        all_rules=len(rules),
        due=due[0] if due else None,
        most=_LIMIT,
        days=_WITHIN.days,
        erased=erased,
        erasures=[(key, shown_entry(entry)) for key, entry in erased.value.entries] if erased.value else [],
    )


def address_of(view: View, on: Hold | RetentionRule) -> str:
    """Where what a hold or a rule is on is shown."""
    if isinstance(on, Hold) and on.key is not None:
        return view.url("key", key=on.key)
    task = on.task if isinstance(on, RetentionRule) else None
    return view.url("results", prefix=on.prefix, tag=on.tags[0] if on.tags else None, task=task)


def covers(hold: Hold, key: str, tags: frozenset[str]) -> bool:
    """Whether a hold is on a key whose versions carry or carried tags."""
    if hold.key is not None:
        return hold.key == key
    if hold.prefix is not None:
        return key.startswith(hold.prefix)
    return hold.tags is not None and set(hold.tags) <= tags
