"""The statements of the locks: a row is the truth, a fence the authority, an advisory lock the sign of life.

The advisory lock of a grant, its beacon, is a number made from the schema and the fence, which no other grant has. It
is held by the session that was granted the lock, and is free again the moment that session ends. The number alone could
be anybody's in the database; held by the server's process that the row names it is a sign of life.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    DateTime,
    Double,
    Integer,
    MetaData,
    Table,
    Text,
    Uuid,
    and_,
    bindparam,
    case,
    cast,
    column,
    exists,
    extract,
    false,
    func,
    literal_column,
    null,
    or_,
    select,
    table,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, INTERVAL
from sqlalchemy.dialects.postgresql import insert as upsert

from pgresults.sql.compiled import CallStatement, Statement
from pgresults.sql.guards import HELD, kept_by, lives
from pgresults.sql.schema import SCHEMA, fence, forgotten, lock
from pgresults.sql.times import sayable

ONE_LOCK = and_(lock.c.storage_id == bindparam("storage_id"), lock.c.key == bindparam("key"))
"""The condition that picks one key's lock."""

_CLOCK: ColumnElement[Any] = func.clock_timestamp()
_SESSION = bindparam("session", type_=Uuid)


def _showing(tokens: ColumnElement[Any]) -> ColumnElement[bool]:
    """Show the server what proves that a lock is ours, where the session that changes it does not hold its beacon."""
    return func.set_config(literal_column("'pgresults.token'"), tokens, true()).is_not(None)


_FORGOTTEN = Table(
    forgotten.name, MetaData(schema=SCHEMA), Column("last_value", BigInteger), Column("tableoid", BigInteger)
)


def _seconds_until(moment: ColumnElement[Any]) -> ColumnElement[Any]:
    """The seconds until a moment by the server's clock, which is the one that counts."""
    return cast(extract("epoch", sayable(moment) - _CLOCK), Double)


def _beacon(place: ColumnElement[Any], fence: ColumnElement[Any]) -> ColumnElement[Any]:
    """A grant's number among the advisory locks of a database: in front the id of a sequence that only one schema has.

    After four thousand million grants fences come to the same numbers again, whose holders are told apart as anybody's.
    """
    low = fence.op("&")(literal_column("4294967295"))
    return place.op("<<")(literal_column("32")).op("|")(low)


def _try_acquire() -> Statement:
    """Take the lock if nobody has it."""
    row = select(lock).where(ONE_LOCK).cte("row")
    is_free = case(
        (row.c.released, true()),
        (row.c.expires_at <= _CLOCK, true()),
        (row.c.beacon.is_(None), false()),
        # This very session could always take its own beacon again.
        (row.c.session == _SESSION, ~kept_by(func.pg_backend_pid(), row.c.beacon)),
        else_=~lives(row.c),
    )
    seen = select(
        row.c.fence,
        row.c.holder,
        row.c.token,
        row.c.beacon,
        row.c.session,
        sayable(row.c.acquired_at).label("acquired_at"),
        _seconds_until(row.c.expires_at).label("expires_in"),
        is_free.label("free"),
    ).cte("seen")
    # A transaction that is yet to end may have proved the row or released it: to wait for it here would keep this
    # session, and with it all other locks of the process, waiting as well.
    clear = (
        select(literal_column("1").label("one"))
        .select_from(lock)
        .where(ONE_LOCK, select(seen.c.free).scalar_subquery())
        .with_for_update(key_share=True, skip_locked=True)
        .cte("clear")
    )
    place = cast(_FORGOTTEN.c.tableoid, BigInteger).label("place")
    numbered = select(fence.next_value().label("fence"), _CLOCK.label("now"), place).subquery("numbered")
    beaconed = bindparam("beaconed", type_=Boolean)
    offer = (
        select(
            bindparam("storage_id", type_=Uuid),
            bindparam("key", type_=lock.c.key.type),
            bindparam("holder", type_=Text),
            numbered.c.fence,
            bindparam("token", type_=Uuid),
            case((beaconed, _beacon(numbered.c.place, numbered.c.fence))),
            _SESSION,
            bindparam("actor", type_=Text),
            bindparam("pid", type_=Integer),
            numbered.c.now,
            numbered.c.now + bindparam("hold", type_=INTERVAL),
            false(),
            cast(null(), Text),
            case((beaconed, func.pg_backend_pid())),
        )
        .select_from(numbered)
        .where(or_(~exists(select(seen.c.free)), exists(select(clear.c.one))))
    )
    names = [name for name in lock.c.keys() if name != "db_user"]  # noqa: SIM118 (no dict)
    statement = upsert(lock).from_select(names, offer)
    changed: dict[str, ColumnElement[Any]] = {
        name: statement.excluded[name] for name in names if name not in ("storage_id", "key")
    }
    changed["taken_over_from"] = case((lock.c.released, null()), else_=lock.c.holder)
    granted = (
        statement.on_conflict_do_update(
            index_elements=[lock.c.storage_id, lock.c.key],
            set_=changed,
            # Whoever came first has put another fence there meanwhile.
            where=lock.c.fence == select(seen.c.fence).scalar_subquery(),
        )
        .returning(lock.c.fence, lock.c.beacon, lock.c.taken_over_from)
        .cte("granted")
    )
    # Where there was no row, one with a newer fence may have come and gone since this one was drawn. A sequence is
    # read as it is now, whatever the statement's snapshot.
    newest = select(_FORGOTTEN.c.last_value).scalar_subquery()
    overtaken = case((seen.c.fence.is_(None), granted.c.fence <= newest), else_=false())
    always = select(literal_column("1").label("one")).subquery("always")
    return Statement(
        select(
            granted.c.fence,
            granted.c.beacon,
            granted.c.taken_over_from,
            func.pg_try_advisory_lock(granted.c.beacon),
            overtaken,
            seen.c.fence,
            seen.c.holder,
            seen.c.token,
            seen.c.beacon,
            seen.c.session,
            seen.c.acquired_at,
            seen.c.expires_in,
            seen.c.free,
        ).select_from(always.outerjoin(granted, true()).outerjoin(seen, true()))
    )


