"""Exported results as JSON lines, CSV or Parquet, and back."""

import base64
import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

from pydantic import ValidationError

from pgresults.audit.transfer import Exported
from pgresults.errors import ConfigurationError, SerializationError

try:
    import pyarrow
    import pyarrow.parquet as parquet
except ImportError:  # the extra `parquet` is not installed: said where one is read or written
    pyarrow = parquet = None

_NESTED = ("serializer", "tags", "provenance", "derived_from")
_BEGINS_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20", "'", "")
"""How cells begin that spreadsheets run, the wide forms too; with nothing, where all is white space."""
_ROWS_A_GROUP = 500
_BYTES_A_GROUP = 64 * 1024 * 1024


def write_jsonl(results: Iterable[Exported], file: IO[str]) -> None:
    """One JSON object a line, the payload in base64."""
    file.writelines(one.model_dump_json() + "\n" for one in results)


def read_jsonl(path: Path) -> Iterator[Exported]:
    """The results of such lines; raises SerializationError naming the line."""
    with path.open(encoding="utf-8-sig") as file, _readable(path):
        for number, line in enumerate(file, 1):
            yield _valid(partial(Exported.model_validate_json, line), path, number)


def write_csv(results: Iterable[Exported], file: IO[str]) -> None:
    """A heading and one line a result; what is nested as JSON, the payload in base64.

    A cell that a spreadsheet would take for a formula begins with an apostrophe, which reading takes away.
    """
    writer = csv.DictWriter(file, list(Exported.model_fields))
    writer.writeheader()
    for one in results:
        row = one.model_dump(mode="json")
        row |= {name: json.dumps(row[name]) for name in _NESTED if row[name] is not None}
        writer.writerow({name: f"'{cell}" if _is_run(cell) else cell for name, cell in row.items()})


def _is_run(cell: object) -> bool:
    """Whether a spreadsheet might run a cell, or hide an apostrophe in it."""
    return isinstance(cell, str) and cell.lstrip()[:1] in _BEGINS_FORMULA and cell != ""


def read_csv(path: Path) -> Iterator[Exported]:
    """The results of such lines; raises SerializationError naming the line."""
    csv.field_size_limit(sys.maxsize)
    with path.open(encoding="utf-8-sig", newline="") as file, _readable(path):
        for number, row in enumerate(csv.DictReader(file), 2):
            yield _valid(partial(_from_row, row), path, number)


def _from_row(row: dict[str, str]) -> Exported:
    if None in row or None in row.values():
        raise ValueError("it has more or fewer fields than the heading")
    given: dict[str, Any] = {name: text.removeprefix("'") for name, text in row.items() if text != ""}
    given |= {name: json.loads(given[name]) for name in _NESTED if name in given}
    return Exported.model_validate(
        given | {"payload": base64.b64decode(given.get("payload", ""), b"-_", validate=True)}
    )


def write_parquet(results: Iterable[Exported], path: Path) -> None:
    """A Parquet file: times as timestamps, the payload as bytes, what is nested as JSON."""
    _require_parquet()
    text, number = pyarrow.string(), pyarrow.int64()
    kinds = {"version": number, "size": number, "payload": pyarrow.binary()}
    kinds |= dict.fromkeys(("tags", "derived_from"), pyarrow.list_(text))
    kinds |= dict.fromkeys(("created_at", "expiration"), pyarrow.timestamp("us", tz="UTC"))
    schema = pyarrow.schema([(name, kinds.get(name, text)) for name in Exported.model_fields])
    with parquet.ParquetWriter(path, schema) as writer:
        for group in _groups(results):
            writer.write_table(pyarrow.Table.from_pylist([_columns(one) for one in group], schema=schema))


def _groups(results: Iterable[Exported]) -> Iterator[list[Exported]]:
    """The results, so many at a time, fewer where they are large."""
    group: list[Exported] = []
    for one in results:
        group.append(one)
        if len(group) == _ROWS_A_GROUP or sum(len(other.payload) for other in group) >= _BYTES_A_GROUP:
            yield group
            group = []
    if group:
        yield group


def _columns(one: Exported) -> dict[str, Any]:
    row = {name: getattr(one, name) for name in Exported.model_fields}
    row |= {name: json.dumps(row[name]) for name in ("serializer", "provenance") if row[name] is not None}
    return row | {"storage_block_id": one.storage_block_id and str(one.storage_block_id)}


def read_parquet(path: Path) -> Iterator[Exported]:
    """The results of such a file."""
    _require_parquet()
    try:
        file = parquet.ParquetFile(path)
        rows = (row for number in range(file.num_row_groups) for row in file.read_row_group(number).to_pylist())
        for number, row in enumerate(rows, 1):
            yield _valid(partial(_from_columns, row), path, number)
    except pyarrow.ArrowException as error:
        raise SerializationError(f"{path} is no Parquet file: {error}") from error


def _from_columns(row: dict[str, Any]) -> Exported:
    texts = {name: row[name] for name in ("serializer", "provenance") if row.get(name) is not None}
    return Exported.model_validate(row | {name: json.loads(text) for name, text in texts.items()})


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (UnicodeDecodeError, csv.Error) as error:
        raise SerializationError(f"{path} is no text in UTF-8 as export writes it: {error}") from error


def _valid(read: Callable[[], Exported], path: Path, number: int) -> Exported:
    try:
        return read()
    except ValidationError as error:
        first = error.errors()[0]
        fault = ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))
    except (ValueError, TypeError, RecursionError) as error:
        fault = str(error)
    raise SerializationError(f"{path}, row {number}, is no exported result: {fault}")


def _require_parquet() -> None:
    if pyarrow is None:
        raise ConfigurationError("Parquet needs an extra: pip install 'pgresults[parquet]'; or take jsonl or csv")
