"""The statements that read all there is, page by page, to recompute it."""

from collections.abc import Callable
from functools import cache
from operator import ge, gt
from typing import Any, TypeAlias

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    DateTime,
    MetaData,
    Select,
    Table,
    Text,
    Uuid,
    and_,
    bindparam,
    cast,
    column,
    exists,
    func,
    literal_column,
    or_,
    select,
    table,
    true,
    union,
    union_all,
)
from sqlalchemy.dialects.postgresql import OID

from pgresults.sql.compiled import Query, Statement
from pgresults.sql.schema import history, payload, result, storage
from pgresults.sql.times import as_utc, sayable

Follows: TypeAlias = Callable[[Any, Any], ColumnElement[bool]]
"""How keys go on: from one on, or after it."""

STORAGE = bindparam("storage_id", type_=Uuid)
_KEYS: ColumnElement[Any] = bindparam("keys", type_=ARRAY(Text))
_BOUND = bindparam("bound", type_=BigInteger)
_UNTIL = bindparam("until", type_=DateTime(timezone=True))
_LIMIT = bindparam("limit", type_=BigInteger)
_KEY = bindparam("key", type_=history.c.key.type)

_TRIGGERS = Table("pg_trigger", MetaData(schema="pg_catalog"))
_CLASSES = table("pg_class", column("oid", OID), column("relname"), schema="pg_catalog")

SEALED = and_(history.c.xid < _BOUND, history.c.at <= _UNTIL)
_SINCE = or_(history.c.xid >= _BOUND, history.c.at > _UNTIL)


