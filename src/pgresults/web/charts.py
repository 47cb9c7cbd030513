"""Charts as SVG that a page may have within a policy that allows no styles: each bar says in words what it is."""

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

_WIDTH, _HEIGHT, _FOOT = 720, 120, 16
_TICKS = 6
_BAR = Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>')
_LABEL = Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>')


class Bar(NamedTuple):
    """What a bar is of: a label below it, its parts from below, each a kind and an amount, and what is said of it."""

    label: str
    parts: Sequence[tuple[str, float]]
    said: str

    @property
    def total(self) -> float:
        """How high it is."""
        return sum(amount for _, amount in self.parts)


def bars(given: Sequence[Bar], described: str, most: str = "") -> Markup:
    """Bars beside each other.

    Parameters:
        given: the bars, in order.
        described: what the chart is of, for who cannot see it.
        most: what the highest one stands for.
    """
    highest = max((bar.total for bar in given), default=0) or 1
    width = _WIDTH / max(1, len(given))
    drawn: list[Markup] = []
    for place, bar in enumerate(given):
        floor = float(_HEIGHT)
        for kind, amount in bar.parts:
            height = max(1.0, amount / highest * (_HEIGHT - 4)) if amount else 0.0
            floor -= height
            x, wide = f"{place * width + 1:.1f}", f"{max(1.0, width - 2):.1f}"
            drawn.append(_BAR.format(f"bar {kind}", x, f"{floor:.1f}", wide, f"{height:.1f}", bar.said))
    every = max(1, -(-len(given) // _TICKS))
    for place, bar in enumerate(given):
        if place % every == 0:
            drawn.append(_LABEL.format(f"{place * width + 1:.1f}", _HEIGHT + _FOOT - 3, "start", bar.label))
    if most:
        drawn.append(_LABEL.format(_WIDTH - 2, 11, "end", most))
    return Markup(
        '<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">'
        '<line class="axis" x1="0" y1="{}" x2="{}" y2="{}"/>{}</svg>'
    ).format(_WIDTH, _HEIGHT + _FOOT, described, _HEIGHT, _WIDTH, _HEIGHT, Markup("").join(drawn))


def share(part: float, whole: float) -> Markup:
    """How much of a whole something is, as a line."""
    width = 100 * part / whole if whole else 0.0
    return Markup(
        '<svg class="share" viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="rest" width="100" height="4"/><rect class="bar main" width="{}" height="4"/></svg>'
    ).format(f"{width:.2f}")
