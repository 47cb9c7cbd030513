"""Programs that wait: written once as generators of effects, carried out by a thread or by an event loop.

A program yields what it waits for (a database call, a lock, heavy computing), is sent the outcome, and has failures
thrown into it, so that ``try`` and ``finally`` in it mean what they say.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass
from inspect import GEN_CLOSED, getgeneratorstate
from typing import Any, Generic, TypeAlias, TypeVar

from pgresults.database.database import Database, Start
from pgresults.errors import PgResultsError
from pgresults.operations.requests import Operation

T = TypeVar("T")


@dataclass(slots=True)
class Effect(Generic[T]):
    """Something to wait for, in both ways of waiting."""

    blocking: Callable[[], T]
    awaiting: Callable[[], Awaitable[T]]


Program: TypeAlias = Generator[Effect[Any], Any, T]

_ENDS = (StopIteration, StopAsyncIteration, GeneratorExit)
"""What generators take for their own end, where it passes through them, and not for a failure."""


class _Carrier(BaseException):
    """Takes such a failure through the generators of a program, which treat it as any other one.

    Parameters:
        failure: what is taken out of the carrier where it leaves the program.
    """

    def __init__(self, failure: BaseException) -> None:
        super().__init__(f"{type(failure).__name__} on its way out")
        self.failure = failure
        self.__cause__ = failure


class _ExceptionCarrier(_Carrier, Exception):  # noqa: N818 (it stands for another)
    """The carrier of what ``except Exception`` catches."""


def _carried(failure: BaseException) -> BaseException:
    """What may be thrown into a program in place of a failure."""
    if not isinstance(failure, _ENDS):
        return failure
    return _ExceptionCarrier(failure) if isinstance(failure, Exception) else _Carrier(failure)


def failure_in(error: BaseException) -> BaseException:
    """What a program caught, as it was raised."""
    return error.failure if isinstance(error, _Carrier) else error


def perform(program: Program[T]) -> T:
    """Carry a program out in this thread.

    What interrupts it between two steps of the program is thrown into it as well: a program that was begun ends by its
    own ``finally``, with all that has to be waited for there.
    """
    step: Callable[[Any], Effect[Any]] = program.send
    given: Any = None
    while True:
        try:
            while True:  # within the `try`, for it is where a loop turns that signals are looked after
                effect = step(given)
                step, given = program.send, effect.blocking()
        except BaseException as error:
            if getgeneratorstate(program) != GEN_CLOSED:
                step, given = program.throw, _carried(error)
                continue
            given = None  # else this frame, which the traceback keeps, would keep a failure in turn
            if isinstance(error, StopIteration):
                return error.value  # type: ignore[no-any-return]
            if not isinstance(error, _Carrier):
                raise
            left = error.failure
            break
    try:
        raise left
    finally:
        del left  # the traceback keeps this frame


async def aperform(program: Program[T]) -> T:
    """Carry a program out on the running event loop; see `perform`.

    When its loop is gone, a coroutine that is closed can wait for nothing any more: its program ends without.
    """
    step: Callable[[Any], Effect[Any]] = program.send
    given: Any = None
    loop = asyncio._get_running_loop()
    can_wait = loop is not None
    while True:
        try:
            while True:
                effect = step(given)
                if not can_wait:
                    raise GeneratorExit
                step, given = program.send, await effect.awaiting()
        except BaseException as error:
            if getgeneratorstate(program) != GEN_CLOSED:
                step, given = program.throw, _carried(error)
                can_wait = can_wait and (not isinstance(error, GeneratorExit) or asyncio._get_running_loop() is loop)
                continue
            given = None  # see `perform`
            if isinstance(error, StopIteration):
                return error.value  # type: ignore[no-any-return]
            if not isinstance(error, _Carrier):
                raise
            left = error.failure
            break
    try:
        raise left
    finally:
        del left  # the traceback keeps this frame


def perform_or_undo(program: Program[T], undo: Callable[[], Program[None]]) -> T:
    """Carry a program out in this thread whose outcome must not be lost.

    Parameters:
        program: takes what somebody has to give back.
        undo: gives back what was taken if anything was; called when an interruption came at the very end, after which
            nobody knows the outcome, or when anything but an error of ours ended the program.
    """
    try:
        return perform(program)
    except PgResultsError:
        raise
    except BaseException:
        perform(undo())
        raise


async def aperform_or_undo(program: Program[T], undo: Callable[[], Program[None]]) -> T:
    """Carry a program out on the running event loop whose outcome must not be lost; see `perform_or_undo`."""
    try:
        return await aperform(program)
    except PgResultsError:
        raise
    except BaseException:
        await aperform(undo())
        raise


def calling(function: Callable[[], T]) -> T:
    """Call code of the user's within a program.

    Raises: what it raises, in a way that does not end the program's generators.
    """
    try:
        return function()
    except _ENDS as end:
        raise _carried(end) from end


def wait_for(blocking: Callable[[], T], awaiting: Callable[[], Awaitable[T]]) -> Program[T]:
    """Wait for the outcome of a call that exists in both ways."""
    return (yield Effect(blocking, awaiting))  # type: ignore[no-any-return]


def call(database: Database, start: Start[T], *, atomic: bool = False, repeatable: bool = True) -> Program[T]:
    """Have a database carry an operation out; see `Database.run`."""
    return wait_for(
        lambda: database.run(start, atomic=atomic, repeatable=repeatable),
        lambda: database.arun(start, atomic=atomic, repeatable=repeatable),
    )


def together(steps: Sequence[tuple[Database, Start[Any]]], *, atomic: bool = False) -> Program[list[Any]]:
    """Have operations carried out that are not to be repeated: in one transaction where they share a database.

    Parameters:
        steps: the operations with their databases.
        atomic: whether a single one has several statements, too.
    """
    database = steps[0][0]
    if any(other != database for other, _ in steps):
        outcomes = []
        for other, start in steps:
            outcomes.append((yield from call(other, start, atomic=atomic, repeatable=False)))
        return outcomes

    def all_of_them(repeated: bool) -> Operation[list[Any]]:
        outcomes = []
        for _, start in steps:
            outcomes.append((yield from start(repeated)))
        return outcomes

    return (yield from call(database, all_of_them, atomic=atomic or len(steps) > 1, repeatable=False))


def compute(function: Callable[[], T], *, small: bool) -> Program[T]:
    """Compute something; an event loop has a thread do it unless it is small."""
    if small:
        return _at_once(function)
    return wait_for(function, lambda: asyncio.to_thread(function))


def _at_once(function: Callable[[], T]) -> Program[T]:
    return function()
    yield  # what makes this a program


_FEW = 64
_PLAIN = (str, bytes, bytearray, int, float, bool, type(None))


def is_small(obj: object, limit: int) -> bool:
    """Whether encoding an object surely takes no noticeable time: a plain value within ``limit`` bytes, or a few."""
    if type(obj) in _PLAIN:
        return _is_plain(obj, limit)
    if isinstance(obj, dict):
        return len(obj) <= _FEW and all(_is_plain(item, limit // _FEW) for pair in obj.items() for item in pair)
    return isinstance(obj, list | tuple) and len(obj) <= _FEW and all(_is_plain(item, limit // _FEW) for item in obj)


def _is_plain(obj: object, limit: int) -> bool:
    """Whether an object is a number or text of at most ``limit`` bytes."""
    return type(obj) in _PLAIN and sys.getsizeof(obj) <= limit
