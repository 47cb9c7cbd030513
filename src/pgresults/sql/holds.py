"""The statements over holds: what must not be taken away."""

from typing import Any

from sqlalchemy import (
    ARRAY,
    Column,
    ColumnElement,
    DateTime,
    MetaData,
    Table,
    Text,
    Uuid,
    and_,
    bindparam,
    exists,
    func,
    literal_column,
    or_,
    select,
)

from pgresults.sql.compiled import CallStatement, Statement
from pgresults.sql.schema import SCHEMA, history
from pgresults.sql.times import as_utc, sayable

_TEXTS = ("key", "prefix", "reason", "actor", "db_user")
_HOLDS = Table(
    "holds",
    MetaData(schema=SCHEMA),
    *(Column(name, Text(collation="C")) for name in _TEXTS),
    *(Column(name, DateTime(timezone=True)) for name in ("until", "since")),
    *(Column(name, Uuid) for name in ("id", "storage_id")),
    Column("tags", ARRAY(Text)),
)

PLACE = CallStatement("place_hold", "storage_id", "covers", "reason", "until", "actor")
"""Place a hold; gives its id."""

RELEASE = CallStatement("release_hold", "storage_id", "covers", "reason", "actor")
"""Release the holds of a storage that cover just that; gives how many."""

SETTLE = CallStatement("held", "storage_id", "key")
"""Have no hold be placed until the transaction ends."""

HOLDS = Statement(
    select(
        _HOLDS.c.id,
        _HOLDS.c.key,
        _HOLDS.c.prefix,
        _HOLDS.c.tags,
        _HOLDS.c.reason,
        as_utc(_HOLDS.c.until),
        sayable(_HOLDS.c.since),
        _HOLDS.c.actor,
        _HOLDS.c.db_user,
    )
    .where(_HOLDS.c.storage_id == bindparam("storage_id", type_=Uuid))
    .order_by(_HOLDS.c.since, _HOLDS.c.id)
)
"""The holds of a storage that stand, the oldest first."""


def is_held(rows: Any) -> ColumnElement[bool]:
    """Whether a hold covers a row's key; also by tags that only earlier versions have."""
    tagged = history.alias("tagged")
    by_tags = exists(
        select(literal_column("1")).where(
            tagged.c.storage_id == rows.c.storage_id, tagged.c.key == rows.c.key, tagged.c.tags.contains(_HOLDS.c.tags)
        )
    )
    covers = or_(
        _HOLDS.c.key == rows.c.key,
        func.starts_with(rows.c.key, _HOLDS.c.prefix),
        and_(_HOLDS.c.tags.is_not(None), by_tags),
    )
    return exists(select(_HOLDS.c.id).where(_HOLDS.c.storage_id == rows.c.storage_id, covers))
