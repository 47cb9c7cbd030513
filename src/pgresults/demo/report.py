"""What the results say, asked in SQL: they are JSON, so the server can look into the payloads."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    DateTime,
    Integer,
    MetaData,
    Table,
    Text,
    and_,
    any_,
    bindparam,
    cast,
    func,
    literal_column,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from pgresults.database.programs import call, perform
from pgresults.demo.modules import PREFIX
from pgresults.operations.requests import Execute, Operation, Row
from pgresults.sql.compiled import Statement
from pgresults.sql.results import UNEXPIRED
from pgresults.sql.schema import SCHEMA, payload, result
from pgresults.storage.postgres import PostgresStorage


class Totals(NamedTuple):
    """Sums over the results of a run."""

    results: int
    unparsable: int
    lines: int
    classes: int
    functions: int


class Complex(NamedTuple):
    """A function with the file it was found in."""

    complexity: int
    function: str
    file: str
    line: int
    lines: int


class Expiring(NamedTuple):
    """Results that cease to be live within the same hour; ``bytes`` of payload."""

    expires_at: datetime
    results: int
    bytes: int
    expired: bool


_WANTED = and_(
    result.c.storage_id == bindparam("storage_id"),
    result.c.key == any_(bindparam("keys", type_=ARRAY(Text))),
    result.c.payload_id.is_not(None),
    UNEXPIRED,
)
_STORED = result.join(
    payload,
    and_(
        payload.c.storage_id == result.c.storage_id,
        payload.c.key == result.c.key,
        payload.c.payload_id == result.c.payload_id,
    ),
)
# Materialized: a document is asked once for every function in it, and is to be parsed once.
_DOCUMENTS = (
    select(cast(func.convert_from(payload.c.data, literal_column("'UTF8'")), JSONB).label("document"))
    .select_from(_STORED)
    .where(_WANTED)
    .cte("documents")
    .prefix_with("MATERIALIZED")
)
_DOCUMENT = _DOCUMENTS.c.document
_FUNCTIONS = _DOCUMENT.op("->")(literal_column("'functions'"))
_FUNCTION = func.jsonb_array_elements(_FUNCTIONS).column_valued("function")


def _text(document: ColumnElement[JSONB], name: str) -> ColumnElement[str]:
    return document.op("->>", return_type=Text())(literal_column(f"'{name}'"))


def _number(document: ColumnElement[JSONB], name: str) -> ColumnElement[int]:
    return cast(_text(document, name), Integer)


def _sum(numbers: ColumnElement[int]) -> ColumnElement[int]:
    return cast(func.coalesce(func.sum(numbers), literal_column("0")), BigInteger)


_KEYS = Statement(select(result.c.key).where(_WANTED))

_SUMS: tuple[ColumnElement[Any], ...] = (
    func.count(),
    func.count(_text(_DOCUMENT, "error")),
    _sum(_number(_DOCUMENT, "lines")),
    _sum(_number(_DOCUMENT, "classes")),
    _sum(func.jsonb_array_length(_FUNCTIONS)),
)
_TOTALS = Statement(select(*_SUMS).select_from(_DOCUMENTS))

_FUNCTION_COLUMNS: tuple[ColumnElement[Any], ...] = (
    _number(_FUNCTION, "complexity").label("complexity"),
    _text(_FUNCTION, "name"),
    _text(_DOCUMENT, "file").label("file"),
    _number(_FUNCTION, "line").label("line"),
    _number(_FUNCTION, "lines"),
)
_MOST_COMPLEX = Statement(
    select(*_FUNCTION_COLUMNS)
    .select_from(_DOCUMENTS)
    .order_by(literal_column("complexity").desc(), literal_column("file"), literal_column("line"))
    .limit(bindparam("limit"))
)

_EXPIRATIONS = Table(
    "expirations",
    MetaData(schema=SCHEMA),
    Column("storage", Text),
    Column("key", Text),
    Column("expires_at", DateTime(timezone=True)),
    Column("expired", Boolean),
    Column("size", BigInteger),
)
_HOUR = func.date_trunc(literal_column("'hour'"), _EXPIRATIONS.c.expires_at, literal_column("'UTC'"))
_BY_HOUR = Statement(
    select(
        func.min(_EXPIRATIONS.c.expires_at),
        func.count(),
        _sum(_EXPIRATIONS.c.size),
        _EXPIRATIONS.c.expired,
    )
    .where(
        _EXPIRATIONS.c.storage == bindparam("storage"),
        func.starts_with(_EXPIRATIONS.c.key, bindparam("prefix")),
    )
    .group_by(_HOUR, _EXPIRATIONS.c.expired)
    .order_by(func.min(_EXPIRATIONS.c.expires_at))
)


def live_keys(storage: PostgresStorage, keys: Sequence[str]) -> set[str]:
    """Those of the keys that have a live result."""
    return {key for (key,) in _rows(storage, _KEYS, _place(storage, keys))}


def totals(storage: PostgresStorage, keys: Sequence[str]) -> Totals:
    """Sums over the live results of these keys."""
    return Totals(*_rows(storage, _TOTALS, _place(storage, keys))[0])


def most_complex(storage: PostgresStorage, keys: Sequence[str], limit: int = 10) -> list[Complex]:
    """The functions that branch most among the live results of these keys."""
    return [Complex(*row) for row in _rows(storage, _MOST_COMPLEX, {**_place(storage, keys), "limit": limit})]


def expirations(storage: PostgresStorage) -> list[Expiring]:
    """What expires when among the demo's results, by the hour."""
    rows = _rows(storage, _BY_HOUR, {"storage": storage.name, "prefix": PREFIX})
    return [Expiring(*row) for row in rows]


def _place(storage: PostgresStorage, keys: Sequence[str]) -> dict[str, object]:
    return {"storage_id": storage.id, "keys": list(keys)}


def _rows(storage: PostgresStorage, statement: Statement, parameters: dict[str, object]) -> list[Row]:
    def ask() -> Operation[list[Row]]:
        return (yield Execute(statement, parameters))

    return perform(call(storage.database, lambda _: ask()))
