"""The statements over the views that everybody may ask: which results there are, and how they come and go."""

from collections.abc import Callable
from functools import cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    DateTime,
    MetaData,
    Table,
    Text,
    Uuid,
    bindparam,
    cast,
    func,
    literal_column,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY, INTERVAL, JSONB

from pgresults.sql.compiled import Statement
from pgresults.sql.prefixes import begins
from pgresults.sql.schema import SCHEMA, storage
from pgresults.sql.sums import capped
from pgresults.sql.times import as_utc, sayable

_views = MetaData(schema=SCHEMA)


def _view(name: str, **columns: Any) -> Table:
    return Table(name, _views, *(Column(column, kind) for column, kind in columns.items()))


_TIME = DateTime(timezone=True)
_LIVE = _view(
    "live_results",
    storage_id=Uuid,
    key=Text(collation="C"),
    version=BigInteger,
    created_at=_TIME,
    expires_at=_TIME,
    size=BigInteger,
    serializer=Text,
    tags=ARRAY(Text),
    provenance=JSONB,
    task=Text,
    flow=Text,
)
EXPIRATIONS = _view("expirations", storage_id=Uuid, expires_at=_TIME, size=BigInteger)
HELD_LOCKS = _view("held_locks", storage=Text, waiting_holders=ARRAY(Text))
_HISTORY = _view("result_history", storage_id=Uuid, action=Text, at=_TIME, size=BigInteger)
_USAGE = _view(
    "storage_usage",
    storage_id=Uuid,
    keys=BigInteger,
    live=BigInteger,
    live_bytes=BigInteger,
    expired_bytes=BigInteger,
    last_change=_TIME,
)

_KEY = _LIVE.c.key.type


def _given(name: str, kind: Any) -> ColumnElement[Any]:
    return bindparam(name, type_=kind)


FILTERS: dict[str, tuple[ColumnElement[bool], ...]] = {
    "prefix": begins(_LIVE.c.key),
    "tags": (_LIVE.c.tags.contains(_given("tags", ARRAY(Text))),),
    "task": (_LIVE.c.task == _given("task", Text),),
    "flow": (_LIVE.c.flow == _given("flow", Text),),
    "written_after": (_LIVE.c.created_at >= _given("written_after", _TIME),),
    "written_before": (_LIVE.c.created_at < _given("written_before", _TIME),),
    "expires_before": (_LIVE.c.expires_at < _given("expires_before", _TIME),),
    "min_size": (_LIVE.c.size >= _given("min_size", BigInteger),),
    "max_size": (_LIVE.c.size <= _given("max_size", BigInteger),),
}
"""What picks live results; a choice of them makes one statement."""


_AS_READ: dict[str, Callable[[ColumnElement[Any]], ColumnElement[Any]]] = {
    "expires_at": as_utc,
    "created_at": sayable,
    "provenance": lambda column: cast(column, Text),
}


def _as_it_is(column: ColumnElement[Any]) -> ColumnElement[Any]:
    return column


@cache
def find(chosen: frozenset[str], *, few: bool = False) -> Statement:
    """A page of live results that meet the chosen `FILTERS`, by key, after a key.

    ``few``: not many meet them, so they are found first and then sorted.
    """
    conditions = [condition for name in sorted(chosen) for condition in FILTERS[name]]
    columns = [_AS_READ.get(column.name, _as_it_is)(column) for column in _LIVE.c if column.name != "storage_id"]
    return Statement(
        select(*columns)
        .where(
            _LIVE.c.storage_id == bindparam("storage_id", type_=Uuid), _LIVE.c.key > _given("after", _KEY), *conditions
        )
        .order_by(_LIVE.c.key.concat(literal_column("''")) if few else _LIVE.c.key)  # no index has the former
        .limit(_given("limit", BigInteger)),
        plan_anew=True,
    )


STORAGES = Statement(
    select(
        storage.c.name,
        storage.c.created_at,
        *(func.coalesce(_USAGE.c[name], literal_column("0")) for name in ("keys", "live", "live_bytes")),
        sayable(_USAGE.c.last_change),
    )
    .select_from(storage.outerjoin(_USAGE, _USAGE.c.storage_id == storage.c.id))
    .order_by(storage.c.name)
)
"""Every registered storage with what it has."""


def _daily(view: Table, moment: Column[Any], *conditions: ColumnElement[bool]) -> Statement:
    day = func.date_trunc(literal_column("'day'"), as_utc(moment)).label("day")
    return Statement(
        select(day, func.count(), capped(func.sum(view.c.size)))
        .where(view.c.storage_id == bindparam("storage_id", type_=Uuid), *conditions)
        .group_by(literal_column("1"))
        .order_by(literal_column("1")),
        plan_anew=True,
    )


_SPAN = bindparam("span", type_=INTERVAL)

EXPIRING_DAILY = _daily(
    EXPIRATIONS,
    EXPIRATIONS.c.expires_at,
    EXPIRATIONS.c.expires_at > func.statement_timestamp(),
    EXPIRATIONS.c.expires_at <= func.statement_timestamp() + _SPAN,
)
"""How many results and bytes expire on each day to come."""

WRITTEN_DAILY = _daily(
    _HISTORY,
    _HISTORY.c.at,
    _HISTORY.c.action.in_((literal_column("'write'"), literal_column("'import'"))),
    _HISTORY.c.at > func.statement_timestamp() - _SPAN,
    _HISTORY.c.at <= func.statement_timestamp(),
)
"""How many versions and bytes were written on each day past."""
