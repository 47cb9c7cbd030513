"""Asking what a version was computed from, and what was from it."""

from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from pgresults.operations.requests import Execute, Operation
from pgresults.sql import lineage as statements


class Visited(NamedTuple):
    """A version as its entry says it, times in UTC without a zone; ``provenance`` is a JSON text."""

    storage_id: UUID
    storage: str
    key: str
    version: int
    derived_from: list[str] | None
    at: datetime
    actor: str
    size: int | None
    provenance: str | None
    is_live: bool
    is_start: bool

    @property
    def place(self) -> tuple[UUID, str, int]:
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
