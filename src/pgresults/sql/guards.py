"""What a change proves about its key's lock before it happens."""

from enum import Enum
from typing import Any

from sqlalchemy import (
    CTE,
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    FromClause,
    MetaData,
    Table,
    Text,
    and_,
    bindparam,
    case,
    cast,
    exists,
    func,
    literal_column,
    or_,
    select,
    true,
)

from pgresults.sql.schema import lock

HELD = and_(lock.c.released.is_(False), or_(lock.c.expires_at.is_(None), lock.c.expires_at > func.clock_timestamp()))
"""The condition of a lock that was neither released nor has expired; its holder may be dead."""

_BY_ANOTHER = lock.c.holder.is_distinct_from(bindparam("holder", type_=lock.c.holder.type))


_PG_LOCKS = Table(
    "pg_locks",
    MetaData(schema="pg_catalog"),
    *(Column(name, BigInteger) for name in ("classid", "objid", "objsubid", "pid")),
    Column("locktype", Text),
    Column("granted", Boolean),
)


def kept_by(backend: ColumnElement[Any], beacon: ColumnElement[Any]) -> ColumnElement[bool]:
    """Whether one of the server's processes holds a beacon, by the server's list of all locks."""
    number = cast(_PG_LOCKS.c.classid, BigInteger).op("<<")(literal_column("32"))
    number = number.op("|")(cast(_PG_LOCKS.c.objid, BigInteger))
    return exists(
        select(_PG_LOCKS.c.pid).where(
            _PG_LOCKS.c.locktype == literal_column("'advisory'"),
            _PG_LOCKS.c.pid == backend,
            _PG_LOCKS.c.objsubid == literal_column("1"),
            _PG_LOCKS.c.granted,
            number == beacon,
        )
    )


def lives(row: Any) -> ColumnElement[bool]:
    """Whether the holder of a lock's row lives: a free beacon can be taken for an instant.

    One that cannot may be anybody's, whose number it is, too; the list of all locks says so, but takes longer.
    Never to be asked in a session that holds beacons itself.

    Parameters:
        row: the columns of a lock that has a beacon.
    """
    taken = func.pg_try_advisory_lock_shared(row.beacon)
    is_its_own = case((row.backend.is_(None), true()), else_=kept_by(row.backend, row.beacon))
    return case((taken, ~func.pg_advisory_unlock_shared(row.beacon)), else_=is_its_own)


def is_free(rows: FromClause) -> ColumnElement[bool]:
    """Whether nobody but ``holder`` has the lock of a row's key at this moment, and lives; see `lives`."""
    alive = case((lock.c.beacon.is_(None), true()), else_=lives(lock.c))
    place = (lock.c.storage_id == rows.c.storage_id, lock.c.key == rows.c.key)
    return ~exists(select(lock.c.fence).where(*place, HELD, _BY_ANOTHER, alive))


def blocked(rows: CTE) -> CTE:
    """The keys of rows whose lock another than ``holder`` has, dead or alive; all locks stay as they are."""
    place = and_(lock.c.storage_id == rows.c.storage_id, lock.c.key == rows.c.key)
    columns = (lock.c.key, and_(HELD, _BY_ANOTHER).label("held"))
    seen = select(*columns).select_from(rows.join(lock, place)).with_for_update(read=True, of=lock).cte("lock_seen")
    return select(seen.c.key).where(seen.c.held).cte("blocked")


class Guard(Enum):
    """What a change has to prove about its key's lock, in the same statement and so in the same transaction."""

    NONE = "none"
    """Nothing: the store has no locks."""

    FENCE = "fence"
    """That the lock still is the writer's, by fence and token."""

    NOT_HELD = "not held"
    """That no other holder has the lock."""

    def condition(self) -> ColumnElement[bool]:
        """The proof. The lock's row stays as it is until the transaction ends: who takes the lock over waits."""
        place = (lock.c.storage_id == bindparam("storage_id"), lock.c.key == bindparam("key"))
        row = select(lock.c.holder, lock.c.fence, lock.c.token, HELD.label("held")).where(*place)
        seen = row.with_for_update(read=True).cte("lock_seen")
        if self is Guard.FENCE:
            proof = and_(seen.c.fence == bindparam("fence"), seen.c.token == bindparam("token"), seen.c.held)
            return exists(select(seen.c.fence).where(proof))
        if self is Guard.NOT_HELD:
            return ~exists(select(seen.c.fence).where(seen.c.held, seen.c.holder != bindparam("holder")))
        return true()
