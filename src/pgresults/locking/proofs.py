"""What a change under a key has to prove about the key's lock, and waiting for another's lock."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import UUID

from pgresults.database.database import Database
from pgresults.database.programs import Program, wait_for
from pgresults.errors import LockedError
from pgresults.locking.postgres import PostgresLockManager
from pgresults.locking.protocol import LockManager
from pgresults.sql.guards import Guard


class Proof(NamedTuple):
    """What a change under a key proves about the lock, and the parameters of the proof."""

    guard: Guard
    parameters: Mapping[str, Any]


NO_PROOF = Proof(Guard.NONE, MappingProxyType({}))
"""What proves nothing."""


def prove(manager: LockManager | None, key: str, holder: str, database: Database, storage_id: UUID) -> Program[Proof]:
    """What a change under a key has to prove: where lock and result share a database, in one statement.

    Raises: LockedError when locks live elsewhere and somebody else has this one.
    """
    if manager is None:
        return NO_PROOF
    if isinstance(manager, PostgresLockManager) and manager._guards(database, storage_id):
        grant = manager._grant(key, holder)
        if grant is None:
            return Proof(Guard.NOT_HELD, {})
        return Proof(Guard.FENCE, {"fence": grant.fence, "token": grant.token})
    if (yield from _is_held_by_another(manager, key, holder)):
        raise LockedError(f"{key!r} is locked by another holder than {holder}", key=key)
    return NO_PROOF


def await_others(manager: LockManager, key: str, holder: str, timeout: float | None) -> Program[None]:
    """Wait while another holder has the lock of a key.

    Raises: LockedError when the time is up.
    """
    if not (yield from _is_held_by_another(manager, key, holder)):
        return
    free = yield from wait_for(
        lambda: manager.wait_for_lock(key, timeout), lambda: manager.await_for_lock(key, timeout)
    )
    if not free:
        raise LockedError(f"{key!r} is still locked by another holder after {timeout:g} s", key=key)


def _is_held_by_another(manager: LockManager, key: str, holder: str) -> Program[bool]:
    if not (yield from wait_for(lambda: manager.is_locked(key), lambda: manager.ais_locked(key))):
        return False
    return not (
        yield from wait_for(lambda: manager.is_lock_holder(key, holder), lambda: manager.ais_lock_holder(key, holder))
    )
