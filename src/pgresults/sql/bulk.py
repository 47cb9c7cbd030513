"""Many versions in one statement, each the next of a key of its own."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    DateTime,
    Integer,
    Interval,
    LargeBinary,
    Text,
    Uuid,
    any_,
    bindparam,
    cast,
    column,
    exists,
    func,
    insert,
    literal_column,
    select,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.sql.selectable import CTE
from sqlalchemy.types import TypeEngine

from pgresults.sql.compiled import Statement
from pgresults.sql.digests import expiry_sql
from pgresults.sql.guards import Guard, blocked
from pgresults.sql.results import CHUNK_COLUMNS, UNEXPIRED, WRITTEN_COLUMNS, first_entry, next_entry
from pgresults.sql.schema import payload, result
from pgresults.sql.times import as_utc, sayable

ARRAYS: dict[str, TypeEngine[Any]] = {
    "key": Text(),
    "payload_id": Uuid(),
    "size": BigInteger(),
    "data": LargeBinary(),
    "salt": LargeBinary(),
    "sha256": LargeBinary(),
    "payload_digest": LargeBinary(),
    "content": LargeBinary(),
    "place_bytes": LargeBinary(),
    "signature": LargeBinary(),
    "provenance": Text(),
    "holder": Text(),
    "tags": Text(),
    "derived_from": Text(),
    "expires_at": DateTime(timezone=True),
    "expires_in": Interval(),
}
"""What differs from row to row, given as an array each; the rest is the same for all rows of a statement.

Tags and parents are given as the text of an array: a list of lists would have to be a rectangle.
"""

SHARED = tuple(name for name in WRITTEN_COLUMNS if name not in ARRAYS and name != "storage_id")
"""What all rows of a statement say alike, as they do of provenance and holder where these come without an array."""

_ZERO = literal_column("0", Integer)
_ONE = literal_column("1", BigInteger)


def _rows() -> CTE:
    """The arrays as rows, with the storage as a column."""
    arrays = func.unnest(*(bindparam(f"{name}_array", type_=ARRAY(kind)) for name, kind in ARRAYS.items()))
    given = arrays.table_valued(*(column(name, kind) for name, kind in ARRAYS.items())).render_derived(name="given")
    storage: ColumnElement[Any] = bindparam("storage_id", type_=Uuid)
    return select(cast(storage, Uuid).label("storage_id"), *given.c).cte("rows")


def _said(rows: CTE) -> dict[str, ColumnElement[Any]]:
    """What the rows say of their versions, by column of ``result``."""
    said: dict[str, ColumnElement[Any]] = {name: rows.c[name] for name in WRITTEN_COLUMNS if name in rows.c}
    said |= {name: cast(bindparam(name, type_=result.c[name].type), result.c[name].type) for name in SHARED}
    usual = cast(bindparam("provenance", type_=result.c.provenance.type), JSONB)
    said["provenance"] = func.coalesce(cast(rows.c.provenance, JSONB), usual)
    said["holder"] = func.coalesce(rows.c.holder, cast(bindparam("holder", type_=Text), Text))
    said |= {name: cast(rows.c[name], ARRAY(Text)) for name in ("tags", "derived_from")}
    said["expires_at"] = func.coalesce(rows.c.expires_at, func.statement_timestamp() + rows.c.expires_in)
    return said


def _write_many(guard: Guard) -> Statement:
    """Store versions under keys that differ; what a guard refuses and what came in between is left out.

    Not an upsert: what it replaces could not see the digest of a row's content, which is no column.
    """
    rows = _rows()
    said = _said(rows)
    free = [] if guard is Guard.NONE else [rows.c.key.not_in(select(blocked(rows).c.key))]
    # Named once more, because a planner without statistics would look at all keys of the storage.
    one_of = result.c.key == any_(bindparam("key_array", type_=ARRAY(Text)))
    here = (result.c.storage_id == bindparam("storage_id"), result.c.key == rows.c.key, one_of)
    place, expiry = rows.c.place_bytes, expiry_sql(said["expires_at"])
    following = next_entry(result.c.version + _ONE, said["expires_at"], rows.c.content, place, expiry)
    replaced = {name: value for name, value in said.items() if name not in ("storage_id", "key")}
    shown = (result.c.key, result.c.version, result.c.created_at, result.c.expires_at)
    updated = (
        update(result)
        .where(*here, *free)
        .values(**replaced | following | {"created_at": following["at"]})
        .returning(*shown)
        .cte("updated")
    )
    first = said | first_entry(rows.c.content, place, expiry)
    new = select(*first.values()).where(~exists(select(_ZERO).where(updated.c.key == rows.c.key)), *free)
    inserted = upsert(result).from_select(list(first), new).on_conflict_do_nothing().returning(*shown).cte("inserted")
    written = union_all(select(*updated.c), select(*inserted.c)).cte("written")
    chunk = {name: rows.c[name] for name in CHUNK_COLUMNS if name != "chunk"} | {"chunk": _ZERO}
    chunks = select(*chunk.values()).join_from(rows, written, written.c.key == rows.c.key)
    stored = insert(payload).from_select(list(chunk), chunks).cte("stored")
    columns = (written.c.key, written.c.version, sayable(written.c.created_at), as_utc(written.c.expires_at))
    # Not by a setting for the transaction: the server would plan the trigger's insert anew for each row as well.
    return Statement(select(*columns).add_cte(stored), plan_anew=True)


WRITE_MANY = {guard: _write_many(guard) for guard in (Guard.NONE, Guard.NOT_HELD)}
"""Store versions; gives key, version, time and expiration of each that was stored."""

EXISTS_MANY = Statement(
    select(result.c.key).where(
        result.c.storage_id == bindparam("storage_id"),
        result.c.key == any_(bindparam("keys", type_=ARRAY(Text))),
        result.c.payload_id.is_not(None),
        UNEXPIRED,
    )
)
"""Those of several keys that have a live result."""
