"""A plot of the figures as SVG: how many times as long as bare psycopg, over the size."""

from collections.abc import Iterator
from html import escape
from math import floor, log10
from pathlib import Path

from benchmarks.peers.comparing import label
from benchmarks.peers.contestants import Contestant
from benchmarks.peers.report import Run

_WIDTH, _TOP, _LEFT, _GAP = 960, 86, 62, 70
_PANEL_WIDTH, _PANEL_HEIGHT = 384, 320
_LEGEND_ROW, _LEGEND_COLUMNS = 22, 4
_PAPER, _INK, _FAINT = "#ffffff", "#24292f", "#d0d7de"  # paper of its own: it is read on light and on dark pages
_COLOURS = (
    "#c0392b", "#1f6fb2", "#1b8a5a", "#7d3c98", "#b9770e", "#4d5656", "#117a8b", "#a93286", "#5d4037", "#2e4a9e"
)  # fmt: skip


def write_plot(path: Path, run: Run) -> None:
    """Draw a run."""
    path.write_text(svg(run))


def svg(run: Run) -> str:
    """The picture: a panel for writes, one for reads, durable peers in whole lines and the others in dashes."""
    ratios = [one.ratio() for one in run.figures if one.operation in ("write", "read") and one.processes == 1]
    scale = _Scale(sorted({one.size for one in run.figures if one.operation == "write"}), ratios)
    rows = -(-len(_drawn(run)) // _LEGEND_COLUMNS)
    height = _TOP + _PANEL_HEIGHT + 54 + rows * _LEGEND_ROW
    box, font = f'viewBox="0 0 {_WIDTH} {height}"', 'font-family="system-ui, sans-serif"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {box} role="img" {font}>',
        "<title>Writing and reading, as a multiple of the time that bare psycopg takes</title>",
        f'<rect width="{_WIDTH}" height="{height}" rx="8" fill="{_PAPER}" stroke="{_FAINT}"/>',
        _text(_LEFT, 30, "How many times as long as bare psycopg", size=17, weight="bold"),
        _text(_LEFT, 50, "less is better; whole lines: on the disk when the call returns; dashes: not"),
    ]
    for number, operation in enumerate(("write", "read")):
        parts += _panel(run, operation, scale, _LEFT + number * (_PANEL_WIDTH + _GAP))
    parts += _legend(run, _TOP + _PANEL_HEIGHT + 60)
    return "\n".join([*parts, "</svg>", ""])


class _Scale:
    """From sizes and ratios to places within a panel: both logarithmic."""

    def __init__(self, sizes: list[int], ratios: list[float]) -> None:
        self.sizes = sizes
        self._low = floor(log10(min([1.0, *ratios])))
        self._high = max(log10(max([1.0, *ratios])) * 1.05, 1.0)

    def x(self, size: int) -> float:
        return self.sizes.index(size) * _PANEL_WIDTH / max(len(self.sizes) - 1, 1)

    def y(self, ratio: float) -> float:
        return _TOP + _PANEL_HEIGHT * (self._high - log10(ratio)) / (self._high - self._low)

    def lines(self) -> list[float]:
        """Ratios that have a line: the powers of ten."""
        return [10.0**power for power in range(self._low, floor(self._high) + 1)]


def _panel(run: Run, operation: str, scale: _Scale, left: float) -> Iterator[str]:
    yield _text(left, _TOP - 12, operation, weight="bold")
    for ratio in scale.lines():
        width, colour = (1.6, _INK) if ratio == 1 else (1, _FAINT)
        yield _line(left, scale.y(ratio), left + _PANEL_WIDTH, scale.y(ratio), colour, width)
        yield _text(left - 8, scale.y(ratio) + 4, f"{ratio:g}x", anchor="end")
    for size in scale.sizes:
        yield _text(left + scale.x(size), _TOP + _PANEL_HEIGHT + 20, label(size), anchor="middle")
    for number, peer in enumerate(run.peers):
        found = [run.figure(peer.name, operation, size, 1) for size in scale.sizes]
        points = [(left + scale.x(one.size), scale.y(one.ratio())) for one in found if one]
        if points:
            yield _curve(number, points, durable=peer.durable.startswith("yes"))


def _curve(number: int, points: list[tuple[float, float]], *, durable: bool) -> str:
    colour, dashes = _COLOURS[number % len(_COLOURS)], "" if durable else ' stroke-dasharray="5 4"'
    width = 3.4 if number == 0 else 1.9
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.2" fill="{colour}"/>' for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"{dashes}/>{dots}'


def _legend(run: Run, top: float) -> Iterator[str]:
    column = (_WIDTH - 2 * _LEFT) / _LEGEND_COLUMNS
    for place, peer in enumerate(_drawn(run)):
        x, y = _LEFT + place % _LEGEND_COLUMNS * column, top + place // _LEGEND_COLUMNS * _LEGEND_ROW
        yield _curve(run.peers.index(peer), [(x, y), (x + 30, y)], durable=peer.durable.startswith("yes"))
        yield _text(x + 38, y + 4, peer.name)


def _drawn(run: Run) -> list[Contestant]:
    """Those that have a line."""
    writers = {one.peer for one in run.figures if one.operation in ("write", "read") and one.processes == 1}
    return [peer for peer in run.peers if peer.name in writers]


def _text(x: float, y: float, words: str, *, size: int = 13, anchor: str = "start", weight: str = "normal") -> str:
    style = f'fill="{_INK}" font-size="{size}" text-anchor="{anchor}" font-weight="{weight}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(words)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width}"/>'
