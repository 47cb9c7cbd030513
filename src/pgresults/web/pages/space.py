"""What expires when, what is overdue, what takes the room, and what `retain` would free."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any, TypeAlias
from uuid import UUID

from starlette.responses import Response

from pgresults.database.programs import aperform, call
from pgresults.errors import InvalidArgument
from pgresults.operations import console, views
from pgresults.operations.requests import Operation, T
from pgresults.records.moments import duration
from pgresults.sql.grants import Kind
from pgresults.store import ResultStore
from pgresults.web import charts, texts
from pgresults.web.charts import Bar
from pgresults.web.figures import Figure
from pgresults.web.jobs import Progress
from pgresults.web.views import View, change, page, see

_DAYS = (7, 30, 90)
_LIMIT = 15
_TASKS = 50
"""As many as the page of tasks shows, so that they are counted once for both."""


@page("space", Kind.HISTORIAN)
async def space(view: View) -> Response:
    """Where the bytes are, and when they go."""
    days = view.number("days") or _DAYS[1]
    if days not in _DAYS:
        raise InvalidArgument(f"days is one of {', '.join(map(str, _DAYS))}", argument="days", value=days)
    span, id_ = timedelta(days=days), view.storage.id
    daily, usage, largest, tasks, tags, overdue = await asyncio.gather(
        counted(view, f"days {days}", lambda: _daily(id_, span)),
        counted(view, "usage", lambda: views.usage(id_)),
        counted(view, "largest", lambda: console.largest(id_, _LIMIT)),
        counted(view, "tasks", lambda: console.tasks(id_, _TASKS)),
        counted(view, "tags", lambda: console.tags(id_, _LIMIT)),
        aperform(call(view.storage.database, lambda _: console.overdue(id_, _LIMIT))),
    )
    today = datetime.now(UTC).date()
    return view.render(
        days=days,
        choices=_DAYS,
        usage=usage,
        daily=daily,
        expiring=_chart(daily, 0, today, today + span, "expire", "What expires on each day to come, by bytes"),
        written=_chart(daily, 1, today - span, today, "written", "What was written on each day past, by bytes"),
        overdue=overdue,
        largest=largest,
        tasks=tasks,
        tags=tags,
        retained=view.console.jobs.of("retain", view.storage)[:5],
    )


def counted(view: View, what: str, start: Callable[[], Operation[T]]) -> Awaitable[Figure[T]]:
    """A figure of the storage of a view; see `Figures`."""
    storage = view.storage
    name = (storage.schema, storage.name, what)
    return view.console.figures.get(name, lambda: aperform(call(storage.database, lambda _: start())))


_Daily: TypeAlias = tuple[list[views.Daily], list[views.Daily]]


def _daily(storage_id: UUID, span: timedelta) -> Operation[_Daily]:
    """What expires on each day to come, and what was written on each day past."""
    return (yield from views.expiring_daily(storage_id, span)), (yield from views.written_daily(storage_id, span))


def _chart(figure: Figure[_Daily], which: int, start: date, end: date, verb: str, described: str) -> Any:
    """A chart with a bar for each day, empty ones too; None where there is nothing in any."""
    by_day = {day.day: day for day in figure.value[which]} if figure.value else {}
    if not by_day:
        return None
    days = [start + timedelta(days=number) for number in range((end - start).days + 1)]
    bars = []
    for day in days:
        found = by_day.get(day)
        results, size = (found.results, found.bytes) if found else (0, 0)
        said = f"{day:%Y-%m-%d}: {results:,} results of {texts.size(size)} {verb}"
        bars.append(Bar(texts.day(day), [("main", float(size))], said))
    most = max((day.bytes for day in by_day.values()), default=0)
    return charts.bars(bars, described, texts.size(most) if most else "")


@change("space", Kind.AUDITOR, changes=False)
async def retained(view: View) -> Response:
    """Begin to count what `retain` would free; nothing is taken away."""
    form = await view.request.form()
    versions, age = str(form.get("versions", "")).strip(), str(form.get("age", "")).strip()
    if versions and not (versions.isascii() and versions.isdecimal() and int(versions[:9]) > 0):
        raise InvalidArgument("versions is a number from 1 on", argument="versions", value=versions)
    keep = int(versions[:9]) if versions else None
    span = duration(age) if age else None
    store = ResultStore(result_storage=view.storage)
    said = " and ".join(
        part for part in (keep and f"the last {keep} versions", age and f"what was current for {age}") if part
    )

    async def count(progress: Progress) -> int:
        return await store.aretain(keep, span, dry_run=True, progress=progress)

    if keep is None and span is None:
        raise InvalidArgument("say what to keep: versions, an age, or both", argument="versions")
    total = await aperform(call(view.storage.database, lambda _: views.totals(view.storage.id)))
    view.console.jobs.begin("retain", view.storage, f"keeping {said}", view.visitor.name or "", total.keys, count)
    return see(view.url("space") + "#retain")
