"""What a version was computed from, and what was computed from it."""

from dataclasses import dataclass
from datetime import UTC, timedelta
from functools import cached_property
from typing import Any, Literal, TypeAlias

from pgresults.audit.descent import LineageEdge, LineageVersion
from pgresults.audit.interchange import openlineage, prov
from pgresults.database.programs import Program
from pgresults.database.standbys import looking_back, reading
from pgresults.errors import InvalidArgument, MissingResult
from pgresults.operations import lineage as operations
from pgresults.operations.lineage import Place, Visited
from pgresults.records.keys import require_key
from pgresults.storage.keyspace import Keyspace
from pgresults.storage.misses import never_written, no_such_version
from pgresults.storage.postgres import PostgresStorage

Direction: TypeAlias = Literal["up", "down"]

MOST_VERSIONS = 10_000
"""How many versions of a lineage are given unless more are asked for."""


@dataclass(frozen=True)
class Lineage:
    """The versions along a lineage, nearest first, and which of them were computed from which.

    ``versions`` begins with the one that was asked about; ``complete`` says whether nothing but the depth ended it.
    """

    direction: Direction
    versions: tuple[LineageVersion, ...]
    edges: tuple[LineageEdge, ...]
    complete: bool

    @property
    def start(self) -> LineageVersion:
        """The version that was asked about."""
        return self.versions[0]

    def next_of(self, version: LineageVersion) -> list[LineageVersion]:
        """What comes next after a version: its parents on the way up, what was computed from it on the way down."""
        return self._next.get(version, [])

    @cached_property
    def _next(self) -> dict[LineageVersion, list[LineageVersion]]:
        found: dict[LineageVersion, list[LineageVersion]] = {}
        for edge in self.edges:
            here, there = (edge.version, edge.parent) if self.direction == "up" else (edge.parent, edge.version)
            found.setdefault(here, []).append(there)
        return found

    def to_prov(self) -> dict[str, Any]:
        """The lineage as a document of PROV-JSON: versions are entities, what wrote them activities, who did agents."""
        return prov(self.versions, self.edges)

    def to_openlineage(self) -> list[dict[str, Any]]:
        """The lineage as events of OpenLineage: one for each version, with what it was computed from as inputs."""
        return openlineage(self.versions, self.edges)


def lineage(
    keyspace: Keyspace,
    key: str,
    version: int | None,
    direction: Direction,
    depth: int | None,
    limit: int,
    stale_ok: timedelta | None,
) -> Program[Lineage]:
    """Go along a lineage; see `ResultStore.lineage`."""
    return lineage_in(keyspace.entries, key, version, direction, depth, limit, stale_ok)


def lineage_in(
    storage: PostgresStorage,
    key: str,
    version: int | None = None,
    direction: Direction = "up",
    depth: int | None = None,
    limit: int = MOST_VERSIONS,
    stale_ok: timedelta | None = None,
) -> Program[Lineage]:
    """Go along a lineage in a storage; see `ResultStore.lineage`."""
    _require(version, direction, depth, limit)
    checked = require_key(key)
    visited = yield from reading(
        storage.database,
        lambda *_: operations.walk(storage.id, checked, version, direction, depth, _visits(depth, limit)),
        looking_back(storage.database, stale_ok),
        believed=bool,
    )
    if not visited:
        raise (yield from _missing(storage, checked, version))
    return _arranged(visited, direction, depth, limit)


def _require(version: object, direction: object, depth: object, limit: object) -> None:
    if direction not in ("up", "down"):
        raise InvalidArgument('direction is "up" or "down"', argument="direction", value=direction)
    for name, value, least in (("version", version, 1), ("depth", depth, 0), ("limit", limit, 1)):
        if not (value is None and name != "limit") and not (type(value) is int and least <= value < 2**31):
            raise InvalidArgument(f"{name} is a number from {least} on", argument=name, value=value)


def _visits(depth: int | None, limit: int) -> int:
    """How many steps the server goes: with a depth it counts a version once for each distance."""
    return limit + 1 if depth is None else (limit + 1) * min(depth + 1, 100)


def _missing(storage: PostgresStorage, key: str, version: int | None) -> Program[MissingResult]:
    found = yield from reading(storage.database, lambda *_: operations.walk(storage.id, key, None, "up", 0, 1), None)
    return no_such_version(key, version) if found and version is not None else never_written(key)


def _arranged(visited: list[Visited], direction: Direction, depth: int | None, limit: int) -> Lineage:
    by_place = {one.place: one for one in sorted(visited, key=lambda one: one.place)}
    pairs = [
        (one.place, parent)
        for one in by_place.values()
        for parent in operations.parents_of(one.place, one.derived_from)
        if parent in by_place
    ]
    ways: dict[Place, list[Place]] = {}
    for child, parent in pairs:
        here, there = (child, parent) if direction == "up" else (parent, child)
        ways.setdefault(here, []).append(there)
    start = [one.place for one in visited if one.is_start]
    steps = {place: distance for place, distance, _ in operations.distances(start, ways)}
    within = [place for place, distance in steps.items() if depth is None or distance <= depth]
    kept = {place: _shown(by_place[place], steps[place]) for place in within[:limit]}
    edges = (LineageEdge(kept[child], kept[parent]) for child, parent in pairs if child in kept and parent in kept)
    complete = len(within) <= limit and len(visited) <= limit
    return Lineage(direction, tuple(kept.values()), tuple(edges), complete)


def _shown(one: Visited, distance: int) -> LineageVersion:
    at = one.at.replace(tzinfo=UTC)
    said = (at, one.actor, one.size, one.task, one.flow, one.run_id, one.is_live)
    return LineageVersion(one.storage, one.key, one.version, distance, *said)
