"""The methods of a result store about what was computed from what."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from datetime import timedelta

from pgresults.audit import changes
from pgresults.audit.lineage import MOST_VERSIONS, Direction, Lineage, lineage
from pgresults.database.programs import Program, aperform, perform
from pgresults.storage.keyspace import Keyspace


class LineageMethods(ABC):
    """Lineage: what a `ResultStore` knows of what a version was computed from, and does with what was from it."""

    @abstractmethod
    def _keyspace(self) -> Program[Keyspace]:
        """Where the results of the store lie."""

    def lineage(
        self,
        key: str,
        version: int | None = None,
        direction: Direction = "up",
        depth: int | None = None,
        limit: int = MOST_VERSIONS,
        stale_ok: timedelta | None = None,
    ) -> Lineage:
        """What a version was computed from, or what was computed from it: directly, or over others.

        Parameters:
            key: whose lineage.
            version: which version's; None: the newest one's.
            direction: "up" to what it was computed from, "down" to what was computed from it.
            depth: how many steps to go; None: as far as there are any.
            limit: how many versions at most, the nearest ones.
            stale_ok: by how much the answer may be behind; see `find`.

        Returns: the versions, and which was computed from which.
        Raises: MissingResult for a version that never was; InvalidKey; InvalidArgument; StorageUnavailable.
        """
        return perform(self._lineage(key, version, direction, depth, limit, stale_ok))

    async def alineage(
        self,
        key: str,
        version: int | None = None,
        direction: Direction = "up",
        depth: int | None = None,
        limit: int = MOST_VERSIONS,
        stale_ok: timedelta | None = None,
    ) -> Lineage:
        """What a version was computed from, or what was computed from it; see `lineage`."""
        return await aperform(self._lineage(key, version, direction, depth, limit, stale_ok))

    def invalidate(
        self,
        prefix: str | None = None,
        tags: Iterable[str] | None = None,
        task: str | None = None,
        flow: str | None = None,
        reason: str | None = None,
        downstream: bool = False,
    ) -> int:
        """Delete all live results that meet every given condition, in one transaction; their history stays.

        Parameters:
            prefix: what their keys begin with.
            tags: words they all carry.
            task: the name of the task that wrote them.
            flow: the name of the flow that wrote them.
            reason: why; kept in the history; None: by which conditions.
            downstream: whether to delete what was computed from them as well, directly or over others, as long as that
                is live; the history of each says from which one. What has been computed anew since from something else
                stays.

        Returns: how many there were.
        Raises: InvalidArgument when no condition is given; LockedError where the store has a lock manager and another
            holder the lock of one of them: then none is deleted; StorageUnavailable.
        """
        return perform(self._invalidate(prefix, tags, task, flow, reason, downstream))

    async def ainvalidate(
        self,
        prefix: str | None = None,
        tags: Iterable[str] | None = None,
        task: str | None = None,
        flow: str | None = None,
        reason: str | None = None,
        downstream: bool = False,
    ) -> int:
        """Delete all results that meet every given condition; see `invalidate`."""
        return await aperform(self._invalidate(prefix, tags, task, flow, reason, downstream))

    def _lineage(
        self,
        key: str,
        version: int | None,
        direction: Direction,
        depth: int | None,
        limit: int,
        stale_ok: timedelta | None,
    ) -> Program[Lineage]:
        return (yield from lineage((yield from self._keyspace()), key, version, direction, depth, limit, stale_ok))

    def _invalidate(
        self,
        prefix: str | None,
        tags: Iterable[str] | None,
        task: str | None,
        flow: str | None,
        reason: str | None,
        downstream: bool,
    ) -> Program[int]:
        keyspace = yield from self._keyspace()
        return (yield from changes.invalidate(keyspace, prefix, tags, task, flow, reason, downstream))
