"""The statement over everything that happened in a storage, the newest first."""

from functools import cache
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, DateTime, Text, Uuid, and_, bindparam, func, or_, select
from sqlalchemy.dialects.postgresql import ARRAY

from pgresults.sql.compiled import Statement
from pgresults.sql.history import ENTRY_COLUMNS
from pgresults.sql.results import as_read
from pgresults.sql.schema import history


def _given(name: str, kind: Any) -> ColumnElement[Any]:
    return bindparam(name, type_=kind)


_TIME = DateTime(timezone=True)
_KEY = history.c.key.type
_STORAGE = bindparam("storage_id", type_=Uuid)
_LAST_KEY, _LAST_SEQ = _given("last_key", _KEY), _given("last_seq", BigInteger)
_LAST = history.alias("last")
# As the server has it: a time that was put beyond all that Python can say comes as the nearest that it can.
_LAST_AT = func.coalesce(
    select(_LAST.c.at)
    .where(_LAST.c.storage_id == _STORAGE, _LAST.c.key == _LAST_KEY, _LAST.c.seq == _LAST_SEQ)
    .scalar_subquery(),
    _given("last_at", _TIME),
)
_BEFORE_IN_KEY = and_(history.c.key == _LAST_KEY, history.c.seq < _LAST_SEQ)
FILTERS: dict[str, tuple[ColumnElement[bool], ...]] = {
    "since": (history.c.at >= _given("since", _TIME),),
    "until": (history.c.at < _given("until", _TIME),),
    "actor": (history.c.actor == _given("actor", Text),),
    "action": (history.c.action == _given("action", Text),),
    "prefix": (history.c.key >= _given("prefix", _KEY), history.c.key < _given("end", _KEY)),
    "tags": (history.c.tags.contains(_given("tags", ARRAY(Text))),),
    "last": (
        history.c.at <= _LAST_AT,
        or_(history.c.at < _LAST_AT, history.c.key > _LAST_KEY, _BEFORE_IN_KEY),
    ),
}
"""What picks entries; a choice of them makes one statement. Those after the ``last`` are of the next page."""


@cache
def log(chosen: frozenset[str]) -> Statement:
    """The newest entries that meet the chosen `FILTERS`, each with its key."""
    conditions = [condition for name in sorted(chosen) for condition in FILTERS[name]]
    said = [history.c[name] if name == "tags" else as_read(history, name) for name in ENTRY_COLUMNS]
    return Statement(
        select(history.c.key, *said)
        .where(history.c.storage_id == _STORAGE, *conditions)
        .order_by(history.c.at.desc(), history.c.key, history.c.seq.desc())
        .limit(_given("limit", BigInteger)),
        plan_anew=True,
    )
