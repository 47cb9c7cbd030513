"""Lineages where a schema is spread over several servers, which carry out no recursion: asked step by step."""

from collections.abc import Iterable
from typing import Any

from pgresults.operations.lineage import Place, Visited, parents_of
from pgresults.operations.requests import Execute, Operation, Row
from pgresults.records.lineage import parent_name
from pgresults.sql import counterparts
from pgresults.sql import lineage as statements

_Found = dict[Place, Row]


def walked(request: Execute, direction: str) -> Operation[list[Row]]:
    """What a walk gives; see `sql.lineage.WALKS`."""
    given = request.parameters
    newest = yield Execute(statements.CURRENT_VERSION, given)
    version = newest[0][0] if newest and given["version"] is None else given["version"]
    if not newest or not 1 <= version <= newest[0][0]:
        return []
    start: Place = (str(given["storage_id"]), given["key"], version)
    found = frontier = yield from _some([start])
    for _ in range(given["limit"] if given["depth"] is None else given["depth"]):
        if not frontier or len(found) >= given["limit"]:
            break
        reached = (yield from _children(frontier)) if direction == "down" else _parents(frontier)
        frontier = yield from _some(place for place in reached if place not in found)
        found = found | frontier
    return [(*row, place == start) for place, row in list(found.items())[: given["limit"]]]


def downstream(request: Execute) -> Operation[list[Row]]:
    """What is live of what was computed from some versions; see `sql.lineage.DOWNSTREAM`."""
    given = request.parameters
    storage_id = str(given["storage_id"])
    roots = zip(given["keys"], given["versions"], strict=True)
    found = frontier = yield from _some((storage_id, key, version) for key, version in roots)
    while frontier:
        reached = yield from _children(frontier)
        some = yield from _some(place for place in reached if place not in found)
        frontier = {place: row for place, row in some.items() if _visited(row).is_live}
        found = found | frontier
    return [(*place, _visited(row).derived_from) for place, row in found.items()]


def ended_each(request: Execute, *, guarded: bool) -> Operation[list[Row]]:
    """Take versions away that are still live, each for its own reason; see `sql.history.END_EACH`."""
    given, ended = request.parameters, 0
    each = zip(given["keys"], given["versions"], given["reasons"], given["contents"], strict=True)
    for key, version, reason, content in each:
        one = {**given, "key": key, "keys": [key], "reason": reason, "content": content}
        yield Execute(counterparts.LOCK, one)
        if (yield Execute(statements.CURRENT_VERSION, one)) != [(version,)]:
            continue
        number, obstacle = (yield Execute(counterparts.END_ALL[guarded], one))[0]
        if obstacle is not None:
            return [(ended, obstacle)]
        ended += number
    return [(ended, None)]


def _some(places: Iterable[Place]) -> Operation[_Found]:
    wanted = list(dict.fromkeys(places))
    if not wanted:
        return {}
    storage_ids, keys, versions = (list(column) for column in zip(*wanted, strict=True))
    parameters: dict[str, Any] = {"storage_ids": storage_ids, "keys": keys, "versions": versions}
    rows = yield Execute(statements.SOME, parameters)
    return {_visited(row).place: row for row in rows}


def _parents(frontier: _Found) -> list[Place]:
    rows = frontier.items()
    return [parent for place, row in rows for parent in parents_of(place, _visited(row).derived_from)]


def _visited(row: Row) -> Visited:
    return Visited(*(*row, False))


def _children(frontier: _Found) -> Operation[list[Place]]:
    names = [parent_name(key, version, of) for storage, key, version in frontier for of in (None, storage)]
    rows = yield Execute(statements.NAMING, {"names": names})
    places: list[tuple[Place, str]] = [((storage, key, version), derived) for storage, key, version, derived in rows]
    return [place for place, derived in places if not frontier.keys().isdisjoint(parents_of(place, derived))]
