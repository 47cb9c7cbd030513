"""Asking what a version was computed from, and what was from it."""

import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, TypeAlias
from uuid import UUID

from pgresults.operations.requests import Execute, Operation
from pgresults.operations.results import clear_way
from pgresults.records.lineage import parsed_parent
from pgresults.sql import history
from pgresults.sql import lineage as statements
from pgresults.sql.digests import content_digest
from pgresults.sql.guards import Guard

Place: TypeAlias = tuple[str, str, int]
"""A version: its storage's id as a text, its key and number."""


class Visited(NamedTuple):
    """A version as its entry says it, times in UTC without a zone, ``derived_from`` as a JSON text."""

    storage_id: str
    storage: str
    key: str
    version: int
    derived_from: str | None
    at: datetime
    actor: str
    size: int | None
    task: str | None
    flow: str | None
    run_id: str | None
    is_live: bool
    is_start: bool

    @property
    def place(self) -> Place:
        """Which version it is."""
        return self.storage_id, self.key, self.version


def walk(
    storage_id: UUID, key: str, version: int | None, direction: str, depth: int | None, limit: int
) -> Operation[list[Visited]]:
    """The versions that lie along a lineage, the first one included, in no order; none where that is not there.

    Parameters:
        storage_id: where the key is.
        key: whose lineage.
        version: which version's; None: the newest one's.
        direction: "up" to what it was computed from, or "down".
        depth: how far to go; None: to the end.
        limit: how many to visit at most, which where there is a depth counts each once for each distance.
    """
    parameters = {"storage_id": storage_id, "key": key, "version": version, "depth": depth, "limit": limit}
    return [Visited(*row) for row in (yield Execute(statements.WALKS[direction], parameters))]


def parents_of(place: Place, derived_from: str | None) -> Iterator[Place]:
    """The versions that one names, in a JSON text."""
    for name in () if derived_from is None else json.loads(derived_from):
        if (parent := parsed_parent(name, place[0])) is not None:
            yield parent


def parents_of_current(storage_id: UUID, keys: Sequence[str]) -> Operation[dict[tuple[str, int], list[str]]]:
    """What the current versions of some keys were computed from, as they name it, by key and version."""
    rows = yield Execute(statements.PARENTS_OF_CURRENT, {"storage_id": storage_id, "keys": list(keys)})
    return {(key, version): derived_from for key, version, derived_from in rows}


def distances(start: list[Place], ways: Mapping[Place, list[Place]]) -> Iterator[tuple[Place, int, Place | None]]:
    """Each place on the ways from some on, nearest first: how many steps lead there, the last one from where.

    What was forged may lead back to itself: nothing comes twice.
    """
    seen = set(start)
    waiting: deque[tuple[Place, int, Place | None]] = deque((one, 0, None) for one in start)
    while waiting:
        here, distance, _ = step = waiting.popleft()
        yield step
        for there in ways.get(here, ()):
            if there not in seen:
                seen.add(there)
                waiting.append((there, distance + 1, here))


def invalidate_downstream(
    entry: Mapping[str, Any], chosen: frozenset[str], reason: str, *, guarded: bool
) -> Operation[int]:
    """Take live results away and what is live of what was computed from them. To be run in a transaction.

    Parameters:
        entry: what to say of each, with the values of the conditions.
        chosen: which conditions they meet; see `history.invalidate`.
        reason: why; what was computed says from what as well.
        guarded: whether no other holder may have a lock of any of them.

    Raises: LockedError; then nothing is taken away.
    """
    before = yield from downstream(entry, chosen)
    ended = 0
    for storage in sorted({place[0] for place in before}):
        reasons = {place: _reason(place, before, reason) for place in sorted(before) if place[0] == storage}
        ended += yield from _end_each({**entry, "storage_id": UUID(storage)}, reasons, guarded=guarded)
    return ended


def downstream(entry: Mapping[str, Any], chosen: frozenset[str]) -> Operation[dict[Place, Place | None]]:
    """The live results that meet the chosen conditions, and what is live of what was computed from them.

    Those that meet the conditions are locked. To be run in a transaction.

    Returns: by version, from which of the others it was computed, on the shortest way.
    """
    storage_id = str(entry["storage_id"])
    roots = yield Execute(history.invalidate(chosen, guarded=False).locked, entry)
    given = {"keys": [key for key, _ in roots], "versions": [version for _, version in roots]}
    rows = yield Execute(statements.DOWNSTREAM, {"storage_id": storage_id, **given})
    ways: dict[Place, list[Place]] = {}
    for *place, derived_from in rows:
        child: Place = (place[0], place[1], place[2])
        for parent in parents_of(child, derived_from):
            ways.setdefault(parent, []).append(child)
    steps = distances([(storage_id, key, version) for key, version in roots], ways)
    return {place: last for place, _, last in steps}


def _end_each(entry: Mapping[str, Any], reasons: Mapping[Place, str], *, guarded: bool) -> Operation[int]:
    entry_says = {name: entry[name] for name in ("action", "actor", "holder", "fence")}  # and not what was asked for
    said = {
        "keys": [key for _, key, _ in reasons],
        "versions": [version for _, _, version in reasons],
        "reasons": list(reasons.values()),
        "contents": [content_digest({**entry_says, "reason": reason}) for reason in reasons.values()],
    }
    ended = 0
    while True:
        number, obstacle = (yield Execute(history.END_EACH[guarded], {**entry, **said}))[0]
        ended += int(number)
        if obstacle is None:
            return ended
        yield from clear_way({**entry, "key": obstacle}, Guard.NOT_HELD)


_LINKS = 10
"""How many of the versions in between a reason names."""


def _reason(place: Place, before: Mapping[Place, Place | None], reason: str) -> str:
    chain: list[str] = []
    step = before[place]
    while step is not None:
        chain.append(f"{step[1]!r} version {step[2]}")
        step = before[step]
    if not chain:
        return reason
    if len(chain) > _LINKS:
        chain[_LINKS - 1 : -1] = [f"… {len(chain) - _LINKS} more …"]
    return f"computed from {', from '.join(chain)}: {reason}"
