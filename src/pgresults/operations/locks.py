"""Taking, proving, watching and giving back the lock of a key."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from pgresults.errors import LockedError
from pgresults.operations.requests import Execute, Operation
from pgresults.sql import locks as statements


class Place(NamedTuple):
    """Which key of which storage."""

    storage_id: UUID
    key: str


class Held(NamedTuple):
    """A lock as somebody holds it, since when, and for how many more seconds (None: without end).

    ``token`` is None for who only looks. ``free``: nobody does any more, but a transaction that had a part in it is
    yet to end.
    """

    fence: int
    holder: str
    token: UUID | None
    beacon: int | None
    session: UUID
    since: datetime
    expires_in: float | None
    free: bool


class HeldLock(NamedTuple):
    """A lock as a listing shows it.

    ``actor`` and ``pid`` are the user and the process that took it, ``backend_pid`` the server's process that keeps it
    (None: a lease), ``waiters`` how many wait on the server, ``waiting_holders`` who has waited for a while.
    """

    key: str
    holder: str
    since: datetime
    expires_at: datetime | None
    fence: int
    actor: str
    pid: int
    backend_pid: int | None
    waiters: int
    taken_over_from: str | None
    waiting_holders: list[str]


class Grant(NamedTuple):
    """A lock as it was granted to us.

    ``renewed``: it lasts as long as it is prolonged in time; ``in_doubt``: it may have been released without our
    having been told.
    """

    place: Place
    holder: str
    fence: int
    token: UUID
    session: UUID
    beacon: int | None
    renewed: bool = False
    taken_over_from: str | None = None
    in_doubt: bool = False


class Request(NamedTuple):
    """What is asked for: whose lock, how proven, held from which session, by a beacon or not, and for how long."""

    place: Place
    holder: str
    token: UUID
    session: UUID
    beaconed: bool
    actor: str
    pid: int
    hold: timedelta | None
    renewed: bool


def try_acquire(request: Request) -> Operation[Grant | Held | None]:
    """Take a lock that nobody has; else say who has it, or None when it changed hands in that moment."""
    parameters = request._asdict() | request.place._asdict()
    row = (yield Execute(statements.TRY_ACQUIRE, parameters))[0]
    fence, beacon, taken_over_from, beacon_is_ours, overtaken, *seen = row
    if fence is None:
        return Held(*seen) if seen[0] is not None else None
    if beacon_is_ours is False or overtaken:
        # Somebody else uses this number for an advisory lock of their own, or newer fences have been there: the next
        # fence is another one. What is not ours is not put out, and no proof that the lock is.
        yield Execute(statements.RELEASE, parameters if beacon_is_ours else {**parameters, "session": None})
        return None
    granted = (fence, request.token, request.session, beacon, request.renewed, taken_over_from)
    return Grant(request.place, request.holder, *granted)


def release(place: Place, token: UUID, session: UUID | None) -> Operation[bool]:
    """Give a grant back and put its beacon out if this is its session; False when it was no longer the key's."""
    rows = yield Execute(statements.RELEASE, {**place._asdict(), "token": token, "session": session})
    return bool(rows)


def was_released(place: Place, holder: str, token: UUID) -> Operation[bool]:
    """Whether a holder's grant was given back, as far as can be seen: the row may be gone, or another's since."""
    rows = yield Execute(statements.AFTERWARDS, {**place._asdict(), "token": token})
    if not rows:
        return True
    is_ours, released, taken_over_from = rows[0]
    return bool(released) if is_ours else taken_over_from != holder


def put_out(beacon: int) -> Operation[None]:
    """Put out a beacon of this session."""
    yield Execute(statements.UNLOCK, {"beacon": beacon})


def state(place: Place) -> Operation[Held | None]:
    """Who holds a key's lock and lives."""
    rows = yield Execute(statements.STATE, place._asdict())
    return Held(*rows[0]) if rows else None


def token_of(place: Place, fence: int) -> Operation[UUID | None]:
    """What proves a grant; None when it is over."""
    rows = yield Execute(statements.TOKEN, {**place._asdict(), "fence": fence})
    return rows[0][0] if rows else None


def bury(place: Place) -> Operation[bool]:
    """Release the lock of a dead holder; False where there is none."""
    rows = yield Execute(statements.BURY, place._asdict())
    return bool(rows)


def held_locks(storage_id: UUID, name: str) -> Operation[list[HeldLock]]:
    """Who holds what of a storage, by key."""
    rows = yield Execute(statements.LIST_HELD, {"storage_id": storage_id, "name": name})
    held = [HeldLock(*row) for row in rows]
    return [one._replace(since=one.since.astimezone(UTC), expires_at=_in_utc(one.expires_at)) for one in held]


def _in_utc(moment: datetime | None) -> datetime | None:
    return moment and moment.astimezone(UTC)


def forget(storage_id: UUID, limit: int) -> Operation[int]:
    """Delete rows of locks that nobody holds; gives how many."""
    rows = yield Execute(statements.FORGET, {"storage_id": storage_id, "limit": limit})
    return int(rows[0][0])


class TableSize(NamedTuple):
    """Rows and bytes of a table with its indexes."""

    rows: int
    bytes: int


def size(schema: str) -> Operation[TableSize]:
    """What the locks of all storages of a schema take."""
    return TableSize(*(yield Execute(statements.SIZE, {"schema": schema}))[0])


def locked(key: str, held: Held) -> LockedError:
    """The error of who comes to another's lock."""
    since = held.since.astimezone(UTC)
    return LockedError(f"{key!r} is locked by {held.holder} since {since}", key=key, holder=held.holder, since=since)


def wait(beacon: int, seconds: float) -> Operation[None]:
    """Wait until a beacon goes out; ends with the server's error when the time is up."""
    yield Execute(statements.WAIT, {"beacon": beacon, "milliseconds": _milliseconds(seconds)})


def wait_for_row(place: Place, seconds: float) -> Operation[None]:
    """Wait until no transaction has a part in a lock; ends with the server's error when the time is up."""
    yield Execute(statements.WAIT_FOR_ROW, {**place._asdict(), "milliseconds": _milliseconds(seconds)})


def _milliseconds(seconds: float) -> str:
    return str(max(1, round(seconds * 1000)))


def renew(session: UUID, tokens: Sequence[UUID], hold: timedelta) -> Operation[set[UUID]]:
    """Prolong leases; gives those that still are ours."""
    rows = yield Execute(statements.RENEW, {"session": session, "tokens": list(tokens), "hold": hold})
    return {row[0] for row in rows}


def seize(place: Place, fence: int) -> Operation[bool]:
    """Have nobody else change a held lock before this transaction ends; False where it is not held any more."""
    return bool((yield Execute(statements.SEIZE, {**place._asdict(), "fence": fence})))


def break_lock(place: Place, fence: int) -> Operation[None]:
    """Take a lock away from its holder, which the server allows where the key's last entry says so."""
    yield Execute(statements.BREAK, {**place._asdict(), "fence": fence})


def open_session(backend: int) -> Operation[bool]:
    """Prepare a session to hold beacons; False when it cannot.

    Parameters:
        backend: the process of the server that the connection was told it has; a pooler tells another.
    """
    rows: list[Any] = yield Execute(statements.BACKEND, {})
    if rows[0][0] != backend:
        return False  # and what were set on it would be set for the pooler's other clients
    yield Execute(statements.SET_UP_SESSION, {})
    return True
