"""The lock methods of a result store, each delegating to its lock manager."""

from abc import ABC, abstractmethod
from typing import Any

from pgresults.arguments import require_holder
from pgresults.database.programs import Program, aperform, aperform_or_undo, perform, perform_or_undo
from pgresults.locking.managers import ask
from pgresults.locking.own import acting_holder, forget, remember
from pgresults.locking.protocol import LockManager
from pgresults.locking.taking import Taking
from pgresults.records.keys import require_key
from pgresults.records.provenance import default_holder


class LockMethods(ABC):
    """Taking, asking for and giving back the lock of a key of a `ResultStore`."""

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
            holder: who takes it; None: the enclosing transaction or this thread, which counts as the transactions
                that it enters later. The present holder gets True.
            timeout: seconds to wait; 0: do not wait, None: for ever.
            hold_timeout: seconds after which the lock ends by itself; None: with its release or this process.

        Returns: whether the lock is the holder's now.
        Raises: DeadlockDetected when the present holder waits for a lock of this holder; ConfigurationError without
            a lock manager; InvalidKey; InvalidArgument; StorageUnavailable.
        """
        taking = Taking()
        return perform_or_undo(self._acquire(taking, key, holder, timeout, hold_timeout), taking.undo)

    async def aacquire_lock(
        self,
        key: str,
        holder: str | None = None,
        timeout: float | None = None,
        hold_timeout: float | None = None,
    ) -> bool:
        """Take the lock of a key; see `acquire_lock`."""
        taking = Taking()
        return await aperform_or_undo(self._acquire(taking, key, holder, timeout, hold_timeout), taking.undo)

    def release_lock(self, key: str, holder: str | None = None) -> None:
        """Give the lock of a key back.

        Raises: ValueError when the holder does not have it; ConfigurationError; StorageUnavailable.
        """
        perform(self._release(key, holder))

    async def arelease_lock(self, key: str, holder: str | None = None) -> None:
        """Give the lock of a key back; see `release_lock`."""
        await aperform(self._release(key, holder))

    def is_locked(self, key: str) -> bool:
        """Whether anybody holds the lock of a key.

        Raises: ConfigurationError without a lock manager; StorageUnavailable.
        """
        return perform(self._ask("is_locked", key))

    async def ais_locked(self, key: str) -> bool:
        """Whether anybody holds the lock of a key; see `is_locked`."""
        return await aperform(self._ask("is_locked", key))

    def is_lock_holder(self, key: str, holder: str | None = None) -> bool:
        """Whether a holder, by default the enclosing transaction or this thread, has the lock of a key.

        Raises: ConfigurationError without a lock manager; StorageUnavailable.
        """
        return perform(self._is_holder(key, holder))

    async def ais_lock_holder(self, key: str, holder: str | None = None) -> bool:
        """Whether a holder has the lock of a key; see `is_lock_holder`."""
        return await aperform(self._is_holder(key, holder))

    def wait_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """Wait until nobody holds the lock of a key.

        Parameters:
            key: what may be locked.
            timeout: seconds to wait; 0: do not wait, None: for ever.

        Returns: whether nobody holds it; True at once when nobody did.
        Raises: ConfigurationError without a lock manager; StorageUnavailable.
        """
        return perform(self._ask("wait_for_lock", key, timeout))

    async def await_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """Wait until nobody holds the lock of a key; see `wait_for_lock`."""
        return await aperform(self._ask("wait_for_lock", key, timeout))

    @abstractmethod
    def _locks(self) -> LockManager:
        """The lock manager; raises ConfigurationError without one."""

    def _acquire(
        self, taking: Taking, key: str, holder: str | None, timeout: float | None, hold_timeout: float | None
    ) -> Program[bool]:
        locks, who = self._locks(), (yield from self._holder(key, holder))
        taken: bool = yield from taking.acquire(locks, key, who, timeout, hold_timeout)
        if taken and holder is None:
            remember(locks, key, who)
        return taken

    def _release(self, key: str, holder: str | None) -> Program[None]:
        locks, who = self._locks(), (yield from self._holder(key, holder))
        yield from ask(locks, "release_lock", key, who)
        forget(locks, key, who)

    def _is_holder(self, key: str, holder: str | None) -> Program[bool]:
        held: bool = yield from ask(self._locks(), "is_lock_holder", key, (yield from self._holder(key, holder)))
        return held

    def _ask(self, name: str, key: str, *arguments: Any) -> Program[bool]:
        return ask(self._locks(), name, require_key(key), *arguments)

    def _holder(self, key: str, holder: str | None) -> Program[str]:
        """Who is named, or is meant where nobody is."""
        require_key(key)
        if holder is not None:
            return require_holder(holder)
        return (yield from acting_holder(self._locks(), key, self.generate_default_holder()))
