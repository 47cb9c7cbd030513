"""What a process was granted, as its writes have to prove it."""

import threading
import weakref
from uuid import UUID

from pgresults.errors import ConfigurationError
from pgresults.locking.workers import Worker
from pgresults.operations.locks import Grant
from pgresults.records.provenance import default_holder


class Grants:
    """Grants by key and holder; safe to share among threads.

    A grant that was lost is kept until its holder asks or lets go: without it a late write would prove nothing.

    Parameters:
        limit: how many at most.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._mutex = threading.Lock()
        self._grants: dict[tuple[str, str], Grant] = {}
        self._workers: dict[tuple[str, str], Worker] = {}
        _EVERYWHERE.add(self)

    def require_room(self) -> None:
        """Refuse one more than the limit: each lock takes memory that all sessions of the server share."""
        if len(self._grants) >= self._limit:
            raise ConfigurationError(
                f"this process holds {self._limit} locks, which is the limit: release some, lock coarser keys, "
                "or raise PGRESULTS_MAX_LOCKS together with the server's max_locks_per_transaction",
                setting="max_locks",
            )

    def add(self, grant: Grant) -> None:
        """Keep a grant, in place of an earlier one of its holder."""
        with self._mutex:
            self._grants[grant.place.key, grant.holder] = grant
            if grant.holder == default_holder():
                # A holder that was named may let go anywhere; a transaction or thread only where it took the lock.
                self._workers[grant.place.key, grant.holder] = Worker.current()

    def get(self, key: str, holder: str) -> Grant | None:
        """What a holder was granted of a key."""
        return self._grants.get((key, holder))

    def latest(self, key: str) -> Grant | None:
        """What was granted of a key last, whoever the holder."""
        with self._mutex:
            granted = [grant for grant in self._grants.values() if grant.place.key == key]
        return max(granted, key=lambda grant: grant.fence, default=None)

    def pop(self, key: str, holder: str) -> Grant | None:
        """Forget what a holder was granted of a key, and give it back."""
        with self._mutex:
            self._workers.pop((key, holder), None)
            return self._grants.pop((key, holder), None)

    def forget(self, token: UUID) -> None:
        """Forget a grant that its acquirer never learnt of."""
        with self._mutex:
            for place, grant in list(self._grants.items()):
                if grant.token == token:
                    del self._grants[place]
                    self._workers.pop(place, None)

    def doubt(self, grant: Grant | None) -> None:
        """Know that a grant may have been released: that was tried, and no answer came."""
        with self._mutex:
            if grant is not None and self._grants.get((grant.place.key, grant.holder)) == grant:
                self._grants[grant.place.key, grant.holder] = grant._replace(in_doubt=True)

    def lapse(self, grant: Grant) -> None:
        """Renew a grant no more that was lost; a late write still has it to prove, and fails."""
        place = (grant.place.key, grant.holder)
        with self._mutex:
            if self._grants.get(place) == grant:
                self._grants[place] = grant._replace(renewed=False)

    def leases(self) -> list[Grant]:
        """The grants that last as long as they are renewed."""
        with self._mutex:
            return [grant for grant in self._grants.values() if grant.renewed]

    def workers(self) -> list[tuple[str, Worker]]:
        """Who took locks for holders that let go nowhere else."""
        with self._mutex:
            return [(holder, worker) for (_, holder), worker in self._workers.items()]


_EVERYWHERE: "weakref.WeakSet[Grants]" = weakref.WeakSet()
"""What this process was granted, of all storages."""


def holders_standing_still_for(waiter: Worker) -> set[str]:
    """The holders in this process that cannot go on before a waiter has its lock."""
    # No set: what has ended meanwhile cannot be hashed any more.
    workers = [pair for grants in list(_EVERYWHERE) for pair in grants.workers()]
    return {holder for holder, worker in workers if worker.stands_still_for(waiter)}
