"""The statements that read all there is, page by page, to recompute it."""

from functools import cache
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    DateTime,
    Select,
    Text,
    Uuid,
    and_,
    bindparam,
    cast,
    func,
    literal_column,
    or_,
    select,
    union,
)

from pgresults.schema import history, payload, result
from pgresults.statements import Query, Statement

_STORAGE = bindparam("storage_id", type_=Uuid)
_KEYS: ColumnElement[Any] = bindparam("keys", type_=ARRAY(Text))
_BOUND = bindparam("bound", type_=BigInteger)
_UNTIL = bindparam("until", type_=DateTime(timezone=True))
_LIMIT = bindparam("limit", type_=BigInteger)

_SEALED = and_(history.c.xid < _BOUND, history.c.at <= _UNTIL)
_SINCE = or_(history.c.xid >= _BOUND, history.c.at > _UNTIL)


class _Snapshot(Statement):
    """A command that is the same in every schema."""

    def __init__(self) -> None:
        self.query = cache(lambda _: Query(b"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))


SNAPSHOT = _Snapshot()
"""Have all further statements of a transaction see the same."""

CERTAIN = Statement(
    select(cast(cast(func.pg_snapshot_xmin(func.pg_current_snapshot()), Text), BigInteger), func.clock_timestamp())
)
"""The transaction before which all have ended, and the time."""

COUNT_KEYS = Statement(select(func.count()).select_from(result).where(result.c.storage_id == _STORAGE))
"""How many keys there are or were."""


def _keys(table: Any, *conditions: ColumnElement[bool]) -> Select[Any]:
    after = table.c.key > bindparam("after", type_=history.c.key.type)
    page = select(table.c.key).where(table.c.storage_id == _STORAGE, after, *conditions)
    return page.distinct().order_by(table.c.key).limit(_LIMIT)


def _all_keys() -> Statement:
    """Of every table: who tampers may have emptied one of them."""
    pages = union(*(select(_keys(table).subquery().c.key) for table in (result, history, payload))).subquery()
    return Statement(select(pages.c.key).order_by(pages.c.key).limit(_LIMIT))


ALL_KEYS = _all_keys()
"""A page of the keys there are."""

KEYS_SINCE = Statement(_keys(history, _SINCE))
"""A page of the keys with entries that no seal covers yet."""

ENTRY_NAMES = tuple(history.c.keys())
_previous = history.alias("predecessor")
_PREDECESSOR = (
    select(_previous.c.digest)
    .where(
        _previous.c.storage_id == history.c.storage_id,
        _previous.c.key == history.c.key,
        _previous.c.seq == history.c.seq - literal_column("1"),
    )
    .scalar_subquery()
)
_OF_KEYS = (history.c.storage_id == _STORAGE, history.c.key == func.any(_KEYS))
_ENTRIES = select(*history.c, _PREDECESSOR.label("predecessor")).where(*_OF_KEYS).order_by(history.c.key, history.c.seq)
# Transactions may write to a key in another order than that of their numbers: from its first one on, all count.
_first = (
    select(history.c.key, func.min(history.c.seq).label("seq"))
    .where(*_OF_KEYS, _SINCE)
    .group_by(history.c.key)
    .subquery("first_one")
)

ENTRIES = Statement(_ENTRIES)
"""All entries of keys, in order, each with the digest of the one before."""

ENTRIES_SINCE = Statement(_ENTRIES.where(history.c.key == _first.c.key, history.c.seq >= _first.c.seq))
"""The entries of keys that no seal covers yet."""

HEAD_NAMES = (*(name for name in ENTRY_NAMES if name != "xid"), "sha256", "created_at")
HEADS = Statement(
    select(*(result.c[name] for name in HEAD_NAMES)).where(
        result.c.storage_id == _STORAGE, result.c.key == func.any(_KEYS)
    )
)
"""The heads of keys."""

_PAYLOADS = (
    select(payload.c.key, payload.c.payload_id, payload.c.chunk, payload.c.data, payload.c.salt, payload.c.sha256)
    .where(payload.c.storage_id == _STORAGE, payload.c.key == func.any(_KEYS))
    .order_by(payload.c.key, payload.c.payload_id, payload.c.chunk)
)

PAYLOADS = Statement(_PAYLOADS)
"""All payloads of keys, chunk by chunk."""

PAYLOADS_NAMED = Statement(
    _PAYLOADS.where(payload.c.payload_id == func.any(bindparam("payload_ids", type_=ARRAY(Uuid))))
)
"""Some payloads of keys, chunk by chunk."""

LEAVES = Statement(
    select(history.c.key, history.c.seq, history.c.digest, history.c.at)
    .where(history.c.storage_id == _STORAGE, _SEALED)
    .order_by(history.c.key, history.c.seq)
)
"""What a seal covers."""
