"""Awaiting what a thread does; to cancel the wait does not cancel the work, and its loop may end before it."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from contextvars import copy_context
from typing import TypeVar

T = TypeVar("T")


async def outcome_of(work: Future[T]) -> T:
    """What a thread's work gives, or the error that it ends with."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def tell() -> None:
        if not done.done():
            done.set_result(None)

    def wake(_: Future[T]) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(tell)

    work.add_done_callback(wake)
    await done
    return work.result()


def begin(function: Callable[[], T], name: str = "pgresults-lock-manager") -> Future[T]:
    """Call a function in a thread of its own, of this name, and in the caller's context.

    A pool would not do for what waits for others: they might stand behind it.
    """
    work: Future[T] = Future()
    context = copy_context()

    def run() -> None:
        try:
            work.set_result(context.run(function))
        except BaseException as error:
            work.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return work
