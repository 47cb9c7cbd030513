"""Taking a lock for a caller who may be interrupted before it learns of it."""

from contextlib import suppress

from pgresults.database.programs import Program
from pgresults.locking.managers import ask
from pgresults.locking.postgres import PostgresLockManager
from pgresults.locking.protocol import LockManager


class Taking:
    """An attempt at a lock; to be undone unless the caller gets to know how it ended."""

    def __init__(self) -> None:
        self._place: tuple[LockManager, str, str] | None = None
        self._had = False

    def acquire(
        self, manager: LockManager, key: str, holder: str, timeout: float | None, hold_timeout: float | None
    ) -> Program[bool]:
        """Take the lock; see `LockManager.acquire_lock`."""
        self._had = yield from has_lock(manager, key, holder)
        self._place = (manager, key, holder)
        taken: bool = yield from ask(manager, "acquire_lock", key, holder, timeout, hold_timeout)
        return taken

    def undo(self) -> Program[None]:
        """Give the lock back if the attempt came to have it."""
        if self._place is None or self._had:
            return
        manager, key, holder = self._place
        with suppress(Exception):  # what interrupted the attempt is what the caller is told
            if (yield from has_lock(manager, key, holder)):
                yield from ask(manager, "release_lock", key, holder)


def has_lock(manager: LockManager, key: str, holder: str) -> Program[bool]:
    """Whether a holder has a lock: by what this process was granted where that is known, else the manager is asked."""
    if isinstance(manager, PostgresLockManager):
        return manager._grant(key, holder) is not None
    return bool((yield from ask(manager, "is_lock_holder", key, holder)))
