"""Processes of one peer that are told what to do, and say when they began and ended."""

import logging
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count, cycle
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from benchmarks.peers.contestants import Contestant
from benchmarks.peers.peer import Peer, Place

_PATIENCE = 180.0
_AHEAD = 0.01  # seconds until an order begins, so that all processes begin at once
NEEDS = {
    "write": "write", "read": "read", "exists": "exists", "hit": "call", "miss": "call", "map": "map",
    "lock": "acquire", "hand-over": "acquire",
}  # fmt: skip
"""The method of a peer without which an operation is left out."""


class Order(NamedTuple):
    """What each process of a team is to do.

    Attributes:
        operation: a key of `NEEDS`, or ``acquire`` and ``release`` of the parts of a hand-over.
        size: bytes of a payload.
        calls: how many times.
        many: how many keys `map` is given.
        begins: the moment to begin at, by ``time.monotonic``, which is one for all processes of a machine.
    """

    operation: str
    size: int
    calls: int
    many: int = 1
    begins: float = 0.0


class Trouble(Exception):  # noqa: N818 (not of this program's making)
    """A peer did not do what it was told."""


class Silence(Trouble):
    """Nothing more is to be had from this team."""


class _Worker:
    """One process's side: a peer, and the keys that are this process's own."""

    def __init__(self, peer: Peer, number: int) -> None:
        self._peer, self._number, self._fresh = peer, number, count()
        self._payloads: dict[int, Iterator[bytes]] = {}

    def timed(self, order: Order) -> tuple[float, float]:
        """Carry an order out: the moments of its beginning and its end."""
        if order.operation in ("acquire", "release"):
            return self._half(order.operation)
        deed, keys = self._deed(order), self._keys(order)
        while time.monotonic() < order.begins:
            pass
        began = time.monotonic()
        for key in keys:
            deed(key)
        return began, time.monotonic()

    def _half(self, operation: str) -> tuple[float, float]:
        began = time.monotonic()
        getattr(self._peer, operation)("handed over")
        return began, time.monotonic()

    def _keys(self, order: Order) -> list[str]:
        own = f"{self._number} {order.size}"
        if order.operation == "miss":
            return [f"{own} fresh {next(self._fresh)}" for _ in range(order.calls)]
        kind = order.operation if order.operation in ("hit", "lock") else "key"
        return [f"{own} {kind} {number}" for number in range(order.calls)]

    def _deed(self, order: Order) -> Callable[[str], None]:
        peer, size = self._peer, order.size
        if order.operation == "write":
            payloads = self._payloads.setdefault(size, cycle([os.urandom(size) for _ in range(3)]))
            return lambda key: peer.write(key, next(payloads))
        if order.operation == "lock":
            return self._pair
        asked: dict[str, Callable[[str], bool]] = {
            "read": lambda key: len(peer.read(key)) == size,
            "exists": lambda key: peer.exists(key),
            "hit": lambda key: len(peer.call(key, size)) == size,
            "miss": lambda key: len(peer.call(key, size)) == size,
            "map": lambda key: len(peer.map(self._many(key, order.many), size)) == order.many,
        }
        return lambda key: _require(asked[order.operation](key))

    def _pair(self, key: str) -> None:
        self._peer.acquire(key)
        self._peer.release(key)

    def _many(self, key: str, many: int) -> list[str]:
        number = next(self._fresh)
        return [f"{key} many {number} {one}" for one in range(many)]


def _require(right: bool) -> None:
    if not right:
        raise Trouble("gave a wrong answer")


def _work(pipe: Connection, contestant: Contestant, place: Place, number: int) -> None:
    """A process: makes its peer, then does as it is told until it is told nothing."""
    logging.disable(logging.WARNING)
    os.environ |= place.environment
    try:
        peer = contestant.make(place)
    except Exception as error:
        pipe.send(_told(error))
        return
    worker = _Worker(peer, number)
    pipe.send([operation for operation, method in NEEDS.items() if hasattr(peer, method)])
    while (order := pipe.recv()) is not None:
        try:
            pipe.send(worker.timed(order))
        except Exception as error:
            pipe.send(_told(error))
    peer.close()


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


class Team:
    """So many processes of one peer."""

    def __init__(self, contestant: Contestant, place: Place, processes: int) -> None:
        self.contestant, self.processes = contestant, processes
        context = multiprocessing.get_context("spawn")
        self._members: list[tuple[Any, Connection]] = []
        for number in range(processes):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, contestant, place, number), daemon=True)
            process.start()
            theirs.close()
            self._members.append((process, ours))

    def operations(self) -> list[str]:
        """What the peer can do; waits until all processes are ready."""
        return list(self._answers()[0])

    def seconds(self, order: Order) -> float:
        """How long all processes took to carry an order out, divided by all calls."""
        order = order._replace(begins=time.monotonic() + _AHEAD)
        for _, pipe in self._members:
            pipe.send(order)
        moments = self._answers()
        took = max(ended for _, ended in moments) - min(began for began, _ in moments)
        return float(took / (order.calls * self.processes))

    def handed_over(self, wait: float) -> float:
        """Seconds from when the first process lets a lock go to when the second has it.

        Parameters:
            wait: seconds for which the second one has been waiting by then.
        """
        acquire, release = Order("acquire", 0, 1), Order("release", 0, 1)
        (_, first), (_, second) = self._members[:2]
        first.send(acquire)
        _answer(first)
        second.send(acquire)
        time.sleep(wait)
        first.send(release)
        let_go, _ = _answer(first)
        _, had = _answer(second)
        second.send(release)
        _answer(second)
        return float(had - let_go)

    def end(self) -> None:
        """End the processes: those that are in the middle of something by force."""
        for _, pipe in self._members:
            try:
                pipe.send(None)
            except OSError:
                continue
        for process, _ in self._members:
            process.join(10)
            if process.is_alive():
                process.kill()
                process.join()

    def _answers(self) -> list[Any]:
        """What each process says; all are heard before trouble of one is raised."""
        said = [_heard(pipe) for _, pipe in self._members]
        return [_untroubled(answer) for answer in said]


def _answer(pipe: Connection) -> Any:
    return _untroubled(_heard(pipe))


def _heard(pipe: Connection) -> Any:
    if not pipe.poll(_PATIENCE):
        raise Silence(f"no answer for {_PATIENCE:.0f} s")
    try:
        return pipe.recv()
    except EOFError:
        raise Silence("its process died") from None


def _untroubled(answer: Any) -> Any:
    if isinstance(answer, str):
        raise Trouble(answer)
    return answer


@contextmanager
def team(contestant: Contestant, place: Place, processes: int) -> Iterator[Team]:
    """A team that ends with the block."""
    members = Team(contestant, place, processes)
    try:
        yield members
    finally:
        members.end()
