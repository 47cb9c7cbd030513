"""What OpenTelemetry costs where a program has it.

``python -m benchmarks.telemetry`` makes the same call of a store or task in six states in turn, so that all are
disturbed alike: without it; with its API alone; without again, which shows what is noise; without, but for one span of
the program's own around the call, of an SDK that samples nothing; with that SDK; and with one that records everything
and measures. Medians of calls are compared, not sums: few are disturbed.
"""

import argparse
import asyncio
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache, partial
from itertools import count
from random import Random
from statistics import median
from time import perf_counter
from types import ModuleType
from typing import Any, NamedTuple, TypeAlias

from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler
from rich.console import Console
from rich.table import Table

from benchmarks.__main__ import prepared
from benchmarks.tasks import Ours
from pgresults.database import telemetry
from pgresults.database.telemetry import Instruments

_CALLS = 1500
_KEY = "k"
_PAYLOAD = os.urandom(1024)
_WITHOUT = "without"

Times: TypeAlias = defaultdict[tuple[str, str], list[float]]
"""Seconds of each call, by what it is and in which state."""


class State(NamedTuple):
    """What a program has of OpenTelemetry: the module of its API, and what an SDK's providers gave.

    ``around`` is what the program itself puts around each call.
    """

    api: ModuleType | None
    made: Instruments | None = None
    around: Callable[[], AbstractContextManager[Any]] = nullcontext

    def enter(self) -> None:
        """Have this program be in it."""
        sys.modules.pop(trace.__name__, None)
        if self.api is not None:
            sys.modules[trace.__name__] = self.api
        telemetry._made = self.made


class _Nowhere(SpanExporter):
    """Takes spans and drops them."""

    def export(self, spans: Sequence[Any]) -> SpanExportResult:  # noqa: ARG002 (it drops them)
        return SpanExportResult.SUCCESS


def _tracing(sampler: Sampler) -> TracerProvider:
    tracers = TracerProvider(sampler=ParentBased(sampler))
    tracers.add_span_processor(BatchSpanProcessor(_Nowhere()))
    return tracers


@cache
def _states() -> dict[str, State]:
    unsampled = _tracing(ALWAYS_OFF).get_tracer("bare")
    return {
        _WITHOUT: State(None),
        "API alone": State(trace),
        "without, again": State(None),
        "bare span, not sampled": State(None, around=partial(unsampled.start_as_current_span, "bare")),
        "SDK, not sampled": State(trace, Instruments(_tracing(ALWAYS_OFF))),
        "SDK, recording all": State(trace, Instruments(_tracing(ALWAYS_ON), MeterProvider([InMemoryMetricReader()]))),
    }


def _calls(ours: Ours, a: str) -> dict[str, Callable[[str], Any]]:
    """What is measured, by name; ``a`` stands before the names of methods on an event loop."""
    fresh, function = count(), ours.asynchronous if a else ours.sync
    read, write, exists = (getattr(ours.store, f"{a}{name}") for name in ("read", "write", "exists"))
    return {
        "read": read,
        "write": lambda key: write(_PAYLOAD, key=key),
        "exists": exists,
        "hit of a task": function,
        "miss of a task": lambda key: function(f"{key} {next(fresh)}"),
    }


def _sync(ours: Ours) -> Times:
    times: Times = defaultdict(list)
    ours.store.write(_PAYLOAD, key=_KEY)
    for name, call in _calls(ours, "").items():
        for state in _turns():
            began = perf_counter()
            with _states()[state].around():
                call(_KEY)
            times[name, state].append(perf_counter() - began)
    ours.storage.close()
    return times


async def _async(ours: Ours) -> Times:
    times: Times = defaultdict(list)
    await ours.store.awrite(_PAYLOAD, key=_KEY)
    for name, call in _calls(ours, "a").items():
        for state in _turns():
            began = perf_counter()
            with _states()[state].around():
                await call(_KEY)
            times[name, state].append(perf_counter() - began)
    await ours.storage.aclose()
    return times


def _turns() -> Iterator[str]:
    """The states in turn, each entered before it is given; in another order every time."""
    states, order = _states(), Random(0)
    for _ in range(_CALLS):
        for name in order.sample(list(states), len(states)):
            states[name].enter()
            yield name
    states[_WITHOUT].enter()


def _row(mode: str, name: str, times: Times) -> list[str]:
    """The median time of a call without, and in each other state what it is as a multiple of that."""
    without = median(times[name, _WITHOUT])
    others = [f"{median(times[name, state]) / without:.3f}" for state in list(_states())[1:]]
    return [mode, name, f"{without * 1000:.3f} ms", *others]


def main() -> None:
    """Measure, then print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.telemetry", description=__doc__)
    parser.add_argument("--database-url", help="a server to measure on; default: an embedded one")
    options = parser.parse_args()
    table = Table("calls", "operation", *_states(), title="How many times as long as without OpenTelemetry")
    with prepared(options.database_url) as url:
        ours = Ours.on(url)
        for mode, times in (("sync", _sync(ours)), ("async", asyncio.run(_async(ours)))):
            for name in dict.fromkeys(name for name, _ in times):
                table.add_row(*_row(mode, name, times))
    Console().print(table)


if __name__ == "__main__":
    main()
