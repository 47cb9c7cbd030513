"""Picking keys by what they begin with."""

from typing import Any

from sqlalchemy import Boolean, ColumnElement, Text, bindparam, case, cast, func, literal_column, or_, true

_IN_ORDER = ("'UTF8'", "'LATIN1'", "'SQL_ASCII'")
"""The encodings whose bytes are in the order of the characters' numbers, by which the end is found."""


def begins(key: ColumnElement[Any]) -> tuple[ColumnElement[bool], ...]:
    """Whether a key begins with ``prefix``, so that an index can answer it; ``end``: see `records.keys.prefix_end`.

    Where an encoding has the last character in another order, the server refuses it as no boolean.
    """
    prefix, end = (bindparam(name, type_=key.type) for name in ("prefix", "end"))
    encoding = func.getdatabaseencoding()
    is_plain: ColumnElement[bool] = prefix.op("~")(literal_column("'[\\x01-\\x7f]$'"))
    why = func.concat(literal_column("'a prefix that ends in no ASCII character, in a database in '"), encoding)
    findable = or_(encoding.in_(map(literal_column, _IN_ORDER)), is_plain)
    return key >= prefix, key < end, case((findable, true()), else_=cast(cast(why, Text), Boolean))
