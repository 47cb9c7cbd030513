"""What tasks computed, when, and why they had to."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.responses import Response

from pgresults.arguments import require_text
from pgresults.database.programs import aperform, call
from pgresults.errors import InvalidArgument
from pgresults.operations import console
from pgresults.operations.console import Computed, Rate
from pgresults.sql.grants import Kind
from pgresults.store import ResultStore
from pgresults.web import charts, texts
from pgresults.web.charts import Bar
from pgresults.web.figures import Figure
from pgresults.web.pages.space import counted
from pgresults.web.views import View, change, page, see

_LIMIT = 50
_WINDOW = 10_000
_STEPS = 48
_SPANS: Mapping[str, tuple[timedelta, str]] = {
    "2h": (timedelta(hours=2), "%H:%M"),
    "1d": (timedelta(days=1), "%H:%M"),
    "7d": (timedelta(days=7), "%d %b"),
    "30d": (timedelta(days=30), "%d %b"),
}


@page("tasks", Kind.HISTORIAN)
async def tasks(view: View) -> Response:
    """The tasks that there are results of, or one of them."""
    name, chosen = require_text(view.asked("task"), "task"), view.asked("span") or "1d"
    if chosen not in _SPANS:
        raise InvalidArgument(f"span is one of {', '.join(_SPANS)}", argument="span", value=chosen)
    span, form = _SPANS[chosen]
    step = span / _STEPS
    id_ = view.storage.id
    rates, found = await asyncio.gather(
        counted(view, f"rates {chosen} {name}", lambda: console.rates(id_, name, span, step, _WINDOW * 10)),
        counted(view, "tasks", lambda: console.tasks(id_, _LIMIT)),
    )
    common = {"rates": rates, "chart": _chart(rates, step, form), "chosen": chosen, "spans": list(_SPANS), "task": name}
    if name is None:
        return view.render(**common, found=found)
    last = await aperform(call(view.storage.database, lambda _: console.computed(id_, name, _LIMIT, _WINDOW)))
    return view.render("task.html", **common, last=[(one, why(one)) for one in last], window=_WINDOW)


def why(computed: Computed) -> str:
    """Why a call had to compute what is stored: what its key's history said before."""
    before = computed.before
    if before is None:
        return "never computed before with these inputs"
    reason = f": {before.reason}" if before.reason else ""
    match before.action:
        case "expire":
            return f"the result before had expired, and was swept at {texts.exact(before.at)}"
        case "delete":
            return f"deleted at {texts.exact(before.at)} by {before.actor}{reason}"
        case "redact":
            return f"erased at {texts.exact(before.at)} by {before.actor}{reason}"
    if before.expires_at is not None and before.expires_at <= computed.at:
        return f"the result before had expired at {texts.exact(before.expires_at)}"
    return "computed although a result was live: it was refreshed, overwritten, or by two at once"


def _chart(figure: Figure[list[Rate]], step: timedelta, form: str) -> Any:
    by_start = {rate.start: rate for rate in figure.value or ()}
    zero = datetime(2000, 1, 1, tzinfo=UTC)
    last = zero + (datetime.now(UTC) - zero) // step * step
    starts = [last - step * number for number in range(_STEPS - 1, -1, -1)]
    bars = []
    for start in starts:
        rate = by_start.get(start, Rate(start, 0, 0))
        said = f"from {texts.exact(start)}: {rate.first:,} for the first time, {rate.again:,} again"
        bars.append(Bar(start.strftime(form), [("main", float(rate.first)), ("other", float(rate.again))], said))
    most = max((bar.total for bar in bars), default=0)
    return charts.bars(bars, "Results that tasks computed over time, for the first time and again", f"{most:,.0f}")


@change("tasks", Kind.WRITER)
async def forget(view: View) -> Response:
    """Delete the live results of a task."""
    assert view.place.changing is not None  # noqa: S101 (`change` saw to it)
    form = await view.request.form()
    name, reason = str(form.get("task", "")), str(form.get("reason", "")).strip()
    if not name or not reason:
        raise InvalidArgument("say which task, and why: the reason is kept in the history", argument="reason")
    changing = view.place.changing
    store = ResultStore(result_storage=changing, lock_manager=changing.lock_manager())
    deleted = await store.ainvalidate(task=name, reason=reason)
    return see(view.url("tasks", task=name, forgotten=deleted))
