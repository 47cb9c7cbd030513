"""Finding live results by what is known of them."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from pgresults.arguments import require_moment, require_number, require_tags, require_text
from pgresults.database.following import Wanted
from pgresults.database.programs import Program
from pgresults.database.standbys import reading
from pgresults.errors import InvalidArgument
from pgresults.operations import history, views
from pgresults.operations.results import Listed
from pgresults.operations.views import FoundResult
from pgresults.records.keys import prefix_end, require_key
from pgresults.storage.postgres import PostgresStorage

PAGE = 1000
"""How many results one statement finds."""


def find(
    storage: PostgresStorage,
    conditions: Mapping[str, Any],
    after: str | None,
    limit: int | None,
    wanted: Wanted | None = None,
) -> Program[list[FoundResult]]:
    """The live results that meet conditions, by key, found page by page; see `ResultStore.find`."""
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise InvalidArgument("limit is a number of results from 1 on, or None", argument="limit", value=limit)
    found: list[FoundResult] = []
    last = "" if after is None else require_key(after)
    while limit is None or len(found) < limit:
        size = PAGE if limit is None else min(PAGE, limit - len(found))
        page = yield from page_of(storage, conditions, last, size, wanted)
        found += page
        if len(page) < size:
            break
        last = page[-1].key
    return found


def page_of(
    storage: PostgresStorage, conditions: Mapping[str, Any], after: str, limit: int, wanted: Wanted | None = None
) -> Program[list[FoundResult]]:
    """The first of the live results that meet conditions and come after a key."""
    page = {"storage_id": storage.id, "after": after, "limit": limit}
    chosen = frozenset(conditions)
    return reading(storage.database, lambda *_: views.find({**page, **bound(conditions)}, chosen), wanted)


_FOR_EVER = timedelta(days=100_000_000)
"""Added to the time now it is within what the server can say, and beyond what Python can."""


def expiring(
    storage: PostgresStorage, within: timedelta, limit: int | None, wanted: Wanted | None = None
) -> Program[list[Listed]]:
    """What is live and expires within a time from now; see `ResultStore.expiring`."""
    if not isinstance(within, timedelta):
        raise InvalidArgument("within is a timedelta", argument="within", value=within)
    if limit is not None:
        require_number(limit, "limit")
    span = min(max(within, timedelta()), _FOR_EVER)
    return (yield from reading(storage.database, lambda *_: history.expiring(storage.id, span, limit), wanted))


def chosen_conditions(
    prefix: str | None, tags: Iterable[str] | None, task: str | None, flow: str | None
) -> dict[str, Any]:
    """The conditions that are given, checked.

    Raises: InvalidArgument.
    """
    texts: dict[str, Any] = {
        name: require_text(text, name)
        for name, text in (("prefix", prefix), ("task", task), ("flow", flow))
        if text is not None
    }
    return texts if tags is None else texts | {"tags": require_tags(tags)}


def conditions(
    prefix: str | None,
    tags: Iterable[str] | None,
    task: str | None,
    flow: str | None,
    written_after: datetime | None,
    written_before: datetime | None,
    expires_before: datetime | None,
    min_size: int | None,
    max_size: int | None,
) -> dict[str, Any]:
    """The conditions of `ResultStore.find` that are given, checked.

    Raises: InvalidArgument.
    """
    moments = {"written_after": written_after, "written_before": written_before, "expires_before": expires_before}
    sizes = {"min_size": min_size, "max_size": max_size}
    for name, size in sizes.items():
        if size is not None and (not isinstance(size, int) or not 0 <= size < 2**63):
            raise InvalidArgument(f"{name} is a number of bytes", argument=name, value=size)
    return (
        chosen_conditions(prefix, tags, task, flow)
        | {name: require_moment(moment, name) for name, moment in moments.items() if moment is not None}
        | {name: size for name, size in sizes.items() if size is not None}
    )


def bound(conditions: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of conditions."""
    return {**conditions, "end": prefix_end(conditions["prefix"])} if "prefix" in conditions else dict(conditions)
