"""What a change under a key has to prove about the key's lock, and waiting for another's lock."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import UUID

from pgresults.database.database import Database
from pgresults.database.programs import Program
from pgresults.errors import LockedError
from pgresults.locking.managers import ask
from pgresults.locking.memory import MemoryLockManager
from pgresults.locking.own import acting_holder
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
    holder = yield from acting_holder(manager, key, holder)
    if isinstance(manager, PostgresLockManager) and manager._guards(database, storage_id):
        grant = manager._grant(key, holder)
        if grant is None:
            return Proof(Guard.NOT_HELD, {})
        return Proof(Guard.FENCE, {"fence": grant.fence, "token": grant.token, "holder": holder})
    if (yield from _is_held_by_another(manager, key, holder)):
        raise (yield from locked_by_another(manager, key, f"{key!r} is locked by another holder than {holder}"))
    return NO_PROOF


def refuse_others(manager: LockManager, key: str, holder: str) -> Program[None]:
    """Find out early that a write would be refused.

    Raises: LockedError when another holder has the lock of the key at this moment.
    """
    holder = yield from acting_holder(manager, key, holder)
    if (yield from _is_held_by_another(manager, key, holder)):
        raise (yield from locked_by_another(manager, key, f"{key!r} is locked by another holder than {holder}"))


def await_others(manager: LockManager, key: str, holder: str, timeout: float | None) -> Program[None]:
    """Wait while another holder has the lock of a key.

    Raises: LockedError when the time is up; DeadlockDetected when the other one waits for this one, too.
    """
    holder = yield from acting_holder(manager, key, holder)
    if not (yield from _is_held_by_another(manager, key, holder)):
        return
    if isinstance(manager, PostgresLockManager | MemoryLockManager):
        free = yield from manager._wait(key, timeout, holder)
    else:
        free = yield from ask(manager, "wait_for_lock", key, timeout)
    if not free:
        refusal = f"{key!r} is still locked by another holder after {timeout:g} s"
        raise (yield from locked_by_another(manager, key, refusal))


def locked_by_another(manager: LockManager, key: str, message: str) -> Program[LockedError]:
    """The error of who comes to another's lock, with the holder where the manager knows it."""
    holder = None
    if isinstance(manager, PostgresLockManager | MemoryLockManager):
        holder = yield from manager._holder_of(key)
    return LockedError(message if holder is None else f"{message}: {holder} has it", key=key, holder=holder)


def _is_held_by_another(manager: LockManager, key: str, holder: str) -> Program[bool]:
    if not (yield from ask(manager, "is_locked", key)):
        return False
    return not (yield from ask(manager, "is_lock_holder", key, holder))
