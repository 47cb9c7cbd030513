"""Interleaved batches: every subject is timed in every round, so that what disturbs one round disturbs them all."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any


@dataclass(frozen=True)
class Timings:
    """Seconds a call, by subject, one figure a round."""

    rounds: dict[str, list[float]]

    def __add__(self, further: "Timings") -> "Timings":
        return Timings({name: times + further.rounds[name] for name, times in self.rounds.items()})

    def seconds(self, subject: str) -> float:
        """The median time of a call."""
        return median(self.rounds[subject])

    def ratio(self, subject: str, yardstick: str) -> float:
        """How many times as long as the yardstick it takes: the median over the rounds."""
        return median(a / b for a, b in zip(self.rounds[subject], self.rounds[yardstick], strict=True))


def measure(subjects: Mapping[str, Callable[[str], Any]], keys: Sequence[str], rounds: int) -> Timings:
    """Time subjects that block; each is called once with every key, in every round."""
    timings = Timings({name: [] for name in subjects})
    for _ in range(rounds):
        for name, subject in subjects.items():
            start = perf_counter()
            for key in keys:
                subject(key)
            timings.rounds[name].append((perf_counter() - start) / len(keys))
    return timings


async def ameasure(
    subjects: Mapping[str, Callable[[str], Awaitable[Any]]], keys: Sequence[str], rounds: int
) -> Timings:
    """Time subjects that are awaited; see `measure`."""
    timings = Timings({name: [] for name in subjects})
    for _ in range(rounds):
        for name, subject in subjects.items():
            start = perf_counter()
            for key in keys:
                await subject(key)
            timings.rounds[name].append((perf_counter() - start) / len(keys))
    return timings
