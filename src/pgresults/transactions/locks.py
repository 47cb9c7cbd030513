"""The locks of a tree of transactions."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pgresults.database.programs import Program
from pgresults.errors import PgResultsError
from pgresults.interruptions import is_interruption
from pgresults.locking import LockManager, PostgresLockManager
from pgresults.locking.managers import ask
from pgresults.locking.own import Surroundings, holder_around
from pgresults.locking.proofs import locked_by_another
from pgresults.locking.taking import has_lock
from pgresults.operations.locks import Grant
from pgresults.settings import current_settings


@dataclass(frozen=True, eq=False, slots=True)
class Claim:
    """A member's share in the lock of a key."""

    manager: LockManager
    key: str

    def is_of_same_lock(self, other: "Claim") -> bool:
        """Whether another one is a share in the same lock."""
        return self.key == other.key and self.manager == other.manager


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
        self._surroundings = Surroundings(holder) if holder else None

    def take(self, claim: Claim, timeout: float | None) -> Program[bool]:
        """Take a lock, or a share in it where the tree has it.

        Parameters:
            claim: whose lock.
            timeout: seconds to wait; None: as the settings say.

        Returns: whether the claim is to be given back; False where the tree's surroundings have the lock and keep it.
        Raises: LockedError when the time is up; DeadlockDetected; what `LockManager.acquire_lock` raises.
        """
        manager, key = claim.manager, claim.key
        around = holder_around(manager, key, self.holder)
        if around is not None and (yield from ask(manager, "is_lock_holder", key, around)):
            return False
        seconds = _patience(manager) if timeout is None else timeout
        had = self._grant(claim) is not None
        self._claims.append(claim)
        try:
            if not (yield from ask(manager, "acquire_lock", key, self.holder, seconds)):
                refusal = f"the lock manager refuses the lock of {key!r}"
                if seconds is not None:
                    refusal = f"the lock of {key!r} was not free within {seconds:g} s"
                raise (yield from locked_by_another(manager, key, refusal))
        except BaseException:
            if had or not (yield from self._has(claim)):
                self._claims.remove(claim)
            yield from self._give_back(claim, by_caller=False)  # interrupted when it was ours already
            raise
        return True

    def grants(self, claims: Sequence[Claim]) -> list[Grant]:
        """What proves the locks in Postgres of which nothing is left when claims are given back."""
        return [
            grant for claim in claims if not self._is_shared(claim, apart_from=claims) and (grant := self._grant(claim))
        ]

    def give_back(self, claims: Sequence[Claim], *, by_caller: bool) -> Program[None]:
        """Give claims back that have not been yet.

        Parameters:
            claims: which ones.
            by_caller: whether the rows of the locks are released in the caller's transaction already.
        """
        interruption: BaseException | None = None
        for claim in claims:
            try:
                yield from self._give_back(claim, by_caller)
            except BaseException as error:
                interruption = error  # but not before all are released
                yield from self._give_back(claim, by_caller)
        if interruption is not None:
            try:
                raise interruption
            finally:
                del interruption  # the traceback keeps this frame

    def give_back_rest(self) -> Program[None]:
        """Give back what is left when the tree is over."""
        return self.give_back(self._claims.copy(), by_caller=False)

    def _give_back(self, claim: Claim, by_caller: bool) -> Program[None]:
        if claim in self._claims:
            if not self._is_shared(claim, apart_from=(claim,)):
                yield from self._release(claim, by_caller)
            self._claims.remove(claim)

    def _has(self, claim: Claim) -> Program[bool]:
        """Whether the tree has a claim's lock; an outage answers nothing."""
        with suppress(PgResultsError):
            return (yield from has_lock(claim.manager, claim.key, self.holder))
        return False

    def _is_shared(self, claim: Claim, apart_from: Sequence[Claim]) -> bool:
        """Whether others have a share in a claim's lock."""
        return any(other not in apart_from and other.is_of_same_lock(claim) for other in self._claims)

    def _release(self, claim: Claim, by_caller: bool) -> Program[None]:
        """Release a lock; what was stored stays stored even where the lock is lost or the server gone by now."""
        manager, key = claim.manager, claim.key
        try:
            if not isinstance(manager, PostgresLockManager):
                yield from ask(manager, "release_lock", key, self.holder)
            elif (grant := self._grant(claim)) is None:
                return  # it was released already, in the moment of an interruption
            elif by_caller:
                yield from manager._let_go(grant)
            else:
                yield from ask(manager, "release_lock", key, self.holder)
        except Exception as error:  # somebody else's manager may raise anything
            if is_interruption(error):
                raise
            self._logger.warning("the lock of %r could not be released: %s", key, error)

    def _grant(self, claim: Claim) -> Grant | None:
        manager = claim.manager
        return manager._grant(claim.key, self.holder) if isinstance(manager, PostgresLockManager) else None


def _patience(manager: LockManager) -> float | None:
    """For how many seconds the settings have a transaction wait for a lock."""
    settings = manager.database.settings if isinstance(manager, PostgresLockManager) else current_settings()
    return settings.lock_timeout
