"""Arrays as Postgres takes them in binary, made at once: psycopg adapts one element after the other."""

import struct
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any, NamedTuple

_HEADER = struct.Struct("!iiIii")
_LENGTH = struct.Struct("!i").pack
_BIGINT = struct.Struct("!q").pack
_NULL = (_LENGTH(-1), b"")


class BinaryArray(NamedTuple):
    """An array of one dimension, as Postgres sends and receives it."""

    data: bytes


class ElementType(NamedTuple):
    """A type of Postgres' with the number it has there and how its values are written."""

    oid: int
    written: Callable[[Any], bytes]


BYTES = ElementType(17, bytes)
BIGINT = ElementType(20, _BIGINT)
TEXT = ElementType(25, str.encode)
UUIDS = ElementType(2950, attrgetter("bytes"))


def binary_array(kind: ElementType, values: Sequence[Any]) -> BinaryArray:
    """An array of values, of which some may be None."""
    written = kind.written
    parts = [_NULL if value is None else (_LENGTH(len(data := written(value))), data) for value in values]
    header = _HEADER.pack(1, _NULL in parts, kind.oid, len(parts), 1)
    return BinaryArray(b"".join(chain((header,), chain.from_iterable(parts))))


def array_text(elements: Iterable[str] | None) -> str | None:
    """Texts as the text of an array; None stays None."""
    if elements is None:
        return None
    quoted = (element.replace("\\", "\\\\").replace('"', '\\"') for element in elements)
    return "{" + ",".join(f'"{element}"' for element in quoted) + "}"
