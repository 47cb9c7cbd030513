"""A peer in turn with the yardstick: so many rounds of so many calls of each operation."""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median, quantiles
from typing import NamedTuple

from benchmarks.peers.workers import Order, Silence, Team, Trouble

KIB, MIB = 1024, 1024 * 1024
_CALLS = {KIB: 20, 64 * KIB: 10, MIB: 5, 16 * MIB: 2, 64 * MIB: 1}
SIZES = tuple(_CALLS)
_LONG = 0.1  # seconds that a batch should take at most: fewer calls of what is slow
_TWO_SIZES = (KIB, MIB)  # of what is not about size, and of many processes at once


class Plan(NamedTuple):
    """How long to measure.

    Attributes:
        seconds: after which no further round of an operation begins, beyond the least.
        least, most: rounds of an operation; fewer than the least where they take very long.
        many: calls in one `map`.
        sizes: bytes of payloads.
        processes: of each peer, one number after the other; all sizes and `map` with the first.
    """

    seconds: float
    least: int
    most: int
    many: int = 1000
    sizes: tuple[int, ...] = SIZES
    processes: tuple[int, ...] = (1, 8)


@dataclass(frozen=True)
class Figure:
    """What one operation took, a call, round by round, and bare psycopg in the same rounds."""

    peer: str
    operation: str
    size: int
    processes: int
    seconds: tuple[float, ...]
    bare: tuple[float, ...]

    def median(self) -> float:
        return median(self.seconds)

    def ratio(self) -> float:
        """How many times as long as bare psycopg: the median over the rounds."""
        return median(mine / bare for mine, bare in zip(self.seconds, self.bare, strict=True))

    def spread(self) -> float | None:
        """By how much the middle half of the yardstick's rounds differed, as a share of their median."""
        if len(self.bare) < 4:
            return None
        low, _, high = quantiles(self.bare, n=4)
        return (high - low) / median(self.bare)


class Comparison:
    """One peer beside the yardstick, each with as many processes."""

    def __init__(self, bare: Team, peer: Team, plan: Plan, trouble: Callable[[str], None]) -> None:
        self._bare, self._peer, self._plan, self._trouble = bare, peer, plan, trouble

    def figures(self, operations: list[str]) -> Iterator[Figure]:
        """Everything that the peer can do; what fails is told, and left out."""
        for operation, size in _work(self._plan, self._peer.processes):
            if operation not in operations:
                continue
            try:
                measured = self._handovers() if operation == "hand-over" else self._rounds(operation, size)
            except Silence as error:
                self._trouble(f"{self._label(operation, size)} and what follows left out: {error}")
                return
            except Trouble as error:
                self._trouble(f"{self._label(operation, size)} left out: {error}")
                continue
            mine, bare = zip(*measured, strict=True)
            yield Figure(self._peer.contestant.name, operation, size, self._peer.processes, mine, bare)

    def _label(self, operation: str, size: int) -> str:
        return f"{self._peer.contestant.name}, {operation}, {label(size)}, processes: {self._peer.processes}"

    def _rounds(self, operation: str, size: int) -> list[tuple[float, float]]:
        orders = {team: self._order(team, operation, size) for team in (self._bare, self._peer)}
        return self._repeated(lambda team: team.seconds(orders[team]))

    def _order(self, team: Team, operation: str, size: int) -> Order:
        """What a team does in a round: fewer calls of what is slow. Connections are open and keys there then."""
        order = Order(operation, size, 1 if operation == "map" else _CALLS[size], self._plan.many)
        if operation == "map":
            return order
        first = order._replace(calls=1)
        team.seconds(order if operation == "write" else first)
        took = team.seconds(first) * team.processes
        order = order._replace(calls=min(max(int(_LONG / took), 1), order.calls))
        if operation == "hit":
            team.seconds(order)
        return order

    def _handovers(self) -> list[tuple[float, float]]:
        wait = random.Random(0)  # who asks now and then is not always found at the same moment
        return self._repeated(lambda team: team.handed_over(wait.uniform(0.05, 0.15)))

    def _repeated(self, timed: Callable[[Team], float]) -> list[tuple[float, float]]:
        """Rounds of both in turn: the peer's figures and the yardstick's."""
        found: list[tuple[float, float]] = []
        began = time.monotonic()
        while len(found) < self._plan.most:
            bare = timed(self._bare)
            found.append((timed(self._peer), bare))
            took = time.monotonic() - began
            enough = len(found) >= self._plan.least or took > 6 * self._plan.seconds
            if enough and took > self._plan.seconds:
                break
        return found


def _work(plan: Plan, processes: int) -> Iterator[tuple[str, int]]:
    """What is measured, in this order: a size is written before it is read."""
    first = processes == plan.processes[0]
    for size in plan.sizes:
        two = size in _TWO_SIZES
        if first or two:
            yield from ((operation, size) for operation in ("write", "read"))
        if two:
            yield from ((operation, size) for operation in ("exists", "hit", "miss"))
    yield "lock", KIB
    if first:
        yield "map", KIB
    if processes > 1:
        yield "hand-over", KIB


def label(size: int) -> str:
    """A size as it is said."""
    return f"{size // MIB} MB" if size >= MIB else f"{size // KIB} KB"
