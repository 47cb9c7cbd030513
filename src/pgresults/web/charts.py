"""Charts as SVG that a page may have within a policy that allows no styles: each bar says in words what it is."""

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

_STEP, _GAP, _HEIGHT = 10, 2, 100
_TICKS = 4
_BAR = Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>')


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
    """Bars beside each other, with words around them that do not grow with the picture.

    Parameters:
        given: the bars, in order.
        described: what the chart is of, for who cannot see it.
        most: what the highest one stands for.
    """
    highest = max((bar.total for bar in given), default=0) or 1
    drawn: list[Markup] = []
    for place, bar in enumerate(given):
        floor = float(_HEIGHT)
        for kind, amount in bar.parts:
            height = max(1.0, amount / highest * _HEIGHT) if amount else 0.0
            floor -= height
            x, y, tall = f"{place * _STEP + _GAP / 2:.0f}", f"{max(0.0, floor):.1f}", f"{height:.1f}"
            drawn.append(_BAR.format(f"bar {kind}", x, y, _STEP - _GAP, tall, bar.said))
    last = len(given) - 1
    ticks = sorted({round(last * number / (_TICKS - 1)) for number in range(_TICKS)}) if given else []
    labels = Markup("").join(Markup("<span>{}</span>").format(given[place].label) for place in ticks)
    head = Markup("<figcaption>{}</figcaption>").format(f"up to {most}" if most else "")
    picture = Markup('<svg viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>').format(
        max(1, len(given)) * _STEP, _HEIGHT, described, Markup("").join(drawn)
    )
    foot = Markup('<div class="ticks" aria-hidden="true">{}</div>').format(labels)
    return Markup('<figure class="chart">{}{}{}</figure>').format(head, picture, foot)


def share(part: float, whole: float) -> Markup:
    """How much of a whole something is, as a line."""
    width = 100 * part / whole if whole else 0.0
    return Markup(
        '<svg class="share" viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="rest" width="100" height="4"/><rect class="bar main" width="{}" height="4"/></svg>'
    ).format(f"{width:.2f}")
