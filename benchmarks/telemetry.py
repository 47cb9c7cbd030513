"""What OpenTelemetry costs where a program has it.

``python -m benchmarks.telemetry`` calls a store and tasks in five states, in turn in every round, with the same keys on
one server, so that all are disturbed alike: without it; with its API alone; with an SDK that samples nothing, or all,
and measures; and all that with the first state again, which shows what is noise.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from functools import reduce
from itertools import count
from operator import add
from types import ModuleType
from typing import Any, NamedTuple

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
from benchmarks.timing import Timings, ameasure, measure
from pgresults.database import telemetry
from pgresults.database.telemetry import Instruments

_CALLS, _ROUNDS, _CONNECTIONS = 50, 15, 5
_PAYLOAD = os.urandom(1024)
_WITHOUT = "without"


class State(NamedTuple):
    """What a program has of OpenTelemetry: the module of its API, and what an SDK's providers gave."""

    api: ModuleType | None
    made: Instruments | None = None

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


def _sdk(sampler: Sampler, *, metrics: bool) -> Instruments:
    tracers = TracerProvider(sampler=ParentBased(sampler))
    tracers.add_span_processor(BatchSpanProcessor(_Nowhere()))
    return Instruments(tracers, MeterProvider([InMemoryMetricReader()] if metrics else []))


def _states() -> dict[str, State]:
    return {
        _WITHOUT: State(None),
        "API alone": State(trace),
        "SDK, not sampled": State(trace, _sdk(ALWAYS_OFF, metrics=False)),
        "SDK, recording all": State(trace, _sdk(ALWAYS_ON, metrics=True)),
        "without, again": State(None),
    }


def _calls(ours: Ours, fresh: Any, a: str) -> dict[str, Callable[[str], Any]]:
    """What is measured, by name; ``a`` stands before the names of methods on an event loop."""
    function = ours.asynchronous if a else ours.sync
    read, write, exists = (getattr(ours.store, f"{a}{name}") for name in ("read", "write", "exists"))
    return {
        "read": read,
        "write": lambda key: write(_PAYLOAD, key=key),
        "exists": exists,
        "hit of a task": function,
        "miss of a task": lambda key: function(f"{key} {next(fresh)}"),
    }


def _subjects(ours: Ours, keys: Sequence[str], a: str) -> dict[str, Callable[[str], Any]]:
    """Every call in every state."""

    def within(state: State, call: Callable[[str], Any]) -> Callable[[str], Any]:
        def called(key: str) -> Any:
            if key == keys[0]:
                state.enter()
            return call(key)

        return called

    calls = _calls(ours, count(), a)
    return {f"{name}/{said}": within(state, call) for name, call in calls.items() for said, state in _states().items()}


def _sync(ours: Ours, keys: Sequence[str]) -> Timings:
    for key in keys:
        ours.store.write(_PAYLOAD, key=key)
        ours.sync(key)
    timings = measure(_subjects(ours, keys, ""), keys, _ROUNDS)
    ours.storage.close()
    return timings


async def _async(ours: Ours, keys: Sequence[str]) -> Timings:
    for key in keys:
        await ours.store.awrite(_PAYLOAD, key=key)
        await ours.asynchronous(key)
    timings = await ameasure(_subjects(ours, keys, "a"), keys, _ROUNDS)
    await ours.storage.aclose()
    return timings


def main() -> None:
    """Measure, then print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.telemetry", description=__doc__)
    parser.add_argument("--database-url", help="a server to measure on; default: an embedded one")
    options = parser.parse_args()
    with prepared(options.database_url) as url:
        ours, keys = Ours.on(url), [f"k{number}" for number in range(_CALLS)]
        found = {
            "sync": reduce(add, [_sync(ours, keys) for _ in range(_CONNECTIONS)]),
            "async": reduce(add, [asyncio.run(_async(ours, keys)) for _ in range(_CONNECTIONS)]),
        }
    State(trace).enter()
    states = list(_states())
    table = Table("calls", "operation", *states, title="How many times as long as without OpenTelemetry")
    for mode, timings in found.items():
        for name in dict.fromkeys(subject.split("/")[0] for subject in timings.rounds):
            yardstick = f"{name}/{_WITHOUT}"
            ratios = [f"{timings.ratio(f'{name}/{state}', yardstick):.3f}" for state in states[1:]]
            table.add_row(mode, name, f"{timings.seconds(yardstick) * 1000:.3f} ms", *ratios)
    Console().print(table)


if __name__ == "__main__":
    main()
