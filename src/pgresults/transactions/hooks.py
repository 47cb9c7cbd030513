"""Calling the hooks of a transaction."""

import asyncio
import inspect
from collections.abc import Callable
from typing import Any, TypeAlias

from pgresults.database.programs import Program, wait_for
from pgresults.errors import ConfigurationError

Hook: TypeAlias = Callable[[Any], Any]
"""Called with the transaction; may be a coroutine function."""


def run_hook(hook: Hook, transaction: object) -> Program[None]:
    """Call a hook and wait until it is done."""
    return wait_for(lambda: _call(hook, transaction), lambda: _acall(hook, transaction))


def _call(hook: Hook, transaction: object) -> None:
    outcome = hook(transaction)
    if not inspect.iscoroutine(outcome):
        return
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(outcome)
    else:
        outcome.close()
        raise ConfigurationError("an async hook inside an event loop needs `async with transaction(...)`")


async def _acall(hook: Hook, transaction: object) -> None:
    outcome = hook(transaction)
    if inspect.isawaitable(outcome):
        await outcome
