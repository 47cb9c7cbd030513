"""The lock methods of a result store, each delegating to its lock manager."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from pgresults.database.database import Database
from pgresults.database.programs import Program, wait_for
from pgresults.errors import ConfigurationError, LockedError
from pgresults.locking.postgres import PostgresLockManager
from pgresults.locking.protocol import LockManager
from pgresults.records.keys import require_key
from pgresults.records.provenance import default_holder
from pgresults.sql.guards import Guard


class Proof(NamedTuple):
    """What a change under a key proves about the lock, and the parameters of the proof."""

    guard: Guard
    parameters: Mapping[str, Any]


NO_PROOF = Proof(Guard.NONE, MappingProxyType({}))
"""What proves nothing."""


class LockMethods(BaseModel):
    """Taking, asking for and giving back the lock of a key.

    Parameters:
        lock_manager: gives the work on a key to one holder at a time; None: no locks.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    lock_manager: LockManager | None = None

    @staticmethod
    def generate_default_holder() -> str:
        """The holder of who names none: the enclosing transaction, else ``host:pid:thread id:thread name``."""
        return default_holder()

    def acquire_lock(
        self,
        key: str,
        holder: str | None = None,
        timeout: float | None = None,
        hold_timeout: float | None = None,
    ) -> bool:
        """Take the lock of a key.

        Parameters:
            key: what to lock.
            holder: who takes it; None: the enclosing transaction or this thread. The present holder gets True.
            timeout: seconds to wait; 0: do not wait, None: for ever.
            hold_timeout: seconds after which the lock ends by itself; None: with its release or this process.

        Returns: whether the lock is the holder's now.
        Raises: ConfigurationError without a lock manager; InvalidKey; InvalidArgument; StorageUnavailable.
        """
        return self._manager().acquire_lock(require_key(key), self._holder(holder), timeout, hold_timeout)

    async def aacquire_lock(
        self,
        key: str,
        holder: str | None = None,
        timeout: float | None = None,
        hold_timeout: float | None = None,
    ) -> bool:
        """Take the lock of a key; see `acquire_lock`."""
        return await self._manager().aacquire_lock(require_key(key), self._holder(holder), timeout, hold_timeout)

    def release_lock(self, key: str, holder: str | None = None) -> None:
        """Give the lock of a key back.

        Raises: ValueError when the holder does not have it; ConfigurationError; StorageUnavailable.
        """
        self._manager().release_lock(require_key(key), self._holder(holder))

    async def arelease_lock(self, key: str, holder: str | None = None) -> None:
        """Give the lock of a key back; see `release_lock`."""
        await self._manager().arelease_lock(require_key(key), self._holder(holder))

    def is_locked(self, key: str) -> bool:
        """Whether anybody holds the lock of a key.

        Raises: ConfigurationError without a lock manager; StorageUnavailable.
        """
        return self._manager().is_locked(require_key(key))

    async def ais_locked(self, key: str) -> bool:
        """Whether anybody holds the lock of a key; see `is_locked`."""
        return await self._manager().ais_locked(require_key(key))

    def is_lock_holder(self, key: str, holder: str | None = None) -> bool:
        """Whether a holder, by default the enclosing transaction or this thread, has the lock of a key.

        Raises: ConfigurationError without a lock manager; StorageUnavailable.
        """
        return self._manager().is_lock_holder(require_key(key), self._holder(holder))

    async def ais_lock_holder(self, key: str, holder: str | None = None) -> bool:
        """Whether a holder has the lock of a key; see `is_lock_holder`."""
        return await self._manager().ais_lock_holder(require_key(key), self._holder(holder))

    def wait_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """Wait until nobody holds the lock of a key.

        Parameters:
            key: what may be locked.
            timeout: seconds to wait; 0: do not wait, None: for ever.

        Returns: whether nobody holds it; True at once when nobody did.
        Raises: ConfigurationError without a lock manager; StorageUnavailable.
        """
        return self._manager().wait_for_lock(require_key(key), timeout)

    async def await_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """Wait until nobody holds the lock of a key; see `wait_for_lock`."""
        return await self._manager().await_for_lock(require_key(key), timeout)

    def _manager(self) -> LockManager:
        if self.lock_manager is None:
            raise ConfigurationError(
                "this store has no lock manager: give it one, e.g. "
                "ResultStore(result_storage=storage, lock_manager=storage.lock_manager())",
                setting="lock_manager",
            )
        return self.lock_manager

    def _holder(self, holder: str | None) -> str:
        return self.generate_default_holder() if holder is None else holder

    def _prove(self, key: str, holder: str, database: Database, storage_id: UUID) -> Program[Proof]:
        """What a change under a key has to prove: where lock and result share a database, in one statement.

        Raises: LockedError when locks live elsewhere and somebody else has this one.
        """
        manager = self.lock_manager
        if manager is None:
            return NO_PROOF
        if isinstance(manager, PostgresLockManager) and manager.guards(database, storage_id):
            grant = manager.grant(key, holder)
            if grant is None:
                return Proof(Guard.NOT_HELD, {})
            return Proof(Guard.FENCE, {"fence": grant.fence, "token": grant.token})
        if (yield from self._is_held_by_another(manager, key, holder)):
            raise LockedError(f"{key!r} is locked by another holder than {holder}", key=key)
        return NO_PROOF

    def _await_others(self, key: str, holder: str, timeout: float | None) -> Program[None]:
        """Wait while another holder has the lock of a key.

        Raises: LockedError when the time is up.
        """
        manager = self.lock_manager
        if manager is None or not (yield from self._is_held_by_another(manager, key, holder)):
            return
        free = yield from wait_for(
            lambda: manager.wait_for_lock(key, timeout), lambda: manager.await_for_lock(key, timeout)
        )
        if not free:
            raise LockedError(f"{key!r} is still locked by another holder after {timeout:g} s", key=key)

    def _is_held_by_another(self, manager: LockManager, key: str, holder: str) -> Program[bool]:
        if not (yield from wait_for(lambda: manager.is_locked(key), lambda: manager.ais_locked(key))):
            return False
        return not (
            yield from wait_for(
                lambda: manager.is_lock_holder(key, holder), lambda: manager.ais_lock_holder(key, holder)
            )
        )
