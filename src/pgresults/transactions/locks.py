"""The locks of a tree of transactions."""

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

from pgresults.database.programs import Program, wait_for
from pgresults.errors import LockedError, PgResultsError
from pgresults.locking import LockManager, PostgresLockManager
from pgresults.operations.locks import Grant


class Claim(NamedTuple):
    """A member's share in the lock of a key."""

    manager: LockManager
    key: str


class TreeLocks:
    """The locks that the transactions of a tree hold under one name; the last who shares one gives it back.

    Parameters:
        holder: the name.
        logger: where a lock is reported that could not be given back.
    """

    def __init__(self, holder: str, logger: logging.Logger | logging.LoggerAdapter[Any]) -> None:
        self.holder = holder
        self._logger = logger
        self._claims: list[Claim] = []

    def take(self, claim: Claim) -> Program[Claim]:
        """Take a lock, or a share in it where the tree has it.

        Raises: LockedError when the manager refuses; what `LockManager.acquire_lock` raises.
        """
        manager, key = claim
        self._claims.append(claim)
        try:
            taken = yield from wait_for(
                lambda: manager.acquire_lock(key, self.holder), lambda: manager.aacquire_lock(key, self.holder)
            )
            if not taken:
                raise LockedError(f"the lock manager refuses the lock of {key!r}", key=key)
        except BaseException:
            self._claims.remove(claim)
            if claim not in self._claims and self._grant(claim) is not None:
                yield from self._release(claim, by_caller=False)  # interrupted when it was ours already
            raise
        return claim

    def grants(self, claims: Sequence[Claim]) -> list[Grant]:
        """What proves the locks in Postgres of which nothing is left when claims are given back."""
        left = self._claims.copy()
        for claim in claims:
            left.remove(claim)
        return [grant for claim in claims if claim not in left and (grant := self._grant(claim))]

    def give_back(self, claims: Sequence[Claim], *, by_caller: bool) -> Program[None]:
        """Give claims back; ``by_caller``: the rows of the locks are released in the caller's transaction already."""
        interruption: BaseException | None = None
        for claim in claims:
            self._claims.remove(claim)
            if claim in self._claims:
                continue
            try:
                yield from self._release(claim, by_caller)
            except BaseException as error:
                interruption = error  # but not before all are released
                yield from self._release(claim, by_caller)
        if interruption is not None:
            raise interruption

    def _release(self, claim: Claim, by_caller: bool) -> Program[None]:
        """Release a lock; what was stored stays stored even where the lock is lost or the server gone by now."""
        manager, key = claim
        grant = self._grant(claim)
        try:
            if by_caller and grant is not None and isinstance(manager, PostgresLockManager):
                yield from manager._let_go(grant)
            else:
                yield from wait_for(
                    lambda: manager.release_lock(key, self.holder), lambda: manager.arelease_lock(key, self.holder)
                )
        except (ValueError, PgResultsError) as error:
            self._logger.warning("the lock of %r could not be released: %s", key, error)

    def _grant(self, claim: Claim) -> Grant | None:
        manager, key = claim
        return manager._grant(key, self.holder) if isinstance(manager, PostgresLockManager) else None
