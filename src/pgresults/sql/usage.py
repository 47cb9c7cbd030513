"""How much a storage holds: counted, or estimated from a sample of fixed size, whose cost does not grow."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Float,
    FromClause,
    Uuid,
    and_,
    bindparam,
    func,
    literal_column,
    or_,
    select,
    tablesample,
)

from pgresults.sql.compiled import Statement
from pgresults.sql.schema import history, result
from pgresults.sql.sums import capped
from pgresults.sql.times import sayable

_STORAGE = bindparam("storage_id", type_=Uuid)
_PAGE_SIZE = literal_column("current_setting('block_size')::float8", Float)


def _totals(rows: FromClause) -> tuple[ColumnElement[Any], ...]:
    """Keys of the storage, live results, expired ones that are yet to be swept, and the bytes of both."""
    mine = rows.c.storage_id == _STORAGE
    expired = and_(mine, rows.c.expires_at.is_not(None), rows.c.expires_at <= func.statement_timestamp())
    unexpired = and_(mine, or_(rows.c.expires_at.is_(None), rows.c.expires_at > func.statement_timestamp()))

    def size(condition: ColumnElement[bool]) -> ColumnElement[Any]:
        return capped(func.sum(rows.c.size).filter(condition))

    live = and_(unexpired, rows.c.payload_id.is_not(None))
    counts = (func.count().filter(condition) for condition in (mine, live, expired))
    return *counts, size(unexpired), size(expired)


_some = (
    select(*(result.c[name] for name in ("storage_id", "payload_id", "expires_at", "size")))
    .where(result.c.storage_id == _STORAGE)
    .limit(bindparam("limit", type_=BigInteger))
    .subquery("some")
)
COUNTED = Statement(select(*_totals(_some)))
"""The totals of the first ``limit`` keys of a storage; None: of all."""

_sample = tablesample(result, func.system(bindparam("percent", type_=Float)), name="sampled")
_PAGE_OF_ROW = literal_column("(sampled.ctid::text::point)[0]", Float)
SAMPLED = Statement(select(func.count(_PAGE_OF_ROW.distinct()), *_totals(_sample)))
"""How many pages are in a sample of about so many per cent of the table, and the totals of a storage in these."""

PAGES = Statement(
    select(
        func.pg_relation_size(
            select(literal_column("tableoid")).select_from(result).limit(literal_column("1")).scalar_subquery()
        )
        / _PAGE_SIZE
    )
)
"""How many pages the table of heads has; None where it is empty."""

LAST_CHANGE = Statement(
    select(sayable(history.c.at))
    .where(history.c.storage_id == _STORAGE)
    .order_by(history.c.at.desc())
    .limit(literal_column("1"))
)
"""When something last happened in a storage."""