TRY_ACQUIRE = _try_acquire()
"""Take a lock that nobody has, with a new fence and its beacon; gives the grant and what was there before."""


def _release() -> Statement:
    released = (
        update(lock)
        .where(
            ONE_LOCK,
            lock.c.token == bindparam("token", type_=Uuid),
            lock.c.released.is_(False),
            or_(
                and_(lock.c.session == _SESSION, lock.c.beacon.is_not(None)),
                _showing(cast(bindparam("token", type_=Uuid), Text)),
            ),
        )
        .values(released=true())
        .returning(lock.c.beacon, lock.c.session)
        .cte("released")
    )
    unlocked = case((released.c.session == _SESSION, func.pg_advisory_unlock(released.c.beacon)))
    return Statement(select(unlocked).select_from(released))


RELEASE = _release()
"""Give a grant back: no row when it was no longer the key's."""

AFTERWARDS = Statement(
    select(lock.c.token == bindparam("token", type_=Uuid), lock.c.released, lock.c.taken_over_from).where(ONE_LOCK)
)
"""What has become of a lock that may have been given back."""

UNLOCK = Statement(select(func.pg_advisory_unlock(bindparam("beacon", type_=BigInteger))))
"""Put a beacon out whose row is another's already."""

# Without the token, which proves that a lock is one's own: who only reads may not see it.
STATE = Statement(
    select(
        lock.c.fence,
        lock.c.holder,
        cast(null(), Uuid),
        lock.c.beacon,
        lock.c.session,
        sayable(lock.c.acquired_at),
        _seconds_until(lock.c.expires_at),
        false(),
    ).where(
        ONE_LOCK,
        HELD,
        case((lock.c.beacon.is_(None), true()), else_=lives(lock.c)),
    )
)
"""Who holds a key's lock and lives; never to be run on a session that holds beacons itself."""

TOKEN = Statement(select(lock.c.token).where(ONE_LOCK, HELD, lock.c.fence == bindparam("fence", type_=BigInteger)))
"""What proves a grant."""

BURY = Statement(
    update(lock)
    .where(ONE_LOCK, lock.c.released.is_(False), case((lock.c.beacon.is_(None), false()), else_=~lives(lock.c)))
    .values(released=true())
    .returning(lock.c.holder)
)
"""Release the lock of a holder that is dead; never to be run on a session that holds beacons itself."""

FORGET = CallStatement("forget_released", "limit", "storage_id")
"""Delete rows of locks that nobody holds; those that a transaction has a part in stay."""

