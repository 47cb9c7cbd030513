"""Arrays as Postgres takes them in binary, made at once: psycopg adapts one element after the other."""

import struct
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
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
UUIDS = ElementType(2950, bytes)
"""They are given as their 16 bytes."""


def binary_array(kind: ElementType, values: Sequence[Any]) -> BinaryArray:
    """An array of values, of which some may be None."""
    with_nulls = None in values
    parts: Iterable[tuple[bytes, bytes]]
    if with_nulls:
        given = [None if value is None else kind.written(value) for value in values]
        parts = (_NULL if data is None else (_LENGTH(len(data)), data) for data in given)
    else:  # no step of it is Python's
        written = list(map(kind.written, values))
        parts = zip(map(_LENGTH, map(len, written)), written, strict=True)
    header = _HEADER.pack(1, with_nulls, kind.oid, len(values), 1)
    return BinaryArray(b"".join(chain((header,), chain.from_iterable(parts))))


def array_text(elements: Iterable[str] | None) -> str | None:
    """Texts as the text of an array; None stays None."""
    if elements is None:
        return None
    quoted = (element.replace("\\", "\\\\").replace('"', '\\"') for element in elements)
    return "{" + ",".join(f'"{element}"' for element in quoted) + "}"
