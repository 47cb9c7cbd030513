"""The statements over rules of retention: what they say, and what goes by them."""

from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    DateTime,
    MetaData,
    Table,
    Text,
    Uuid,
    bindparam,
    cast,
    extract,
    func,
    literal_column,
    select,
)
from sqlalchemy.dialects.postgresql import INTERVAL

from pgresults.sql.compiled import CallStatement, Statement
from pgresults.sql.guards import is_free
from pgresults.sql.schema import SCHEMA, result
from pgresults.sql.times import sayable

_views = MetaData(schema=SCHEMA)
_TIME = DateTime(timezone=True)
_RULES = Table(
    "retention_rules",
    _views,
    *(Column(name, Text) for name in ("prefix", "task", "reason", "actor", "db_user")),
    *(Column(name, INTERVAL) for name in ("age", "redact_after")),
    *(Column(name, Uuid) for name in ("id", "storage_id")),
    Column("tags", ARRAY(Text)),
    Column("versions", BigInteger),
    Column("since", _TIME),
)
_DUE = Table(
    "retention_due",
    _views,
    Column("storage_id", Uuid),
    Column("key", Text(collation="C")),
    Column("version", BigInteger),
    Column("action", Text),
    Column("due", _TIME),
    Column("payloads", BigInteger),
    Column("bytes", BigInteger),
    Column("held", Boolean),
    Column("rules", ARRAY(Uuid)),
)
_STORAGE = bindparam("storage_id", type_=Uuid)
_NOW: ColumnElement[Any] = func.statement_timestamp()

SET = CallStatement("set_rule", "storage_id", "covers", "keeps", "reason", "actor")
"""Set a rule; gives its id."""

END = CallStatement("end_rule", "storage_id", "id", "reason", "actor")
"""End a rule; gives whether there was one."""


def _microseconds(span: ColumnElement[Any]) -> ColumnElement[Any]:
    return cast(extract("epoch", span) * literal_column("1000000"), BigInteger)


RULES = Statement(
    select(
        _RULES.c.id,
        _RULES.c.prefix,
        _RULES.c.tags,
        _RULES.c.task,
        _RULES.c.versions,
        _microseconds(_RULES.c.age),
        _microseconds(_RULES.c.redact_after),
        _RULES.c.reason,
        sayable(_RULES.c.since),
        _RULES.c.actor,
        _RULES.c.db_user,
    )
    .where(_RULES.c.storage_id == _STORAGE)
    .order_by(_RULES.c.since, _RULES.c.id)
)
"""The rules of a storage, the oldest first."""

DUE = Statement(
    select(
        _DUE.c.key,
        _DUE.c.version,
        _DUE.c.action,
        sayable(_DUE.c.due),
        _DUE.c.payloads,
        _DUE.c.bytes,
        _DUE.c.held,
        _DUE.c.rules,
    )
    .where(_DUE.c.storage_id == _STORAGE, _DUE.c.due <= _NOW + bindparam("within", type_=INTERVAL))
    .order_by(_DUE.c.due, _DUE.c.key, _DUE.c.version)
    .limit(bindparam("limit", type_=BigInteger)),
    plan_anew=True,
)
"""What goes by a storage's rules within a time from now, the next one first."""

KEYS = Statement(
    select(result.c.key)
    .where(result.c.storage_id == _STORAGE, result.c.key > bindparam("after", type_=result.c.key.type))
    .order_by(result.c.key)
    .limit(bindparam("limit", type_=BigInteger))
)
"""A page of keys."""

_whole = _DUE.c.action == literal_column("'redact'")
DUE_NOW = Statement(
    select(
        _DUE.c.key,
        func.max(_DUE.c.version),
        func.bool_or(_whole),
        func.coalesce(func.max(_DUE.c.payloads).filter(_whole), func.count()),
        _DUE.c.held,
        _DUE.c.rules,
    )
    .where(
        _DUE.c.storage_id == _STORAGE,
        _DUE.c.key == func.any(bindparam("keys", type_=ARRAY(Text))),
        _DUE.c.due <= _NOW,
        is_free(_DUE),
    )
    .group_by(_DUE.c.key, _DUE.c.held, _DUE.c.rules)
    .order_by(_DUE.c.key),
    plan_anew=True,
)
"""What goes now of some keys that nobody else has locked: up to which version, how many payloads, or all of it."""
