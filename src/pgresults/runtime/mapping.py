"""Many calls at once: in threads, in processes, or on an executor of the caller's."""

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from multiprocessing import connection, get_context, parent_process
from typing import Any, NamedTuple, TypeVar

from pgresults.errors import InvalidArgument, PgResultsError
from pgresults.records.lineage import Origin
from pgresults.records.remembering import Given, use
from pgresults.runtime.parcels import Parcel, answered

A = TypeVar("A")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class MapProgress:
    """How many calls there are, how many had a result already, and how many were computed so far."""

    total: int
    reused: int
    computed: int

    @property
    def done(self) -> int:
        """How many calls have their result."""
        return self.reused + self.computed


class Outcome(NamedTuple):
    """What a call gave, and whether that was there already."""

    result: Any
    reused: bool
    failure: BaseException | None = None
    """What is to be raised in place of the result."""
    origins: tuple[Origin, ...] = ()
    """The version that it is or, where it is not stored, those that it was computed from."""
    size: int = 0
    """About how many bytes it has."""
    given: Given = Given()
    """What the call had from elsewhere."""


class Mapped:
    """Which calls have their result, and which are to be made.

    Parameters:
        places: one for each call; calls of the same place have the same result.
        results: those that are there already, by place.
        progress: told about every call that is done.
    """

    def __init__(
        self,
        places: Sequence[Hashable],
        results: Mapping[Any, Any],
        progress: Callable[[MapProgress], None] | None = None,
    ) -> None:
        self._places = places
        self._calls = Counter(places)
        self._results: dict[Hashable, Any] = dict(results)
        self.tell = progress or (lambda _: None)
        self._progress = MapProgress(len(places), sum(place in results for place in places), 0)
        self.tell(self._progress)

    def missing(self) -> list[int]:
        """The positions of the calls to be made, one for each place."""
        first: dict[Hashable, int] = {}
        for position, place in enumerate(self._places):
            if place not in self._results:
                first.setdefault(place, position)
        return list(first.values())

    def take(self, place: Hashable, outcome: Outcome) -> None:
        """Keep what a call gave, for all calls of its place.

        Raises: its failure.
        """
        if outcome.failure is not None:
            raise outcome.failure
        use(outcome.result, outcome.origins, outcome.size, outcome.given)
        self._results[place] = outcome.result
        computed = int(not outcome.reused)
        before = self._progress
        self._progress = replace(
            before, reused=before.reused + self._calls[place] - computed, computed=before.computed + computed
        )
        self.tell(self._progress)

    @property
    def progress(self) -> MapProgress:
        """How far it has come."""
        return self._progress

    def results(self) -> list[Any]:
        """The results in the order of the calls."""
        return [self._results[place] for place in self._places]


def call_all(
    function: Callable[[A], R],
    arguments: Iterable[A],
    executor: Executor | None,
    processes: int | None,
    stop: Future[None] | None = None,
) -> Generator[tuple[A, R], None, None]:
    """Call a function with each argument, in the order given; what has not begun when it is closed never begins.

    Parameters:
        function: can be pickled where processes call it.
        arguments: its only argument, for each call.
        executor: what calls run on; it stays open.
        processes: how many processes to start for them; None, and no executor: threads.
        stop: ends it with its failure, once it has one, as the failure of a call would.

    Returns: an argument and what the function returned for it, as the calls are done.
    Raises: what a call raised; InvalidArgument for an executor and processes; PgResultsError when a process of ours
        was killed.
    """
    if executor is not None and processes is not None:
        raise InvalidArgument("give executor or processes, not both", argument="processes", value=processes)
    if executor is not None:
        yield from _each(executor, function, arguments, stop)
    elif processes is None:
        # A pool that is interrupted while it starts a thread may wait for it for ever.
        with ThreadPoolExecutor() as threads, _held(signal.valid_signals()) as let_go:
            yield from _each(threads, function, arguments, stop, let_go)
    else:
        try:
            # Processes that start meanwhile never see Ctrl-C, from which a terminal spares none of its programs.
            with _workers(processes, function) as workers, _held({signal.SIGINT}) as let_go:
                yield from _each(workers, _call_given, arguments, stop, let_go)
        except BrokenProcessPool as error:
            raise PgResultsError(
                "a worker process was killed, or could not start because the program maps over processes outside of "
                '`if __name__ == "__main__":`. What is done is stored: run it again'
            ) from error


def _each(
    pool: Executor,
    function: Callable[[A], R],
    arguments: Iterable[A],
    stop: Future[None] | None,
    begun: Callable[[], None] = lambda: None,
) -> Generator[tuple[A, R], None, None]:
    futures: dict[Future[Parcel[R]], A] = {}
    try:
        for argument in arguments:
            futures[pool.submit(answered, function, Parcel(argument))] = argument
        begun()
        awaited: list[Future[Any]] = [*futures] if stop is None else [*futures, stop]
        for future in islice(as_completed(awaited), len(futures)):
            outcome = future.result().open()
            yield futures[future], outcome
    finally:
        for future in futures:
            future.cancel()


def _workers(number: int, function: Callable[[A], R]) -> ProcessPoolExecutor:
    """Processes that have a function already, which may be heavy, so that only arguments are sent with a call."""
    return ProcessPoolExecutor(number, get_context("spawn"), initializer=_begin_worker, initargs=(function,))


_given: Callable[[Any], Any]
"""In a worker process: what it is there for."""


def _begin_worker(function: Callable[[Any], Any]) -> None:
    global _given
    _given = function
    threading.Thread(target=_end_with_parent, name="pgresults-parent", daemon=True).start()


def _call_given(argument: Any) -> Any:
    return _given(argument)


def _end_with_parent() -> None:
    """End this process when its parent is gone: a pool's process would wait for work for ever."""
    if (parent := parent_process()) is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


@contextmanager
def _held(signals: Iterable[int]) -> Iterator[Callable[[], None]]:
    """Have signals wait, and threads and processes that start meanwhile never see them.

    Returns: what ends it before the block does.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)

    def let_go() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    try:
        yield let_go
    finally:
        let_go()