class _Snapshot(Statement):
    """A command that is the same in every schema."""

    def __init__(self) -> None:
        self.changes = False
        self.query = cache(lambda _: Query(b"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))


SNAPSHOT = _Snapshot()
"""Have all further statements of a transaction see the same."""

CERTAIN = Statement(
    select(cast(cast(func.pg_snapshot_xmin(func.pg_current_snapshot()), Text), BigInteger), func.clock_timestamp())
)
"""The transaction before which all have ended, and the time."""

COUNT_KEYS = Statement(select(func.count()).select_from(result).where(result.c.storage_id == STORAGE))
"""How many keys there are or were."""


FIRST = -(2**63)
"""The least number that an entry may have, whoever gave it."""


_AFTER = bindparam("after", type_=history.c.key.type)


def _keys(table: Any, follows: Follows) -> Select[Any]:
    after = follows(table.c.key, _AFTER)
    return select(table.c.key).where(table.c.storage_id == STORAGE, after).distinct().order_by(table.c.key)


def _all_keys(follows: Follows) -> Statement:
    """Of every table: who tampers may have emptied one of them."""
    tables = (result, history, payload)
    pages = union(*(select(_keys(table, follows).limit(_LIMIT).subquery().c.key) for table in tables))
    found = pages.subquery()
    heads = and_(result.c.storage_id == STORAGE, result.c.key == found.c.key)
    return Statement(
        select(found.c.key, literal_column(str(FIRST), BigInteger), func.coalesce(result.c.seq, literal_column("1")))
        .select_from(found.outerjoin(result, heads))
        .order_by(found.c.key)
        .limit(_LIMIT)
    )


FIRST_KEYS, NEXT_KEYS = _all_keys(ge), _all_keys(gt)
"""A page of the keys there are, each with the first entry to read and about how many there are."""


# Transactions may write to a key in another order than that of their numbers: from its first one on, all count.
def _keys_since(follows: Follows) -> Statement:
    return Statement(
        select(history.c.key, func.min(history.c.seq), func.count())
        .where(history.c.storage_id == STORAGE, _SINCE, follows(history.c.key, _AFTER))
        .group_by(history.c.key)
        .order_by(history.c.key)
        .limit(_LIMIT),
        plan_anew=True,
    )


FIRST_KEYS_SINCE, NEXT_KEYS_SINCE = _keys_since(ge), _keys_since(gt)
"""A page of the keys with entries that no seal covers yet, with the first of these and about how many there are."""

COUNT_SINCE = Statement(
    select(func.count(), as_utc(func.min(history.c.at))).where(history.c.storage_id == STORAGE, _SINCE), plan_anew=True
)
"""How many entries no seal covers yet, and of when the oldest of them is."""

HAS_HISTORY = Statement(select(exists(select(history.c.seq).where(history.c.storage_id == STORAGE))), plan_anew=True)
"""Whether there is any entry."""

FIRST_SINCE = Statement(
    select(func.min(history.c.seq).filter(_SINCE), func.min(history.c.seq)).where(
        history.c.storage_id == STORAGE, history.c.key == _KEY
    )
)
"""The first entry of a key that no seal covers yet, and its first one of all."""

_NEXT = cast(cast(func.pg_snapshot_xmax(func.pg_current_snapshot()), Text), BigInteger)
HORIZON = Statement(select(_NEXT, func.timestamptz_send(func.clock_timestamp())))
"""The transaction that is the first of those to come, and the time."""

AHEAD = Statement(
    select(func.count()).select_from(history).where(history.c.storage_id == STORAGE, history.c.xid >= _NEXT)
)
"""How many entries name a transaction that is yet to come."""


def as_checked(table: Any, name: str) -> ColumnElement[Any]:
    """A column in a form that can be read whatever it holds: times as their bytes, objects as texts."""
    column: ColumnElement[Any] = table.c[name]
    match name:
        case "at" | "expires_at" | "created_at":
            return func.timestamptz_send(column)
        case "serializer" | "provenance":
            return cast(column, Text)
    return column


_given_keys = (
    func.unnest(_KEYS, bindparam("firsts", type_=ARRAY(BigInteger)))
    .table_valued(column("key", Text), column("first", BigInteger))
    .render_derived("given")
)
ENTRY_NAMES = tuple(history.c.keys())
_entry = (
    select(history)
    .where(history.c.storage_id == STORAGE, history.c.key == _given_keys.c.key, history.c.seq >= _given_keys.c.first)
    .order_by(history.c.seq)
    .limit(_LIMIT)
    .lateral("entry")
)
ENTRIES = Statement(
    select(*(as_checked(_entry, name) for name in ENTRY_NAMES)).select_from(_given_keys.join(_entry, true()))
)
"""The entries of some keys from a first one on, so many of each at most."""

ENTRIES_OF_ONE = Statement(
    select(*(as_checked(history, name) for name in ENTRY_NAMES))
    .where(
        history.c.storage_id == STORAGE,
        history.c.key == _KEY,
        history.c.seq >= bindparam("first", type_=BigInteger),
    )
    .order_by(history.c.seq)
    .limit(_LIMIT)
)
"""The entries of one key from a first one on, so many at most."""

BEFORE = Statement(
    select(history.c.key, history.c.digest).where(
        history.c.storage_id == STORAGE,
        history.c.key == _given_keys.c.key,
        history.c.seq == _given_keys.c.first - literal_column("1"),
    )
)
"""The digests of the entries that come right before."""

HEAD_NAMES = (*(name for name in ENTRY_NAMES if name != "xid"), "sha256", "created_at")
HEADS = Statement(
    select(*(as_checked(result, name) for name in HEAD_NAMES)).where(
        result.c.storage_id == STORAGE, result.c.key == func.any(_KEYS)
    )
)
"""The heads of keys."""

_named = (
    func.unnest(_KEYS, bindparam("payload_ids", type_=ARRAY(Uuid)))
    .table_valued(column("key", Text), column("payload_id", Uuid))
    .render_derived("named")
)
PAYLOADS = Statement(
    select(payload.c.key, payload.c.payload_id, payload.c.chunk, payload.c.data, payload.c.salt, payload.c.sha256)
    .where(
        payload.c.storage_id == STORAGE,
        payload.c.key == _named.c.key,
        payload.c.payload_id == _named.c.payload_id,
    )
    .order_by(payload.c.key, payload.c.payload_id, payload.c.chunk)
)
"""Some payloads of keys, chunk by chunk."""

_NAMED_BY_ENTRY = exists(
    select(history.c.seq).where(
        history.c.storage_id == payload.c.storage_id,
        history.c.key == payload.c.key,
        history.c.payload_id == payload.c.payload_id,
    )
)
STRAY = Statement(
    select(payload.c.key, payload.c.payload_id)
    .where(payload.c.storage_id == STORAGE, payload.c.key == func.any(_KEYS), ~_NAMED_BY_ENTRY)
    .distinct()
)
"""The payloads of keys that none of their entries names."""

NAME = Statement(select(storage.c.name).where(storage.c.id == STORAGE))
"""The name under which a storage is registered."""

_TABLES = {
    name: select(literal_column("tableoid")).select_from(table).limit(literal_column("1")).scalar_subquery()
    for name, table in (("history", history), ("result", result), ("payload", payload))
}


def _unguarded(of: str, trigger: str, modes: str) -> Select[Any]:
    """A table and its partitions, where a trigger is not on; found by a row, as far as there is something to keep."""
    row = select(_TABLES[of].label("id")).subquery("row")
    root = func.coalesce(func.pg_partition_root(row.c.id), row.c.id)
    top = select(root.label("id")).where(row.c.id.is_not(None)).cte(f"top_{of}_{trigger}")
    parts = func.pg_partition_tree(top.c.id).table_valued(column("relid")).lateral("parts")
    tables = union(select(top.c.id), select(cast(parts.c.relid, OID)).select_from(top).join(parts, true())).subquery()
    is_on: ColumnElement[bool] = literal_column(f"tgname = '{trigger}' AND tgenabled IN ({modes})")
    here: ColumnElement[bool] = literal_column("tgrelid") == tables.c.id
    on = exists(select(literal_column("1")).select_from(_TRIGGERS).where(here, is_on))
    name = select(_CLASSES.c.relname).where(_CLASSES.c.oid == tables.c.id).scalar_subquery()
    columns: tuple[ColumnElement[Any], ...] = (
        literal_column(f"'{trigger}'"),
        cast(name, Text),
        tables.c.id != select(top.c.id).scalar_subquery(),
    )
    return select(*columns).where(~on)


GUARDS = Statement(
    union_all(
        _unguarded("history", "append_only", "'A'"),
        _unguarded("history", "kept", "'A'"),
        *(
            _unguarded(of, trigger, "'O', 'A'")
            for of, trigger in (
                ("result", "record_entry"),
                *((of, trigger) for of in ("result", "payload") for trigger in ("keep_held", "keep_all_held")),
            )
        ),
    )
)
"""The triggers that keep the history and what is on hold, and are gone or off: where, and whether in a partition."""

WINDOWS = Statement(
    select(as_utc(history.c.at), history.c.db_user, history.c.reason)
    .where(history.c.storage_id == STORAGE, history.c.action == literal_column("'maintenance'"), _SINCE)
    .order_by(history.c.seq)
)
"""When, by whom and why the history was opened to changes, as far as no seal covers it."""

LEAVES = Statement(
    select(history.c.key, history.c.seq, history.c.digest, sayable(history.c.at), history.c.xid)
    .where(history.c.storage_id == STORAGE, SEALED)
    .order_by(history.c.key, history.c.seq)
)
"""What a seal covers."""
