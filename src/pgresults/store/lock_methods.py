"""The lock methods of a result store, each delegating to its lock manager."""

from abc import ABC, abstractmethod

from pgresults.arguments import require_text
from pgresults.locking.protocol import LockManager
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
            holder: who takes it; None: the enclosing transaction or this thread. The present holder gets True.
            timeout: seconds to wait; 0: do not wait, None: for ever.
            hold_timeout: seconds after which the lock ends by itself; None: with its release or this process.

        Returns: whether the lock is the holder's now.
        Raises: ConfigurationError without a lock manager; InvalidKey; InvalidArgument; StorageUnavailable.
        """
        return self._locks().acquire_lock(require_key(key), self._holder(holder), timeout, hold_timeout)

    async def aacquire_lock(
        self,
        key: str,
        holder: str | None = None,
        timeout: float | None = None,
        hold_timeout: float | None = None,
    ) -> bool:
        """Take the lock of a key; see `acquire_lock`."""
        return await self._locks().aacquire_lock(require_key(key), self._holder(holder), timeout, hold_timeout)

    def release_lock(self, key: str, holder: str | None = None) -> None:
        """Give the lock of a key back.

        Raises: ValueError when the holder does not have it; ConfigurationError; StorageUnavailable.
        """
        self._locks().release_lock(require_key(key), self._holder(holder))

    async def arelease_lock(self, key: str, holder: str | None = None) -> None:
        """Give the lock of a key back; see `release_lock`."""
        await self._locks().arelease_lock(require_key(key), self._holder(holder))

    def is_locked(self, key: str) -> bool:
        """Whether anybody holds the lock of a key.

        Raises: ConfigurationError without a lock manager; StorageUnavailable.
        """
        return self._locks().is_locked(require_key(key))

    async def ais_locked(self, key: str) -> bool:
        """Whether anybody holds the lock of a key; see `is_locked`."""
        return await self._locks().ais_locked(require_key(key))

    def is_lock_holder(self, key: str, holder: str | None = None) -> bool:
        """Whether a holder, by default the enclosing transaction or this thread, has the lock of a key.

        Raises: ConfigurationError without a lock manager; StorageUnavailable.
        """
        return self._locks().is_lock_holder(require_key(key), self._holder(holder))

    async def ais_lock_holder(self, key: str, holder: str | None = None) -> bool:
        """Whether a holder has the lock of a key; see `is_lock_holder`."""
        return await self._locks().ais_lock_holder(require_key(key), self._holder(holder))

    def wait_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """Wait until nobody holds the lock of a key.

        Parameters:
            key: what may be locked.
            timeout: seconds to wait; 0: do not wait, None: for ever.

        Returns: whether nobody holds it; True at once when nobody did.
        Raises: ConfigurationError without a lock manager; StorageUnavailable.
        """
        return self._locks().wait_for_lock(require_key(key), timeout)

    async def await_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """Wait until nobody holds the lock of a key; see `wait_for_lock`."""
        return await self._locks().await_for_lock(require_key(key), timeout)

    @abstractmethod
    def _locks(self) -> LockManager:
        """The lock manager; raises ConfigurationError without one."""

    def _holder(self, holder: str | None) -> str:
        return require_text(holder, "holder") or self.generate_default_holder()
