"""Programs that are observed: each is a span and a measurement of OpenTelemetry, where the program around has it.

What is said of a program never holds a value, a payload, a parameter of a statement or a message, which might; a key
only where the setting ``telemetry_keys`` asks for it.
"""

from collections.abc import Callable, Generator, Mapping
from functools import wraps
from time import perf_counter
from typing import Any, NamedTuple, ParamSpec, TypeVar

from pgresults.database import telemetry
from pgresults.database.programs import Effect, Program, failure_in
from pgresults.database.telemetry import Described, Instruments, instruments
from pgresults.errors import LockedError, LockLostError, MissingResult

P = ParamSpec("P")
T = TypeVar("T")

HIT = "pgresults.hit"
FOUND = "pgresults.found"
SIZE = "pgresults.payload.size"
BATCH = "db.operation.batch.size"
KEY = "pgresults.key"
TASK = "pgresults.task.name"
ACQUIRED = "pgresults.lock.acquired"

WAITING = "wait_for_lock"
"""The operation of who waits for a lock."""


class About(NamedTuple):
    """What is known of a program before it begins, as attributes.

    ``database`` is that of a client's calls, and None for all others; ``more`` is for the span alone.
    """

    database: Described | None
    more: Mapping[str, Any]


def observed(
    operation: str, about: Callable[..., About | None], outcome: Callable[[Any], Mapping[str, Any]] = lambda _: {}
) -> Callable[[Callable[P, Program[T]]], Callable[P, Program[T]]]:
    """Have the programs of a function observed; nothing is asked of it or them where the program has no OpenTelemetry.

    Parameters:
        operation: what they do, in one word.
        about: given what the function is given, what is known of its program; None: it is not worth a span. It must not
            fail, whatever the function is given.
        outcome: what the span is to say of the program's result.
    """

    def decorate(function: Callable[P, Program[T]]) -> Callable[P, Program[T]]:
        @wraps(function)
        def observing(*args: P.args, **kwargs: P.kwargs) -> Program[T]:
            ours = instruments()
            if ours is None or (known := about(*args, **kwargs)) is None:
                return function(*args, **kwargs)
            return _observe(ours, operation, known, function(*args, **kwargs), outcome)

        return observing

    return decorate


def _observe(
    ours: Instruments, operation: str, about: About, program: Program[T], outcome: Callable[[Any], Mapping[str, Any]]
) -> Generator[Effect[Any], Any, T]:
    observation = _Observation(ours, operation)
    try:  # all of it: an interruption at the first line of a `finally` would leave the rest out
        observation.begin(about)
        result = yield from program
        observation.end(outcome(result))
        return result  # noqa: TRY300
    except BaseException as error:
        observation.fail(failure_in(error))
        raise


def of_record(record: Any) -> Mapping[str, Any]:
    """What a span says of a record that was read."""
    return {HIT: True, SIZE: record.metadata.size or 0}


class _Observation:
    """One span, which is the current one while its program runs, and what is measured meanwhile."""

    __slots__ = ("_before", "_began", "_context", "_measured", "_operation", "_ours", "_size", "_span")

    def __init__(self, ours: Instruments, operation: str) -> None:
        self._ours = ours
        self._operation = operation
        self._measured: Mapping[str, Any] = {}
        self._context: Any = None
        self._span: Any = None

    def begin(self, about: About) -> None:
        """Begin the span, within the current one."""
        database, more = about
        operation, ours = self._operation, self._ours
        self._size: int | None = more.get(SIZE)
        trace = ours.trace
        if database is None:
            kind, name, said = trace.SpanKind.INTERNAL, operation, more
            if TASK in more:
                name = f"{operation} {more[TASK]}"
        else:
            named = f"BATCH {operation}" if BATCH in more else operation
            self._measured = database.call(named)
            kind, name = trace.SpanKind.CLIENT, f"{named} {self._measured['db.namespace']}"
            said = {**self._measured, **more}
        self._began = perf_counter()
        self._span = ours.tracer.start_span(name, kind=kind, attributes=said)
        if self._span.is_recording() or self._span.get_span_context().is_valid:  # else it cannot be a parent
            self._before = ours.context.get_current()
            self._context = trace.set_span_in_context(self._span)
            ours.context.attach(self._context)

    def end(self, said: Mapping[str, Any]) -> None:
        """End it well."""
        if self._span is None:
            return
        if said and self._span.is_recording():
            self._span.set_attributes(said)
        if (size := said.get(SIZE, self._size)) is not None:
            which = "read" if self._operation.startswith("read") else "written"
            self._ours.counters[f"pgresults.payload.{which}"].add(size, self._measured)
        self._close(said)

    def fail(self, failure: BaseException) -> None:
        """End it with a failure; that nothing is there to be read is an answer and none."""
        if self._span is None:  # interrupted where it had ended, or had not begun
            self._go_back()
            return
        if isinstance(failure, MissingResult):
            self.end({HIT: False})
            return
        said = {"error.type": telemetry.type_of(failure)}
        if self._span.is_recording():
            if (state := telemetry.sqlstate_of(failure)) is not None:
                self._span.set_attribute("db.response.status_code", state)
            self._span.set_attributes(said)
            self._span.set_status(self._ours.trace.StatusCode.ERROR)
        if self._measured:
            self._measured = {**self._measured, **said}
            if isinstance(failure, (LockedError, LockLostError)):
                self._ours.counters["pgresults.conflicts"].add(1, said)
        self._close({ACQUIRED: False})

    def _close(self, said: Mapping[str, Any]) -> None:
        self._go_back()
        span, self._span = self._span, None
        if self._measured:
            took = perf_counter() - self._began
            self._ours.durations.record(took, self._measured)
            if self._operation == WAITING:
                self._ours.lock_waits.record(took, {ACQUIRED: said.get(ACQUIRED, False)})
        span.end()

    def _go_back(self) -> None:
        """Have the context be as it was before, however often; without a token, which an interruption may lose.

        Another context is left alone: that of who closes a coroutine which nobody awaits any more.
        """
        if self._context is not None and self._ours.context.get_current() is self._context:
            self._ours.context.attach(self._before)
