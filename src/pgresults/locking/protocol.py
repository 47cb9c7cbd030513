"""What a lock manager is."""

from typing import Protocol, runtime_checkable


@runtime_checkable
class LockManager(Protocol):
    """Gives the work on a key to one holder at a time.

    A holder is named by a text and may ask again for what it has. ``acquire_timeout`` and ``timeout`` are the
    seconds to wait: 0 does not wait, None waits for ever. ``hold_timeout`` is the seconds after which a lock ends by
    itself; None: when it is released or its holder's process ends.
    """

    def acquire_lock(
        self, key: str, holder: str, acquire_timeout: float | None = None, hold_timeout: float | None = None
    ) -> bool:
        """Take the lock; False when the time to wait is up. True at once for the present holder."""

    async def aacquire_lock(
        self, key: str, holder: str, acquire_timeout: float | None = None, hold_timeout: float | None = None
    ) -> bool:
        """Take the lock; see `acquire_lock`."""

    def release_lock(self, key: str, holder: str) -> None:
        """Give the lock back; raises ValueError when the holder does not have it."""

    async def arelease_lock(self, key: str, holder: str) -> None:
        """Give the lock back; see `release_lock`."""

    def is_locked(self, key: str) -> bool:
        """Whether anybody holds the lock."""

    async def ais_locked(self, key: str) -> bool:
        """Whether anybody holds the lock."""

    def is_lock_holder(self, key: str, holder: str) -> bool:
        """Whether this holder has the lock."""

    async def ais_lock_holder(self, key: str, holder: str) -> bool:
        """Whether this holder has the lock."""

    def wait_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """Wait until nobody holds the lock; True at once when nobody does, False when the time is up."""

    async def await_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """Wait until nobody holds the lock; see `wait_for_lock`."""
