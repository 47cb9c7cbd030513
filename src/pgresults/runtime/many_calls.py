"""Calling a task for many items: what is live is read, the rest is called, in this process or in others."""

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from functools import partial
from typing import Any, NamedTuple

from pgresults.context import carried
from pgresults.database.programs import Program, calling, wait_for
from pgresults.errors import InvalidArgument
from pgresults.runtime.calls import Called, Planned
from pgresults.runtime.iterables import Arguments, lockstep
from pgresults.runtime.mapping import Mapped, MapProgress, Outcome, call_all
from pgresults.transactions.gathering import Gathering

_TOGETHER = 32
"""How many calls of an async task are awaited at a time; about as many as threads would be."""


class MapOptions(NamedTuple):
    """How calls are carried out; see `Task.map`."""

    executor: Executor | None
    processes: int | None
    progress: Callable[[MapProgress], None] | None
    store_within: timedelta | float | None = None

    @property
    def elsewhere(self) -> bool:
        """Whether calls run in other processes, which count for themselves."""
        return self.processes is not None or isinstance(self.executor, ProcessPoolExecutor)

    def gathering(self) -> Gathering | None:
        """Where results wait to be stored together, if they may.

        Raises: InvalidArgument.
        """
        window = self.store_within
        if window is None:
            return None
        if self.processes is not None or not isinstance(self.executor, ThreadPoolExecutor | None):
            raise InvalidArgument(
                "results wait to be stored together in one process: give store_within, or processes or an executor of "
                "them, not both",
                argument="store_within",
                value=window,
            )
        seconds = window.total_seconds() if isinstance(window, timedelta) else window
        if (
            isinstance(seconds, bool)
            or not isinstance(seconds, int | float)
            or not 0 < seconds <= threading.TIMEOUT_MAX
        ):
            raise InvalidArgument(
                f"store_within is a time that results may wait, not {window!r}", argument="store_within", value=window
            )
        return Gathering(seconds)


def mapping(task: Called[Any, Any], given: Arguments, options: MapOptions) -> Program[list[Any]]:
    """Call a task for every item; see `Task.map`."""
    if task.isasync and (options.executor is not None or options.processes is not None):
        raise InvalidArgument(
            f"{task.name} is async: its calls are awaited on this event loop, without executor or processes",
            argument="executor" if options.processes is None else "processes",
        )
    many = lockstep(given.args, given.kwargs, list(task._signature.parameters))
    planned = []
    while (arguments := calling(lambda: next(many, None))) is not None:
        planned.append((yield from task._plan(arguments)))
    live = yield from task._live(planned)
    mapped = calling(lambda: Mapped([call.place for call in planned], live, options.progress))
    missing = [task._with_sources(planned[position]) for position in mapped.missing()]
    found = len(planned) - len(missing)
    task._tally.add(hits=found)
    if missing:
        gathering = calling(options.gathering)
        try:
            yield from _calling(task, missing, mapped, options, gathering)
        finally:
            if gathering is not None:
                yield from gathering.finish()
    if options.elsewhere:
        task._tally.add(hits=mapped.progress.reused - found, misses=mapped.progress.computed, elsewhere=True)
    return mapped.results()


def _calling(
    task: Called[Any, Any], missing: Sequence[Planned], mapped: Mapped, options: MapOptions, gathering: Gathering | None
) -> Program[None]:
    """Make calls."""
    carry_out = task._carry_out if gathering is None else partial(task._carry_out, gathering=gathering)

    def aside() -> Awaitable[None]:
        if task.isasync:
            return _await_all(partial(task._acarry_out, gathering=gathering), missing, mapped)
        return _call_aside(carry_out, missing, mapped, options)

    return wait_for(lambda: _call(carry_out, missing, mapped, options, None), aside)


def _call(
    carry_out: Callable[[Planned], Outcome],
    missing: Sequence[Planned],
    mapped: Mapped,
    options: MapOptions,
    stop: Future[None] | None,
) -> None:
    """Make calls in threads or processes."""
    everywhere = call_all(carried(carry_out), missing, options.executor, options.processes, stop)
    with closing(everywhere) as outcomes:
        for call, outcome in outcomes:
            mapped.take(call.place, outcome)


async def _call_aside(
    carry_out: Callable[[Planned], Outcome], missing: Sequence[Planned], mapped: Mapped, options: MapOptions
) -> None:
    """Make calls in threads or processes while an event loop goes on; cancelled, it waits for those under way."""
    stop: Future[None] = Future()
    mapped.tell = partial(_tell_on, asyncio.get_running_loop(), mapped.tell)

    def call() -> BaseException | None:
        try:
            _call(carry_out, missing, mapped, options, stop)
        except BaseException as error:
            return error  # a future would not take every kind
        return None

    calls = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        failure = await asyncio.shield(calls)
    except asyncio.CancelledError as cancelled:
        stop.set_exception(cancelled)
        await calls
        raise
    if failure is not None:
        raise failure


def _tell_on(loop: asyncio.AbstractEventLoop, tell: Callable[[MapProgress], None], now: MapProgress) -> None:
    """Have somebody told on an event loop, from another thread."""

    async def told() -> None:
        tell(now)

    asyncio.run_coroutine_threadsafe(told(), loop).result()


async def _await_all(
    carry_out: Callable[[Planned], Awaitable[Outcome]], missing: Sequence[Planned], mapped: Mapped
) -> None:
    """Await calls, some at a time; after a failure those under way go on to their end, and others do not begin."""
    left, failures = deque(missing), []

    async def work() -> None:
        while left:
            call = left.popleft()
            try:
                mapped.take(call.place, await carry_out(call))
            except BaseException as error:
                left.clear()
                failures.append(error)
                raise

    workers = [asyncio.ensure_future(work()) for _ in range(min(_TOGETHER, len(missing)))]
    try:
        await asyncio.wait(workers)
    except asyncio.CancelledError:
        left.clear()
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        raise
    await asyncio.gather(*workers, return_exceptions=True)
    if failures:
        raise failures[0]
