"""Locks that were taken without naming a holder, which count as one's own inside of transactions that begin later.

In a transaction the holder is the transaction, so that a lock is valid in whichever thread or task the work goes on.
What the thread or task around took before goes by another name.
"""

import asyncio
import weakref
from functools import partial
from typing import Any

from pgresults.database.programs import Program
from pgresults.locking.managers import ask
from pgresults.locking.postgres import PostgresLockManager
from pgresults.locking.protocol import LockManager
from pgresults.records.provenance import HOLDER, default_holder


class Surroundings:
    """The thread, and the task of an event loop, in which a tree of transactions was entered; kept with the tree.

    Parameters:
        holder: the tree's name.
    """

    def __init__(self, holder: str) -> None:
        self.holder = default_holder()
        self.task = _running_task()
        # No code in Python is called when the tree is gone: a signal's exception would be lost there.
        _SURROUNDINGS[holder] = weakref.ref(self, partial(_SURROUNDINGS.pop, holder))


_SURROUNDINGS: "dict[str, weakref.ref[Surroundings]]" = {}
"""Of every tree in this process, by its name."""

_TAKEN: "dict[tuple[Any, str, str], weakref.ref[asyncio.Task[Any]] | None]" = {}
"""The locks that were taken without naming a holder and outside of transactions, by which task of an event loop."""


def remember(manager: LockManager, key: str, holder: str) -> None:
    """Know that a lock was taken without naming a holder."""
    if HOLDER.get() is None:
        _TAKEN[_identity(manager), key, holder] = _running_task()


def forget(manager: LockManager, key: str, holder: str) -> None:
    """Know that a lock was given back."""
    _TAKEN.pop((_identity(manager), key, holder), None)


def acting_holder(manager: LockManager, key: str, holder: str) -> Program[str]:
    """Who acts on a key: a transaction, unless its surroundings have the lock; everybody else as named.

    Parameters:
        manager: who has the locks.
        key: which one.
        holder: who was named, or is meant by default.
    """
    around = holder_around(manager, key, holder)
    if around is None:
        return holder
    if isinstance(manager, PostgresLockManager):
        # Also one that was lost: a late write has to prove it, and fails.
        granted = manager._grant(key, holder) is None and manager._grant(key, around) is not None
        return around if granted else holder
    return around if (yield from ask(manager, "is_lock_holder", key, around)) else holder


def holder_around(manager: LockManager, key: str, holder: str) -> str | None:
    """By which name the surroundings of a transaction took a lock, if they did and this task was no other."""
    kept = _SURROUNDINGS.get(holder)
    around = None if kept is None else kept()
    place = None if around is None else (_identity(manager), key, around.holder)
    if around is None or place not in _TAKEN:
        return None
    taker = _TAKEN[place]
    task = None if taker is None else taker()
    if task is None or task.done() or (around.task is not None and around.task() is task):
        return around.holder
    return None


def _running_task() -> "weakref.ref[asyncio.Task[Any]] | None":
    loop = asyncio._get_running_loop()
    task = None if loop is None else asyncio.current_task(loop)
    return None if task is None else weakref.ref(task)


def _identity(manager: LockManager) -> Any:
    """What tells a manager from others, and equals that of an equal one."""
    try:
        hash(manager)
    except TypeError:
        return id(manager)
    return manager
