"""What arrays and frames look like from outside: kept at the write, so that nobody has to load them to know."""

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

from pgresults.interruptions import is_interruption

OUTLINE = "object"
"""The name in a provenance under which it is kept."""

_MOST_COLUMNS = 100
_LONGEST_NAME = 100

_LIBRARIES = frozenset(("numpy", "pandas", "polars", "pyarrow"))


def outline_of(obj: Any, columns: bool = True) -> dict[str, Any] | None:
    """Type, shape, dtype and columns (name and dtype of each) of an array or a frame; None for all other objects.

    Costs one look at the name of its type's module; nothing is imported, and nothing of its contents is read.

    Parameters:
        obj: the object.
        columns: whether columns are said, too.
    """
    kind = type(obj)
    module = kind.__module__
    if module == "builtins" or module.partition(".")[0] not in _LIBRARIES:
        return None
    try:
        outline = _described(obj, kind)
    except Exception as error:  # it is only for people: no write fails of it
        if is_interruption(error):
            raise
        return None
    if outline is not None and not columns:
        outline = {name: said for name, said in outline.items() if name in ("type", "shape", "dtype")}
    return outline


def _described(obj: Any, kind: type) -> dict[str, Any] | None:
    shape, dtype = getattr(obj, "shape", None), getattr(obj, "dtype", None)
    if not isinstance(shape, tuple):
        return None
    library = kind.__module__.partition(".")[0]
    said: dict[str, Any] = {"type": f"{library}.{kind.__qualname__}", "shape": [int(length) for length in shape]}
    if dtype is not None:
        return said | {"dtype": _name(dtype)}
    if (columns := _COLUMNS.get(library, _none)(obj)) is None:
        return None
    said["columns"] = [[_name(name), _name(of)] for name, of in islice(columns, _MOST_COLUMNS)]
    return said | {"more_columns": shape[1] - _MOST_COLUMNS} if shape[1] > _MOST_COLUMNS else said


def _none(_obj: Any) -> None:
    return None


def _of_frame(frame: Any) -> Iterable[tuple[Any, Any]]:
    return zip(frame.columns, frame.dtypes, strict=True)


def _of_pyarrow(table: Any) -> Iterable[tuple[Any, Any]]:
    return zip(table.schema.names, table.schema.types, strict=True)


_COLUMNS: dict[str, Callable[[Any], Iterable[tuple[Any, Any]] | None]] = {
    "pandas": _of_frame,
    "polars": _of_frame,
    "pyarrow": _of_pyarrow,
}


def _name(of: Any) -> str:
    """A name that Postgres can keep."""
    return str(of)[:_LONGEST_NAME].replace("\0", "\\0").encode(errors="backslashreplace").decode()
