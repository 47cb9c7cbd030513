"""What a lineage is made of: versions, and that one was computed from another."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class LineageVersion:
    """A version in a lineage, and how many steps at least lead to it.

    ``at`` is when it was written (in UTC), ``size`` its bytes; ``task``, ``flow`` and ``run_id`` say in which run, if
    in any; ``live`` whether it is what its key has now.
    """

    storage: str
    key: str
    version: int
    distance: int
    at: datetime
    actor: str
    size: int | None
    task: str | None
    flow: str | None
    run_id: str | None
    live: bool

    def __str__(self) -> str:
        return f"{self.key} version {self.version}"


@dataclass(frozen=True, slots=True)
class LineageEdge:
    """That one version was computed from another, its parent."""

    version: LineageVersion
    parent: LineageVersion
