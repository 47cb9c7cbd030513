"""Values as a page shows them: times, sizes, and texts of anybody's."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

from markupsafe import Markup, escape

from pgresults.records.texts import UNSHOWABLE, visible

_UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB", "EB")
_SPANS = (
    (timedelta(days=1), "d"),
    (timedelta(hours=1), "h"),
    (timedelta(minutes=1), "min"),
    (timedelta(seconds=1), "s"),
)
_FAR = timedelta(days=60)
_THOUSAND = 1000


def text(value: object) -> Markup:
    """A text with what cannot be shown as it is marked, and written as JSON does."""
    return Markup("").join(_parts(str(value)))


def _parts(value: str) -> Iterator[Markup]:
    start = 0
    for found in UNSHOWABLE.finditer(value):
        yield escape(value[start : found.start()])
        yield Markup('<span class="unshowable">{}</span>').format(visible(found[0]))
        start = found.end()
    yield escape(value[start:])


def size(number: int | None) -> str:
    """Bytes for people."""
    if number is None:
        return ""
    amount = float(number)
    for unit in _UNITS:
        if amount < _THOUSAND or unit == _UNITS[-1]:
            break
        amount /= _THOUSAND
    return f"{number:,} bytes" if unit == "bytes" else f"{amount:.1f} {unit}"


def count(number: int | None) -> str:
    """A number for people."""
    return "" if number is None else f"{number:,}"


def exact(moment: datetime | None) -> str:
    """A time to the second, in UTC."""
    return "" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"


def when(moment: datetime | None, now: datetime | None = None) -> Markup | str:
    """How long ago a time was or how soon it is to come, with the exact one as a title."""
    if moment is None:
        return ""
    distance = moment - (now or datetime.now(UTC))
    said = span(distance)
    if abs(distance) > _FAR:
        said = f"{moment.astimezone(UTC):%Y-%m-%d}"
    elif said != "now":
        said = f"in {said}" if distance > timedelta() else f"{said} ago"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(moment.isoformat(), exact(moment), said)


def span(length: timedelta) -> str:
    """How long something takes, in its largest unit."""
    unit, name = next((one for one in _SPANS if abs(length) >= one[0]), _SPANS[-1])
    number = abs(length) // unit
    return f"{number} {name}" if number else "now"


def lasting(length: timedelta) -> str:
    """How long something takes, exactly."""
    return str(length).removesuffix(", 0:00:00")


def day(of: date) -> str:
    """A day, shortly."""
    return f"{of:%d %b}"


def shortened(value: str, limit: int) -> str:
    """The beginning of a text."""
    return value if len(value) <= limit else f"{value[:limit]}…"


FILTERS: dict[str, Any] = {
    "text": text, "visible": visible, "size": size, "count": count, "exact": exact, "when": when,
    "shortened": shortened, "lasting": lasting,
}  # fmt: skip
"""What templates may show a value by."""
