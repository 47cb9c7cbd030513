"""Calling the hooks of a transaction."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from pgresults.database.programs import Program, wait_for
from pgresults.locking.threads import begin

Hook: TypeAlias = Callable[[Any], Any]
"""Called with the transaction; may be a coroutine function."""


def run_hook(hook: Hook, transaction: object) -> Program[None]:
    """Call a hook and wait until it is done."""
    return wait_for(lambda: _call(hook, transaction), lambda: _acall(hook, transaction))


def _call(hook: Hook, transaction: object) -> None:
    outcome = hook(transaction)
    if not inspect.isawaitable(outcome):
        return
    if asyncio._get_running_loop() is None:
        asyncio.run(_awaited(outcome))
    else:  # which stands still until the hook is done: its loop is another thread's
        begin(lambda: asyncio.run(_awaited(outcome)), "pgresults-hook").result()


async def _awaited(outcome: Awaitable[Any]) -> None:
    await outcome


async def _acall(hook: Hook, transaction: object) -> None:
    outcome = hook(transaction)
    if inspect.isawaitable(outcome):
        await outcome
