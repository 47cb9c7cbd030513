"""Sums over a whole store, which take as long as it is large: remembered, and made anew beside the requests."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar

T = TypeVar("T")
_FRESH = 30.0
_MOST = 200


@dataclass
class Figure(Generic[T]):
    """A figure: what it was when it was last known (None: not yet), and whether it is being made anew."""

    value: T | None
    at: datetime | None
    coming: bool


@dataclass
class _Kept:
    value: Any = None
    at: datetime | None = None
    made: float = float("-inf")
    work: "asyncio.Task[Any] | None" = None
    asked: float = field(default_factory=time.monotonic)


class Figures:
    """What was counted; counts again what is older than half a minute.

    Parameters:
        patience: how long who asks waits for a figure that is being made.
    """

    def __init__(self, patience: timedelta) -> None:
        self._patience = patience.total_seconds()
        self._kept: dict[Hashable, _Kept] = {}

    async def get(self, name: Hashable, count: Callable[[], Awaitable[T]]) -> Figure[T]:
        """A figure by its name; raises what counting raised, once."""
        kept = self._kept.setdefault(name, _Kept())
        kept.asked = time.monotonic()
        if kept.work is None and time.monotonic() - kept.made > _FRESH:
            self._forget_some()
            kept.work = asyncio.ensure_future(count())
        if (work := kept.work) is not None:
            await asyncio.wait([work], timeout=self._patience)
            if work.done():
                if kept.work is work:  # nobody else who waited has seen it
                    kept.work = None
                kept.value, kept.at, kept.made = work.result(), datetime.now(UTC), time.monotonic()
        return Figure(kept.value, kept.at, kept.work is not None)

    async def aclose(self) -> None:
        """Count nothing any more."""
        works = [kept.work for kept in self._kept.values() if kept.work is not None]
        for work in works:
            work.cancel()
        await asyncio.gather(*works, return_exceptions=True)

    def _forget_some(self) -> None:
        idle = [name for name, kept in self._kept.items() if kept.work is None and kept.at is not None]
        for name in sorted(idle, key=lambda name: self._kept[name].asked)[:-_MOST]:
            del self._kept[name]
