"""The end of a result store: what its process has open for it is closed."""

from collections.abc import Awaitable, Callable, Iterator
from types import TracebackType
from typing import Any, Self


class LifetimeMethods:
    """Closing a `ResultStore`, by itself or with a ``with`` block."""

    result_storage: Any
    metadata_storage: Any
    lock_manager: Any

    def close(self) -> None:
        """Close the connections of this process to the store's storages, and give up all locks of its lock manager.

        Whoever uses them afterwards, this store too, opens new ones.
        """
        for close in self._closing("close"):
            close()

    async def aclose(self) -> None:
        """Close what this process has open for the store; see `close`."""
        for close in self._closing("aclose"):
            await close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self.aclose()

    def _closing(self, name: str) -> Iterator[Callable[[], Awaitable[None]]]:
        """How those of its parts are closed that were opened; a name that was never looked up has nothing open."""
        for part in (self.lock_manager, self.metadata_storage, self.result_storage):
            close = getattr(part, name, None)
            if close is not None:
                yield close
