"""The figures as tables of a page, between two marks."""

import os
import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from benchmarks.peers.comparing import KIB, MIB, Figure, label
from benchmarks.peers.contestants import BARE, Contestant

_ABSENT = "\N{EN DASH}"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


@dataclass
class Run:
    """What a run was like, and all that it found."""

    many: int
    """Calls in one `map`."""
    peers: list[Contestant] = field(default_factory=list)
    versions: tuple[str, ...] = ()
    figures: list[Figure] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    load: tuple[float, float] = (0.0, 0.0)
    """How many processes wanted a processor, in the minute before and in the last one."""

    def figure(self, peer: str, operation: str, size: int, processes: int) -> Figure | None:
        """One figure, or nothing where it was not measured."""
        wanted = (peer, operation, size, processes)
        return next((one for one in self.figures if (one.peer, one.operation, one.size, one.processes) == wanted), None)

    def spreads(self) -> list[float]:
        """How much the yardstick differed between rounds, operation by operation."""
        return [spread for one in self.figures if (spread := one.spread()) is not None]


def write_page(path: Path, run: Run) -> None:
    """Put the tables of a run in the place of those of the run before."""
    before, begun, rest = path.read_text().partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not begun or not ended:
        raise ValueError(f"{path} has no {BEGIN} … {END} to write between")
    path.write_text(f"{before}{BEGIN}\n\n{markdown(run)}\n\n{END}{after}")


def markdown(run: Run) -> str:
    """All tables of a run."""
    sizes = sorted({one.size for one in run.figures if one.operation in ("write", "read")})
    many = max((one.processes for one in run.figures), default=1)
    parts = [_machine(run), _contestants(run)]
    for operation, title in (("write", "A result written"), ("read", "A result read")):
        cells = [(label(size), operation, size, 1) for size in sizes]
        parts.append(_table(run, title, cells, _milliseconds))
    calls = [
        (f"{operation}, {label(size)}", operation, size, 1) for operation in ("hit", "miss") for size in (KIB, MIB)
    ]
    calls.append((f"`map` of {run.many:,}, a call", "map", KIB, 1))
    parts.append(_table(run, "A call of a cached function", calls, _per_call(run.many)))
    others = [(f"exists, {label(size)}", "exists", size, 1) for size in (KIB, MIB)]
    others += [("lock taken and given back", "lock", KIB, 1), ("lock handed over", "hand-over", KIB, many)]
    parts.append(_table(run, "Looking, and locks", others, _milliseconds))
    if many > 1:
        crowd = [(f"{name}, {label(size)}", name, size, many) for size in (KIB, MIB) for name in ("write", "read")]
        crowd += [(f"{name}, 1 KB", name, KIB, many) for name in ("hit", "miss")]
        crowd.append(("lock pair", "lock", KIB, many))
        parts.append(_table(run, f"{many} processes at once: calls a second of all together", crowd, _a_second))
    return "\n\n".join(part for part in parts if part)


Cell = tuple[str, str, int, int]


def _machine(run: Run) -> str:
    spreads, (before, after) = run.spreads(), run.load
    where = ", ".join((f"{os.cpu_count()} processors", f"Python {platform.python_version()}", *run.versions))
    said = (
        f"Measured on {datetime.now(UTC):%d %B %Y}: {where}. How quiet the machine was: {before:.1f} processes wanted "
        f"a processor before the run, {after:.1f} at its end"
    )
    if spreads:
        said += (
            f", and the middle half of the yardstick's own rounds lay {median(spreads):.0%} of their median apart (in "
            f"the middle of all operations; {max(spreads):.0%} at worst)"
        )
    return "\n".join([f"{said}.", *(f"\n- {line}." for line in run.left_out)])


def _contestants(run: Run) -> str:
    measured = {one.peer for one in run.figures}
    peers = [BARE, *(peer for peer in run.peers if peer.name in measured)]
    rows = [(peer.name, peer.versions(), peer.durable) for peer in peers]
    return _rendered("Who was measured", ("", "versions", "on the disk when the call returns?"), rows)


def _table(run: Run, title: str, cells: Sequence[Cell], shown: Callable[[Figure], str]) -> str:
    """A row for each peer that has any of the cells, a dash where it has not."""
    rows = []
    for peer in run.peers:
        found = [run.figure(peer.name, *cell[1:]) for cell in cells]
        if any(found):
            rows.append((_marked(peer), *(shown(one) if one else _ABSENT for one in found)))
    if not rows:
        return ""
    yardsticks = [_yardstick(run, cell, shown) for cell in cells]
    return _rendered(title, ("", *(cell[0] for cell in cells)), [(BARE.name + " ●", *yardsticks), *rows])


def _marked(peer: Contestant) -> str:
    return f"{peer.name} {'●' if peer.durable.startswith('yes') else '○'}"


def _yardstick(run: Run, cell: Cell, shown: Callable[[Figure], str]) -> str:
    """The yardstick's own figure: over all rounds with all peers."""
    rounds = [
        seconds for one in run.figures if (one.operation, one.size, one.processes) == cell[1:] for seconds in one.bare
    ]
    if not rounds:
        return _ABSENT
    return shown(Figure(BARE.name, *cell[1:], seconds=tuple(rounds), bare=tuple(rounds))).partition(" (")[0]


def _milliseconds(figure: Figure) -> str:
    return f"{_rounded(figure.median() * 1000)} ms ({_rounded(figure.ratio())})"


def _per_call(many: int) -> Callable[[Figure], str]:
    def shown(figure: Figure) -> str:
        divisor = many if figure.operation == "map" else 1
        return f"{_rounded(figure.median() * 1000 / divisor)} ms ({_rounded(figure.ratio())})"

    return shown


def _a_second(figure: Figure) -> str:
    return f"{_rounded(1 / figure.median())} ({_rounded(1 / figure.ratio())})"


def _rounded(number: float) -> str:
    """Two digits that count, or all before the point."""
    if number >= 10:
        return f"{number:,.0f}"
    return f"{number:.1f}" if number >= 1 else f"{number:.2g}" if number >= 0.001 else f"{number:.4f}"


def _rendered(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"### {title}", "", _row(columns), _row(["---"] * len(columns)), *map(_row, rows)]
    return "\n".join(lines)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
