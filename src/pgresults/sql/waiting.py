"""The statements about who waits for whose lock: what shows that some wait for each other."""

from typing import Any

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Double,
    Text,
    Uuid,
    and_,
    bindparam,
    cast,
    column,
    delete,
    func,
    literal_column,
    or_,
    select,
    tuple_,
)
from sqlalchemy.dialects.postgresql import ARRAY, INTERVAL
from sqlalchemy.dialects.postgresql import insert as upsert

from pgresults.sql.compiled import Statement
from pgresults.sql.guards import HELD
from pgresults.sql.schema import lock, waiting

_CLOCK: ColumnElement[Any] = func.clock_timestamp()
_IDS: ColumnElement[Any] = bindparam("ids", type_=ARRAY(Uuid))


def _ago(span: str) -> ColumnElement[Any]:
    return _CLOCK - cast(literal_column(f"'{span}'"), INTERVAL)


def _see() -> Statement:
    kinds = {"key": Text, "id": Uuid, "holder": Text, "through": Boolean, "age": Double}
    given = (
        func.unnest(*(bindparam(f"{name}s", type_=ARRAY(kind)) for name, kind in kinds.items()))
        .table_valued(*(column(name, kind) for name, kind in kinds.items()))
        .render_derived("given")
    )
    since = _CLOCK - func.make_interval(*(literal_column("0") for _ in range(6)), given.c.age)
    seen = select(
        bindparam("storage_id", type_=Uuid),
        given.c.key,
        given.c.id,
        given.c.holder,
        given.c.through,
        since,
        _CLOCK,
    )
    statement = upsert(waiting).from_select(waiting.c.keys(), seen)
    return Statement(
        statement.on_conflict_do_update(index_elements=waiting.primary_key, set_={"seen": statement.excluded.seen})
    )


SEE = _see()
"""Say of waiters that they still wait; ``ages``: the seconds for which each has."""

_left = (
    func.unnest(_IDS, bindparam("holders", type_=ARRAY(Text)))
    .table_valued(column("id", Uuid), column("holder", Text))
    .render_derived("gone")
)
LEAVE = Statement(
    delete(waiting).where(
        waiting.c.storage_id == bindparam("storage_id", type_=Uuid),
        or_(
            tuple_(waiting.c.id, waiting.c.holder).in_(select(_left.c.id, _left.c.holder)),
            waiting.c.seen < _ago("1 minute"),
        ),
    )
)
"""Delete the rows of waiters that wait no more, and those of dead processes."""


def _edges() -> Statement:
    """Only what has not moved for a while: who has just been granted a lock, or asks for one, may still go on."""
    edge = (
        select(waiting.c.id, waiting.c.holder.label("waiter"), waiting.c.key, lock.c.holder, waiting.c.since)
        .add_columns(waiting.c.through)
        .select_from(waiting.join(lock, and_(lock.c.storage_id == waiting.c.storage_id, lock.c.key == waiting.c.key)))
        .where(
            HELD,
            or_(waiting.c.through, lock.c.holder != waiting.c.holder),
            waiting.c.seen > _ago("10 seconds"),
            waiting.c.since <= _ago("1 second"),
            lock.c.acquired_at <= _ago("1 second"),
        )
        .cte("edge")
    )
    start = select(edge.c.waiter.label("holder")).where(edge.c.id == func.any(_IDS))
    reached = start.cte("reached", recursive=True)
    reached = reached.union(select(edge.c.holder).join(reached, edge.c.waiter == reached.c.holder))
    return Statement(
        select(edge).where(edge.c.waiter.in_(select(reached.c.holder)), edge.c.holder.in_(select(edge.c.waiter)))
    )


EDGES = _edges()
"""Who waits for whom, of all that waiters can be waiting for in the end; nothing that is held by who waits for none."""
