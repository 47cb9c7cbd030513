"""Lists of what was found, which a notebook shows as a table and pandas takes as a frame."""

import reprlib
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from datetime import datetime
from html import escape
from typing import Any, TypeVar

from pgresults.errors import ConfigurationError

T = TypeVar("T")

_SHOWN = 50
_LONGEST = 80


class Listing(list[T]):
    """A list of results, entries or the like.

    Parameters:
        items: what is in it.
        kind: of what class they are, a named tuple or dataclass.
    """

    def __init__(self, items: Iterable[T], kind: type[T]) -> None:
        super().__init__(items)
        self._kind = kind

    def to_pandas(self) -> Any:
        """The list as a frame of pandas, a column for each field.

        Raises: ConfigurationError when pandas is not installed.
        """
        try:
            import pandas as pd  # type: ignore[import-untyped,unused-ignore]
        except ImportError as error:
            raise ConfigurationError("to_pandas() needs pandas: pip install pandas", setting="pandas") from error
        return pd.DataFrame(self._rows(self), columns=self._columns())

    def _repr_html_(self) -> str:
        """The list as a notebook shows it."""
        if not self:
            return "<p><i>nothing</i></p>"
        more = f"<p>… and {len(self) - _SHOWN:,} more</p>" if len(self) > _SHOWN else ""
        return html_table(self._columns(), self._rows(self[:_SHOWN])) + more

    def _columns(self) -> list[str]:
        if is_dataclass(self._kind):
            return [field.name for field in fields(self._kind)]
        return list(self._kind._fields)  # type: ignore[attr-defined] # the other kind is a named tuple

    def _rows(self, items: Iterable[T]) -> list[list[Any]]:
        names = self._columns()
        return [[getattr(item, name) for name in names] for item in items]


def shortened(value: object) -> str:
    """An object as it shows itself, so far as that is short."""
    return reprlib.repr(value)


def html_table(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A table of HTML; everything in it is escaped, for keys and reasons are anybody's."""
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: object) -> str:
    text = "" if value is None else f"{value:%Y-%m-%d %H:%M:%S}Z" if isinstance(value, datetime) else str(value)
    if len(text) > _LONGEST:
        return f'<td title="{escape(text[:1000])}">{escape(text[:_LONGEST])}…</td>'
    return f"<td>{escape(text)}</td>"