RENEW = Statement(
    update(lock)
    .where(
        lock.c.session == _SESSION,
        lock.c.token == func.any(bindparam("tokens")),
        HELD,
        _showing(func.array_to_string(bindparam("tokens", type_=ARRAY(Uuid)), literal_column("','"))),
    )
    .values(expires_at=_CLOCK + bindparam("hold", type_=INTERVAL))
    .returning(lock.c.token)
)
"""Prolong leases; gives the tokens of those that still are."""

# For this transaction only: behind a pooler the next one on this session is somebody else's.
_PATIENCE = func.set_config(literal_column("'lock_timeout'"), bindparam("milliseconds", type_=Text), true())

WAIT = Statement(
    select(
        _PATIENCE,
        func.pg_advisory_lock_shared(bindparam("beacon", type_=BigInteger)),
        func.pg_advisory_unlock_shared(bindparam("beacon", type_=BigInteger)),
    )
)
"""Wait on the server until a beacon goes out."""

WAIT_FOR_ROW = Statement(
    select(lock.c.fence)
    .where(ONE_LOCK, select(_PATIENCE).scalar_subquery().is_not(None))
    .with_for_update(key_share=True)
)
"""Wait on the server until no transaction has a part in a lock's row."""

_HELD_UNDER = and_(ONE_LOCK, lock.c.fence == bindparam("fence", type_=BigInteger), lock.c.released.is_(False))

SEIZE = Statement(select(lock.c.holder).where(_HELD_UNDER).with_for_update(key_share=True))
"""Keep a lock as it is held under a fence until the transaction ends."""

BREAK = Statement(update(lock).where(_HELD_UNDER).values(released=true()).returning(lock.c.holder))
"""Take a lock away from whoever holds it under a fence."""

_VIEW = Table(
    "held_locks",
    MetaData(schema=SCHEMA),
    *(Column(name, Text) for name in ("storage", "key", "holder", "actor", "taken_over_from")),
    *(Column(name, BigInteger) for name in ("fence", "pid", "backend_pid", "waiters")),
    *(Column(name, DateTime(timezone=True)) for name in ("since", "expires_at")),
    Column("waiting_holders", ARRAY(Text)),
)

LISTED = (
    "key",
    "holder",
    "since",
    "expires_at",
    "fence",
    "actor",
    "pid",
    "backend_pid",
    "waiters",
    "taken_over_from",
    "waiting_holders",
)
"""What a listing says of a lock, in the order of `operations.locks.HeldLock`."""

LIST_HELD = Statement(
    select(*(sayable(_VIEW.c[name]) if name in ("since", "expires_at") else _VIEW.c[name] for name in LISTED))
    .where(_VIEW.c.storage.in_((bindparam("name"), cast(bindparam("storage_id", type_=Uuid), Text))))
    .order_by(_VIEW.c.key)
)
"""Who holds what of a storage; never to be run on a session that holds beacons itself."""

_pg_class = table("pg_class", column("oid"), column("relname"), column("relnamespace"), schema="pg_catalog")
_pg_namespace = table("pg_namespace", column("oid"), column("nspname"), schema="pg_catalog")
SIZE = Statement(
    select(
        select(func.count()).select_from(lock).scalar_subquery(),
        func.pg_total_relation_size(_pg_class.c.oid),
    )
    .select_from(_pg_class.join(_pg_namespace, _pg_namespace.c.oid == _pg_class.c.relnamespace))
    .where(_pg_class.c.relname == literal_column("'lock'"), _pg_namespace.c.nspname == bindparam("schema", type_=Text))
)
"""How many rows and bytes the locks of all storages take."""

BACKEND = Statement(select(func.pg_backend_pid()))
"""The process of the server that answers."""

SET_UP_SESSION = Statement(
    select(
        func.set_config(literal_column("'tcp_keepalives_idle'"), literal_column("'10'"), false()),
        func.set_config(literal_column("'tcp_keepalives_interval'"), literal_column("'5'"), false()),
        func.set_config(literal_column("'tcp_keepalives_count'"), literal_column("'3'"), false()),
        func.set_config(literal_column("'idle_session_timeout'"), literal_column("'0'"), false()),
        # What a lock changes need not outlive a crash; a write that proves a fence flushes its sequence, too.
        func.set_config(literal_column("'synchronous_commit'"), literal_column("'off'"), false()),
        func.set_config(literal_column("'statement_timeout'"), literal_column("'0'"), false()),
    )
)
"""Prepare the session that holds beacons: it lives as long as its process, and no longer."""
