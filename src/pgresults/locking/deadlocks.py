"""Who waits for whom, and which of them has to give up."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from uuid import UUID

from pgresults.errors import DeadlockDetected
from pgresults.operations.waiting import Edge

AGE = 1.0
"""Seconds for which nothing has moved among those who are said to wait for each other."""


def deadlocked(edges: Sequence[Edge], ours: Collection[UUID]) -> dict[UUID, DeadlockDetected]:
    """Which of our waiters have to give up: of all that wait for each other the one that came last.

    Parameters:
        edges: who waits for whom. Everybody who looks at the same ones finds the same waiter.
        ours: the waiters that are asked about.
    """
    waits: dict[str, list[Edge]] = {}
    for edge in edges:
        waits.setdefault(edge.waiter, []).append(edge)
    reach = {holder: _reachable(holder, waits) for holder in waits}
    found = {}
    for edge in edges:
        if edge.id not in ours or edge.waiter not in reach.get(edge.holder, {edge.holder}):
            continue
        together = {holder for holder in reach[edge.holder] if edge.holder in reach.get(holder, ())} | {edge.holder}
        last = max(
            (one for one in edges if one.waiter in together and one.holder in together),
            key=lambda one: (one.since, one.id),
        )
        if last.id == edge.id:
            found[edge.id] = _error(_cycle(edge, waits))
    return found


def _reachable(holder: str, waits: Mapping[str, Iterable[Edge]]) -> set[str]:
    """Whom a holder waits for in the end, itself only if it does."""
    reached: set[str] = set()
    new = [holder]
    while new:
        for edge in waits.get(new.pop(), ()):
            if edge.holder not in reached:
                reached.add(edge.holder)
                new.append(edge.holder)
    return reached


def _cycle(edge: Edge, waits: Mapping[str, Iterable[Edge]]) -> list[Edge]:
    """A shortest way from who waits back to itself."""
    ways, seen = [[edge]], {edge.holder}
    while ways:
        way = ways.pop(0)
        if way[-1].holder == edge.waiter:
            return way
        for following in waits.get(way[-1].holder, ()):
            if following.holder not in seen or following.holder == edge.waiter:
                seen.add(following.holder)
                ways.append([*way, following])
    return [edge]


def _error(cycle: Sequence[Edge]) -> DeadlockDetected:
    first = cycle[0]
    chain = ", ".join(f"{edge.waiter} waits for {edge.key!r}, which {edge.holder} has" for edge in cycle)
    advice = (
        "take the keys of one piece of work in one order everywhere, sorted for example, or wait with a lock_timeout "
        "and begin anew"
    )
    if any(edge.through for edge in cycle):
        advice = (
            "a holder cannot go on before what it has started elsewhere, which asks for its lock as somebody else: "
            "start it with the context (asyncio.to_thread, or contextvars.copy_context().run in a thread), "
            "or let the lock go before"
        )
    return DeadlockDetected(
        f"deadlock: {chain}; {advice}",
        key=first.key,
        holder=first.holder,
        keys=tuple(edge.key for edge in cycle),
        holders=tuple(edge.holder for edge in cycle),
    )
