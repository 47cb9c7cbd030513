"""Who in this process stands still until somebody else's work is done, as far as its stack says so for certain.

A thread that joins another, or asks a future for its result without a time-out, shows what it waits for in its frames,
and a task of an event loop in what it awaits. A queue, an event or a pipe does not say who is to serve it.
"""

import asyncio
import concurrent.futures
import sys
import threading
import weakref
from asyncio import base_events
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import thread as thread_pools
from types import CodeType, FrameType
from typing import Any, NamedTuple

from pgresults.database.programs import aperform, perform

_Locals = Mapping[str, Any]


class Worker(NamedTuple):
    """The thread, or the task of an event loop, that does some work; ``blocks``: the thread itself waits for a lock."""

    thread: "weakref.ref[threading.Thread]"
    task: "weakref.ref[asyncio.Task[Any]] | None"
    blocks: bool = False

    @classmethod
    def current(cls) -> "Worker":
        """Who does the work that asks."""
        loop = asyncio._get_running_loop()
        task = None if loop is None else asyncio.current_task(loop)
        return cls(weakref.ref(threading.current_thread()), None if task is None else weakref.ref(task))

    @classmethod
    def waiting(cls) -> "Worker":
        """Who asks, in a program that is about to wait."""
        return cls.current()._replace(blocks=_is_performed())

    def stands_still_for(self, other: "Worker") -> bool:
        """Whether it cannot go on until another one that waits has what it waits for, as far as can be told."""
        mine, its = self.thread(), other.thread()
        if mine is None or its is None:
            return False
        if other.blocks and mine is its:
            return True  # whatever else is to be done there: the thread waits, and with it its event loop
        task, target = self.task and self.task(), its if other.blocks or other.task is None else other.task()
        if self.task is None:
            return target in _awaited_from(_awaits(mine, {}))
        return task is not None and target in _awaited_from([task, *_awaits_within_loop(mine)])


def _is_performed() -> bool:
    """Whether the program that asks is carried out by a thread that waits, rather than by an event loop."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code in (perform.__code__, aperform.__code__):
            return frame.f_code is perform.__code__
        frame = frame.f_back
    return False


def _awaited_from(start: Iterable[object]) -> set[object]:
    """All whose work has to be done before what is awaited at first hand is."""
    running = _running_futures()
    awaited: set[object] = set()
    new = list(start)
    while new:
        if (one := new.pop()) not in awaited:
            awaited.add(one)
            new.extend(_awaits(one, running))
    return awaited


def _awaits_within_loop(thread: threading.Thread) -> Iterator[object]:
    """What a thread waits for in a step of its event loop, which keeps all tasks of the loop waiting."""
    for frame in _frames(thread):
        if frame.f_code is base_events.BaseEventLoop._run_once.__code__:  # type: ignore[attr-defined]
            return
        yield from _said_by(frame)


def _awaits(one: object, running: Mapping[object, threading.Thread]) -> Iterator[object]:
    """What somebody or something waits for at first hand."""
    if isinstance(one, threading.Thread):
        for frame in _frames(one):
            yield from _said_by(frame)
    elif isinstance(one, asyncio.Task):
        yield from _awaits_of_task(one)
    elif isinstance(one, asyncio.Future):
        yield from _sources(one)
    elif one in running:
        yield running[one]


def _awaits_of_task(task: "asyncio.Task[Any]") -> Iterator[object]:
    if (future := getattr(task, "_fut_waiter", None)) is not None:
        yield future
    step: Any = task.get_coro()
    while (frame := getattr(step, "cr_frame", None)) is not None:
        yield from _said_by(frame)
        step = step.cr_await


def _sources(future: "asyncio.Future[Any]") -> Iterator[object]:
    """What sets the result of a future: what is gathered, shielded, or done by an executor."""
    yield from getattr(future, "_children", ())
    for callback, *_ in getattr(future, "_callbacks", None) or ():
        code, cells = getattr(callback, "__code__", None), getattr(callback, "__closure__", None)
        if code is not None and cells is not None:
            bound = dict(zip(code.co_freevars, cells, strict=True))
            yield from (bound[name].cell_contents for name in ("source", "inner") if name in bound)


def _running_futures() -> dict[object, threading.Thread]:
    """Which thread of a pool is carrying out the call of which future."""
    code = thread_pools._WorkItem.run.__code__
    calls = (
        (frame.f_locals.get("self"), thread)
        for thread in threading.enumerate()
        for frame in _frames(thread)
        if frame.f_code is code
    )
    return {call.future: thread for call, thread in calls if call is not None}  # None: it has just ended


def _frames(thread: threading.Thread) -> Iterator[FrameType]:
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None:
        yield frame
        frame = frame.f_back


def _said_by(frame: FrameType) -> Iterable[object]:
    """What a frame waits for, where it does so without a time-out."""
    if (said := _SAYINGS.get(frame.f_code)) is None:
        return ()
    names = frame.f_locals
    return () if names.get("timeout") is not None else said(names)


def _all_or_one(names: _Locals) -> Iterable[object]:
    """What is waited for with the promise to go on only when all is done, or when one is and there is one."""
    left = [future for future in names.get("fs", ()) if not future.done()]
    return left if len(left) == 1 or names.get("return_when") == concurrent.futures.ALL_COMPLETED else ()


_SAYINGS: dict[CodeType, Callable[[_Locals], Iterable[object]]] = {
    threading.Thread.join.__code__: lambda names: (names["self"],),
    concurrent.futures.Future.result.__code__: lambda names: (names["self"],),
    concurrent.futures.Future.exception.__code__: lambda names: (names["self"],),
    concurrent.futures.as_completed.__code__: lambda names: list(names.get("pending", ())),
    concurrent.futures.wait.__code__: _all_or_one,
    concurrent.futures.ThreadPoolExecutor.shutdown.__code__: lambda names: (
        list(names["self"]._threads) if names["wait"] else ()
    ),
    base_events.BaseEventLoop.run_until_complete.__code__: lambda names: (names["future"],),
    asyncio.TaskGroup.__aexit__.__code__: lambda names: list(names["self"]._tasks),
    asyncio.wait.__code__: _all_or_one,
}
"""What a frame of these functions says, while it stands."""
