"""Where versions of a lineage stand in a drawing: on the left what one was computed from, on the right what from it."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple, TypeAlias

from pgresults.audit.descent import LineageVersion
from pgresults.audit.lineage import Lineage

_WIDE, _TALL = 218, 46
_BOX_WIDE, _BOX_TALL = 190, 34
_MARGIN = 6
_LONGEST = 24
_MOST_IN_A_COLUMN = 12
_LEAST_BEND = 20


class Box(NamedTuple):
    """A version: where its box is, how its key ends, and whether it is the one that was asked about."""

    version: LineageVersion
    x: int
    y: int
    label: str
    is_start: bool


class Drawing(NamedTuple):
    """Boxes, lines between them as paths, the size of all, how many versions are left out, and whether that is all."""

    boxes: list[Box]
    lines: list[str]
    width: int
    height: int
    left_out: int
    complete: bool


_Spot: TypeAlias = tuple[int, str, str, int]
"""A version on the left (-1) or the right (1), where it may be both, or in the middle (0)."""
_Places: TypeAlias = Mapping[_Spot, tuple[int, int]]


def drawing(up: Lineage, down: Lineage) -> Drawing:
    """The drawing of a version's lineage in both directions."""
    columns: dict[int, list[LineageVersion]] = {0: [up.start]}
    for found, side in ((up, -1), (down, 1)):
        for version in found.versions[1:]:
            columns.setdefault(side * version.distance, []).append(version)
    left_out = sum(max(0, len(versions) - _MOST_IN_A_COLUMN) for versions in columns.values())
    columns = {number: versions[:_MOST_IN_A_COLUMN] for number, versions in columns.items()}
    boxes = list(_boxes(columns))
    places = {_spot(_side_of(box, boxes), box.version): (box.x, box.y) for box in boxes}
    return Drawing(
        boxes,
        [*_lines(up, places, -1), *_lines(down, places, 1)],
        (max(columns) - min(columns)) * _WIDE + _BOX_WIDE + 2 * _MARGIN,
        max(map(len, columns.values())) * _TALL + 2 * _MARGIN,
        left_out,
        up.complete and down.complete,
    )


def _boxes(columns: Mapping[int, list[LineageVersion]]) -> Iterator[Box]:
    first, tallest = min(columns), max(map(len, columns.values()))
    for number, versions in columns.items():
        above = (tallest - len(versions)) * _TALL // 2 + _MARGIN
        for place, version in enumerate(versions):
            x = (number - first) * _WIDE + _MARGIN
            yield Box(version, x, above + place * _TALL, _label(version.key), number == 0)


def _side_of(box: Box, boxes: list[Box]) -> int:
    middle = next(one.x for one in boxes if one.is_start)
    return (box.x > middle) - (box.x < middle)


def _spot(side: int, version: LineageVersion) -> _Spot:
    return side, version.storage, version.key, version.version


def _lines(found: Lineage, places: _Places, side: int) -> Iterator[str]:
    """A curve from each parent to what was computed from it."""
    for edge in found.edges:
        parent, child = (
            places.get(_spot(0, one)) or places.get(_spot(side, one)) for one in (edge.parent, edge.version)
        )
        if parent is None or child is None:
            continue
        x, y = parent[0] + _BOX_WIDE, parent[1] + _BOX_TALL // 2
        to_x, to_y = child[0], child[1] + _BOX_TALL // 2
        bend = max(_LEAST_BEND, (to_x - x) // 2)
        yield f"M{x} {y}C{x + bend} {y} {to_x - bend} {to_y} {to_x} {to_y}"


def _label(key: str) -> str:
    return key if len(key) <= _LONGEST else f"…{key[1 - _LONGEST :]}"
