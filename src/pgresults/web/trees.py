"""Plain values as trees of which a page shows some: what is left out is a link away."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

from pgresults.errors import InvalidArgument

_MOST_SHOWN = 40_000
_NODE = 40
"""Characters that are shown at most, and what a value counts for beside its own."""
_MOST_CHILDREN = 100
_DEEPEST = 12
_LONGEST = 2_000
_OPEN = 3


class More(NamedTuple):
    """Where a tree goes on: the place of a container in the value, from which of its items on, and how many follow."""

    place: str
    start: int
    left: int


@dataclass
class Node:
    """A value in a tree.

    Parameters:
        name: under which it is in its container; None: at the top, or in a list.
        kind: ``container``, ``string``, ``number`` or ``constant``.
        text: it, or how much a container holds.
        children: what a container holds, as far as it is shown.
        more: where the rest of it is; None: nothing is left out.
        cut: of how many characters a text is, of which not all are shown.
        is_open: whether a container is shown with what it holds.
    """

    name: str | None
    kind: str
    text: str
    children: list["Node"] = field(default_factory=list)
    more: More | None = None
    cut: int | None = None
    is_open: bool = False


def tree(value: Any, place: str = "", start: int = 0) -> Node:
    """A value, or a part of it.

    Parameters:
        value: made of dicts, lists, tuples, sets, texts, numbers and constants.
        place: which part: the numbers of items on the way to it, with full stops between them; empty: all of it.
        start: from which item of it on.

    Raises: InvalidArgument for a place that is none.
    """
    left = [_MOST_SHOWN]
    return _node(None, _part(value, place), place, start, 0, left)


def _part(value: Any, place: str) -> Any:
    for step in place.split(".") if place else ():
        items = _items(value) if step.isascii() and step.isdecimal() and len(step) < len("1000000000") else None
        found = None if items is None else next(islice(items, int(step), None), None)
        if found is None:
            raise InvalidArgument("the value has no such part", argument="at", value=place)
        value = found[1]
    return value


def _items(value: Any) -> Iterator[tuple[str | None, Any]] | None:
    """What a container holds, each under its name; None for what holds nothing."""
    if isinstance(value, Mapping):
        return ((name if isinstance(name, str) else _written(name), one) for name, one in value.items())
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, str | bytes | bytearray):
        return ((None, one) for one in value)
    return None


def _node(name: str | None, value: Any, place: str, start: int, depth: int, left: list[int]) -> Node:
    left[0] -= _NODE
    items = _items(value)
    if items is None:
        leaf = _leaf(name, value)
        left[0] -= len(leaf.text) + len(name or "")
        return leaf
    number = len(value)
    kinds: dict[type, tuple[str, str]] = {dict: ("{", "}"), list: ("[", "]"), tuple: ("(", ")")}
    opening, closing = kinds.get(type(value), ("{", "}"))
    node = Node(name, "container", f"{opening} {number:,} {closing}" if number else f"{opening}{closing}")
    node.is_open = depth < _OPEN
    at = start
    for child_name, child in islice(items, start, start + _MOST_CHILDREN):
        if left[0] <= 0 or depth >= _DEEPEST:
            break
        inner = f"{place}.{at}" if place else str(at)
        node.children.append(_node(child_name, child, inner, 0, depth + 1, left))
        at += 1
    if at < number:
        node.more = More(place, at, number - at)
    return node


def _leaf(name: str | None, value: Any) -> Node:
    if isinstance(value, str):
        shown = value[:_LONGEST]
        return Node(name, "string", shown, cut=len(value) if len(value) > _LONGEST else None)
    if value is None or isinstance(value, bool):
        return Node(name, "constant", {None: "null", True: "true", False: "false"}[value])
    text = _written(value)
    kind = "number" if isinstance(value, int | float | complex) else "string"
    return Node(name, kind, text[:_LONGEST], cut=len(text) if len(text) > _LONGEST else None)


def _written(value: Any) -> str:
    try:
        return repr(value)
    except ValueError:  # a number of too many digits
        return f"a number of {value.bit_length():,} bits"
