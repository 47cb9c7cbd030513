"""Rows and records: for people, as wide as their terminal is; in a pipe exact, tab-separated and without a heading."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import typer
from rich.cells import cell_len
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from pgresults.cli.output import note, shown, terminal

_SIZES = ("size", "bytes")
_TITLES = {"created_at": "written", "expires_at": "expires", "expiration": "expires"}
_GAP = 2
_FOLDED = 16
_FOLDED_KEY = 28
"""Cells to which a column of texts, or of keys, may be folded; where there is less, rows stand one below the other."""

_NAMED_BY_NUMBER = ("version", "fence", "pid", "backend_pid")
"""Numbers of which nobody counts the thousands."""

_UNITS = (
    (timedelta(days=1), "d"),
    (timedelta(hours=1), "h"),
    (timedelta(minutes=1), "min"),
    (timedelta(seconds=1), "s"),
)
_FAR = timedelta(days=60)


def print_rows(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    spare: Sequence[str] = (),
    whole: Sequence[str] = (),
) -> None:
    """Print rows.

    Parameters:
        columns: the names of the values, which say what is a size.
        rows: the values.
        spare: columns that are left out, the first one first, where the terminal is too narrow for all.
        whole: columns whose words are copied, and not folded.
    """
    if not terminal.is_terminal:
        for row in rows:
            typer.echo("\t".join(map(_exact, row)))
        return
    given = list(rows)
    if not given:
        note("nothing here")
        return
    kept = [number for number in range(len(columns)) if any(row[number] not in (None, "", []) for row in given)]
    names = [columns[number] for number in kept]
    cells = [[(person(columns[number], row[number]), _is_text(row[number])) for number in kept] for row in given]
    dropped = iter(spare)
    while not _fits(names, cells, whole) and (name := next(dropped, None)) is not None:
        if name in names:
            place = names.index(name)
            names.pop(place)
            cells = [[*row[:place], *row[place + 1 :]] for row in cells]
    if _fits(names, cells, whole):
        _print_table(names, cells, whole)
    else:
        _print_blocks(names, cells)


def print_record(record: Mapping[str, object]) -> None:
    """Print what is said of one thing, a line for each; times and sizes both exact and for people."""
    if not terminal.is_terminal:
        print_rows(("", ""), record.items())
        return
    _print_blocks(list(record), [[(_both(name, value), True) for name, value in record.items()]])


def person(name: str, value: object) -> str:
    """A value for people: sizes and times rounded, everything else as it is."""
    match value:
        case datetime():
            return ago(value)
        case list():
            return shown(", ".join(map(str, value)))
        case int() if _is_size(name) and not isinstance(value, bool):
            return decimal(value)
        case int() if name in _NAMED_BY_NUMBER:
            return str(value)
    return shown(value)


def ago(moment: datetime, now: datetime | None = None) -> str:
    """How long ago a moment was or how soon it is to come; its date where that is months away."""
    distance = moment - (now or datetime.now(UTC))
    if abs(distance) > _FAR:
        return f"{moment.astimezone(UTC):%Y-%m-%d}"
    unit, name = next((one for one in _UNITS if abs(distance) >= one[0]), _UNITS[-1])
    number = abs(distance) // unit
    if not number:
        return "now"
    return f"in {number} {name}" if distance > timedelta() else f"{number} {name} ago"


def _both(name: str, value: object) -> str:
    match value:
        case datetime():
            return f"{shown(value)} ({ago(value)})"
        case int() if _is_size(name) and not isinstance(value, bool) and value >= 1000:
            return f"{decimal(value)} ({value:,} bytes)"
    return person(name, value)


def _is_size(name: str) -> bool:
    return name.replace("_", " ").split(" ")[-1] in _SIZES


def _is_text(value: object) -> bool:
    return value is not None and not isinstance(value, int | float | datetime)


def _least(name: str, cells: Sequence[tuple[str, bool]], whole: Sequence[str]) -> int:
    """The cells that a column needs at least."""
    widest = max(cell_len(text) for text, _ in cells)
    if name not in whole and any(foldable for _, foldable in cells):
        widest = min(widest, _FOLDED_KEY if name == "key" else _FOLDED)
    return max(cell_len(_title(name)), widest)


def _fits(names: Sequence[str], cells: Sequence[Sequence[tuple[str, bool]]], whole: Sequence[str]) -> bool:
    """Whether no column has to be narrower than can be read."""
    columns = zip(names, zip(*cells, strict=True), strict=True)
    return sum(_least(name, column, whole) + _GAP for name, column in columns) - _GAP <= terminal.width


def _widths(names: Sequence[str], columns: Sequence[Sequence[tuple[str, bool]]], whole: Sequence[str]) -> list[int]:
    """The width of each column, where all fit; what is left over goes to those that would be folded.

    It is not left to rich, which cuts off what it has no room for.
    """
    widths = [_least(name, column, whole) for name, column in zip(names, columns, strict=True)]
    left = terminal.width - sum(widths) - _GAP * (len(names) - 1)
    needs = [max(cell_len(text) for text, _ in column) - width for column, width in zip(columns, widths, strict=True)]
    short = sorted((number for number, need in enumerate(needs) if need > 0), key=needs.__getitem__)
    for place, number in enumerate(short):
        more = min(needs[number], left // (len(short) - place))
        widths[number] += more
        left -= more
    return widths


def _print_table(names: Sequence[str], cells: Sequence[Sequence[tuple[str, bool]]], whole: Sequence[str]) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    columns = list(zip(*cells, strict=True))
    for name, column, width in zip(names, columns, _widths(names, columns, whole), strict=True):
        text = any(foldable for _, foldable in column)
        table.add_column(_title(name), overflow="fold", width=width, justify="left" if text else "right")
    for row in cells:
        table.add_row(*(Text(cell) for cell, _ in row))
    terminal.print(table)


def _print_blocks(names: Sequence[str], cells: Sequence[Sequence[tuple[str, bool]]]) -> None:
    """Each row as lines of a name and a value, with an empty line between two rows."""
    for number, row in enumerate(cells):
        if number:
            terminal.print()
        table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), show_header=False)
        table.add_column(no_wrap=True, style="bold", min_width=max(cell_len(_title(name)) for name in names))
        table.add_column(overflow="fold")
        for name, (cell, _) in zip(names, row, strict=True):
            if cell:
                table.add_row(_title(name), Text(cell))
        terminal.print(table)


def _title(name: str) -> str:
    return _TITLES.get(name, name.replace("_", " "))


def _exact(value: object) -> str:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else shown(value)
