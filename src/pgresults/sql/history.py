"""The statements over a key's history: what was, what is prolonged, and what is taken away for good."""

from functools import cache
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    DateTime,
    LargeBinary,
    Select,
    Text,
    Uuid,
    and_,
    any_,
    bindparam,
    case,
    cast,
    column,
    delete,
    exists,
    func,
    literal_column,
    null,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import INTERVAL
from sqlalchemy.sql.selectable import CTE

from pgresults.sql.compiled import CallStatement, Statement
from pgresults.sql.digests import CONTENT_FIELDS, LATER_FIELDS
from pgresults.sql.guards import Guard, blocked, is_free
from pgresults.sql.holds import is_held
from pgresults.sql.prefixes import begins
from pgresults.sql.results import (
    CLEARED,
    ENTRY_PARAMETERS,
    HEAD_COLUMNS,
    ONE_KEY,
    SIGNED_COLUMNS,
    UNEXPIRED,
    as_read,
    end_versions,
    next_entry,
)
from pgresults.sql.schema import history, payload, result
from pgresults.sql.times import sayable

_STORAGE = bindparam("storage_id", type_=Uuid)
_KEY = bindparam("key", type_=history.c.key.type)
_KEYS: ColumnElement[Any] = bindparam("keys", type_=ARRAY(Text))
_MOMENT = bindparam("moment", type_=DateTime(timezone=True))
_WRITES = history.c.action.in_((literal_column("'write'"), literal_column("'import'")))
_RESTATED: list[ColumnElement[str]] = [literal_column(f"'{action}'") for action in ("touch", "retain", "break")]
_FIRST_CHUNK = payload.c.chunk == literal_column("0")

_ONE_HISTORY = and_(history.c.storage_id == _STORAGE, history.c.key == _KEY)
_PROOF = history.outerjoin(
    payload,
    and_(
        payload.c.storage_id == history.c.storage_id,
        payload.c.key == history.c.key,
        payload.c.payload_id == history.c.payload_id,
        _FIRST_CHUNK,
    ),
)
"""The entries with the first chunk of their payload, which has its salt and digest."""

ENTRY_COLUMNS = (
    "seq", "version", "action", "at", "actor", "db_user", "holder", "fence", "reason", "expires_at", "size", "tags",
    "provenance", "digest", "payload_id",
)  # fmt: skip
"""What an entry says, in the order of `operations.history.Entry`."""


_ENTRY = [history.c[name] if name == "tags" else as_read(history, name) for name in ENTRY_COLUMNS]

HISTORY = Statement(select(*_ENTRY, payload.c.sha256).select_from(_PROOF).where(_ONE_HISTORY).order_by(history.c.seq))
"""The entries of a key, oldest first, with the digests of the payloads that are still there."""

_written = history.alias("written")
_WRITTEN_AT = (
    select(func.min(_written.c.at))
    .where(
        _written.c.storage_id == history.c.storage_id,
        _written.c.key == history.c.key,
        _written.c.version == history.c.version,
    )
    .scalar_subquery()
)


def _past(*conditions: ColumnElement[bool], expired: ColumnElement[bool]) -> Statement:
    """The last entry that meets the conditions as the head it was then, with its payload."""
    from_elsewhere: dict[str, ColumnElement[Any]] = {"created_at": sayable(_WRITTEN_AT), "sha256": payload.c.sha256}
    columns = (
        *(from_elsewhere[name] if name in from_elsewhere else as_read(history, name) for name in HEAD_COLUMNS),
        expired.label("expired"),
        *(as_read(history, name) for name in SIGNED_COLUMNS),
        history.c.seq,
        history.c.payload_digest,
        payload.c.salt,
        payload.c.data,
    )
    entry = select(*columns).select_from(_PROOF).where(_ONE_HISTORY, *conditions)
    return Statement(entry.order_by(history.c.seq.desc()).limit(literal_column("1")))


READ_VERSION = _past(
    history.c.version == bindparam("version"), history.c.payload_id.is_not(None), expired=literal_column("false")
)
"""A version as it was last described, whatever became of it."""

READ_AS_OF = _past(
    history.c.at <= _MOMENT,
    expired=and_(history.c.expires_at.is_not(None), history.c.expires_at <= _MOMENT),
)
"""What a key's head was at a moment."""

EXISTS_AS_OF = Statement(
    select(
        and_(
            history.c.payload_id.is_not(None),
            or_(history.c.expires_at.is_(None), history.c.expires_at > _MOMENT),
        )
    )
    .where(_ONE_HISTORY, history.c.at <= _MOMENT)
    .order_by(history.c.seq.desc())
    .limit(literal_column("1"))
)
"""Whether a key had a live result at a moment."""

REMOVALS = Statement(
    select(history.c.action, sayable(history.c.at), history.c.actor, history.c.version, history.c.reason)
    .where(
        _ONE_HISTORY,
        history.c.seq > bindparam("seq"),
        history.c.action.in_([literal_column(f"'{action}'") for action in ("expire", "redact", "retain")]),
    )
    .order_by(history.c.seq)
)
"""The later entries by which a payload may have been taken away."""

_UNCOVERED = ("action", "actor", "holder", "fence", "reason")
DESCRIBED = tuple(name for name in (*CONTENT_FIELDS, *LATER_FIELDS) if name not in _UNCOVERED)
"""What the next entry of a version that stays says again of it."""

STAYING = [as_read(result, name) for name in DESCRIBED]

_LIVE = select(*STAYING).where(ONE_KEY, result.c.payload_id.is_not(None), UNEXPIRED)
LIVE, LOCK_LIVE = Statement(_LIVE), Statement(_LIVE.with_for_update())
"""What a live head says, to say it again; and lock it."""


def _restate(guard: Guard) -> Statement:
    expires_at = bindparam("expires_at", type_=DateTime(timezone=True))
    head = (
        update(result)
        .where(ONE_KEY, guard.condition())
        .values(**ENTRY_PARAMETERS, **next_entry(result.c.version, expires_at))
        .returning(*result.c)
        .cte("head")
    )
    return Statement(select(head.c.version))


TOUCH = {guard: _restate(guard) for guard in Guard}
"""Give a locked head another expiration."""

_HEAD = select(
    result.c.action,
    exists(select(payload.c.chunk).where(payload.c.storage_id == _STORAGE, payload.c.key == _KEY)),
).where(ONE_KEY)
HEAD, LOCK_HEAD = Statement(_HEAD), Statement(_HEAD.with_for_update())
"""A key's last action, and whether any payload is there; and lock its head whatever it is."""


def _redact(guard: Guard) -> Statement:
    head = end_versions(ONE_KEY, guard.condition())
    return Statement(select(head.c.version))


REDACT = {guard: _redact(guard) for guard in Guard}
"""Take the current version away and say that no payload of any version is left."""


def _counted(erased: CTE) -> Statement:
    return Statement(select(func.count()).select_from(erased).where(erased.c.chunk == literal_column("0")))


ERASE = _counted(
    delete(payload)
    .where(payload.c.storage_id == _STORAGE, payload.c.key == _KEY)
    .returning(payload.c.chunk)
    .cte("gone")
)
"""Erase the payloads of all versions of a key, with their salts; gives how many versions had one."""

CONDITIONS: dict[str, tuple[ColumnElement[bool], ...]] = {
    "prefix": begins(result.c.key),
    "tags": (result.c.tags.contains(bindparam("tags", type_=ARRAY(Text))),),
    "keys": (result.c.key == any_(_KEYS),),
    **{
        kind: (
            result.c.provenance.op("#>>")(literal_column(f"'{{{kind},name}}'::text[]")) == bindparam(kind, type_=Text),
        )
        for kind in ("task", "flow")
    },
    "identity": (
        result.c.provenance.op("#>>")(literal_column("'{task,identity}'::text[]")) == bindparam("identity", type_=Text),
    ),
}
"""What picks results beside their key; a choice of them makes one statement."""


class Locking(Statement):
    """Locks rows.

    Parameters:
        element: what gives them.
    """

    def __init__(self, element: Select[Any]) -> None:
        super().__init__(element.with_for_update())
        self.unlocked = Statement(element)
        """What gives the same and locks nothing."""


class Invalidation(Statement):
    """Takes the current versions of all results away that meet some conditions.

    Parameters:
        element: the statement.
        due: what gives the keys of these results alone; ``locked`` gives their versions as well, and locks them.
        guarded: whether no other holder may have a lock of any of them.
    """

    def __init__(self, element: Select[Any], due: Select[Any], *, guarded: bool) -> None:
        super().__init__(element, plan_anew=True)
        self.due = Statement(due.with_only_columns(result.c.key))
        self.locked = Locking(due.with_only_columns(result.c.key, result.c.version))
        self.guarded = guarded


@cache
def invalidate(chosen: frozenset[str], *, guarded: bool) -> Invalidation:
    """Take the current versions of all live results away that meet the chosen `CONDITIONS`.

    Gives their number and, where it is guarded, a key that another holder has locked: then nothing is taken away.
    """
    conditions = [condition for name in sorted(chosen) for condition in CONDITIONS[name]]
    picked = (
        select(result.c.storage_id, result.c.key)
        .where(result.c.storage_id == _STORAGE, result.c.payload_id.is_not(None), UNEXPIRED, *conditions)
        .order_by(result.c.key)  # who invalidates the same results at once locks them in the same order
    )
    due = picked.with_for_update().cte("due")
    same = (result.c.storage_id == due.c.storage_id, result.c.key == due.c.key)
    in_the_way = blocked(due)
    allowed = (~exists(select(in_the_way.c.key)),) if guarded else ()
    # Named once more, because a planner without statistics would look at all keys of the storage.
    named = CONDITIONS["keys"] if "keys" in chosen else ()
    head = end_versions(*same, result.c.payload_id.is_not(None), *allowed, *named)
    obstacle = select(func.min(in_the_way.c.key)).scalar_subquery() if guarded else null()
    counted = select(select(func.count()).select_from(head).scalar_subquery(), obstacle)
    return Invalidation(counted, picked, guarded=guarded)


def _end_each(*, guarded: bool) -> Statement:
    versions: ColumnElement[Any] = bindparam("versions", type_=ARRAY(BigInteger))
    reasons: ColumnElement[Any] = bindparam("reasons", type_=ARRAY(Text))
    contents: ColumnElement[Any] = bindparam("contents", type_=ARRAY(LargeBinary))
    columns = (
        column("key", Text),
        column("version", BigInteger),
        column("reason", Text),
        column("content", LargeBinary),
    )
    given = func.unnest(_KEYS, versions, reasons, contents).table_valued(*columns).render_derived("given")
    live = (result.c.version == given.c.version, result.c.payload_id.is_not(None), UNEXPIRED)
    due = (
        select(result.c.storage_id, result.c.key, given.c.reason, given.c.content)
        .where(result.c.storage_id == _STORAGE, result.c.key == given.c.key, *live)
        .order_by(result.c.key)
        .with_for_update(of=result)
        .cte("due")
    )
    in_the_way = blocked(due)
    allowed = (~exists(select(in_the_way.c.key)),) if guarded else ()
    said = {**ENTRY_PARAMETERS, "reason": due.c.reason, "fence": null()}
    head = (
        update(result)
        .where(result.c.storage_id == due.c.storage_id, result.c.key == due.c.key, *allowed)
        .values(
            **dict.fromkeys(CLEARED, null()),
            **said,
            **next_entry(result.c.version, cast(null(), DateTime(timezone=True)), due.c.content),
        )
        .returning(*result.c)
        .cte("head")
    )
    obstacle = select(func.min(in_the_way.c.key)).scalar_subquery() if guarded else null()
    return Statement(select(select(func.count()).select_from(head).scalar_subquery(), obstacle))


END_EACH = {guarded: _end_each(guarded=guarded) for guarded in (True, False)}
"""Take versions away that are still live, each for its own reason; see `invalidate`."""


_NOW: ColumnElement[Any] = func.statement_timestamp()  # unlike the clock, it is one time: an index can be asked for it
_DUE = and_(result.c.storage_id == _STORAGE, result.c.payload_id.is_not(None), result.c.expires_at.is_not(None))
OVERDUE = and_(_DUE, result.c.expires_at <= _NOW)
"""The condition of what a sweep takes unless it is locked."""

EXPIRING = Statement(
    select(
        result.c.key,
        result.c.version,
        as_read(result, "created_at"),
        as_read(result, "expires_at"),
        result.c.size,
        result.c.serializer.op("->>")(literal_column("'type'")),
    )
    .where(
        _DUE,
        result.c.expires_at > _NOW,
        result.c.expires_at <= _NOW + bindparam("within", type_=INTERVAL),
    )
    .order_by(result.c.expires_at, result.c.key)
    .limit(bindparam("limit", type_=BigInteger))
)
"""What is live and ceases to be within a time, the next one first."""

_overdue = select(is_held(result).label("held"), is_free(result).label("free")).where(OVERDUE).subquery("overdue")
_counts: tuple[ColumnElement[Any], ...] = (
    func.count().filter(_overdue.c.free, ~_overdue.c.held),
    func.count().filter(_overdue.c.held),
)
EXPIRED = Statement(select(*_counts).select_from(_overdue))
"""How many results a sweep would take, and how many are on hold."""


SWEEP = CallStatement("sweep", "batch_size", "storage_id", "actor", "holder")
"""Take the payloads of some results that have expired; gives how many."""

_BEYOND = bindparam("versions", type_=BigInteger)
_AGE = bindparam("age", type_=INTERVAL)
_later = history.alias("later")
_SUPERSEDED = (
    select(_later.c.at)
    .where(
        _later.c.storage_id == history.c.storage_id,
        _later.c.key == history.c.key,
        _later.c.seq > history.c.seq,
        _later.c.action.not_in(_RESTATED),
    )
    .order_by(_later.c.seq)
    .limit(literal_column("1"))
    .scalar_subquery()
)


def superfluous(picked: Select[Any]) -> Statement:
    """What the picked heads need not keep: each key with the last version that is to lose its payload, and how many do.

    Parameters:
        picked: key, version and payload of the heads, and whether they are ``held``.
    """
    head = picked.cte("page")
    dropped = and_(
        payload.c.payload_id.is_not(None),
        _WRITES,
        history.c.payload_id.is_distinct_from(head.c.payload_id),
        or_(history.c.version <= head.c.version - _BEYOND, func.clock_timestamp() - _AGE > _SUPERSEDED),
    )
    return Statement(
        select(
            head.c.key,
            func.max(case((dropped, history.c.version))),
            func.count(case((dropped, literal_column("1")))),
            head.c.held,
        )
        .select_from(head.join(_PROOF, and_(history.c.storage_id == _STORAGE, history.c.key == head.c.key)))
        .group_by(head.c.key, head.c.held)
        .order_by(head.c.key)
    )


SUPERFLUOUS = superfluous(
    select(result.c.key, result.c.version, result.c.payload_id, is_held(result).label("held"))
    .where(result.c.storage_id == _STORAGE, result.c.key > bindparam("after", type_=result.c.key.type), is_free(result))
    .order_by(result.c.key)
    .limit(bindparam("limit", type_=BigInteger))
)
"""A page of keys that nobody else has locked, with the last version that is to lose its payload, and how many do."""

LOCK_MANY = Statement(
    select(result.c.key, *STAYING)
    .where(result.c.storage_id == _STORAGE, result.c.key == func.any(_KEYS), is_free(result), ~is_held(result))
    .order_by(result.c.key)
    .with_for_update()
)
"""Lock the heads of keys that nobody else has locked and that are not on hold, to say of them again what they say."""


def _retain() -> Statement:
    reasons: ColumnElement[Any] = bindparam("reasons", type_=ARRAY(Text))
    contents: ColumnElement[Any] = bindparam("contents", type_=ARRAY(LargeBinary))
    columns = (column("key", Text), column("reason", Text), column("content", LargeBinary))
    given = func.unnest(_KEYS, reasons, contents).table_valued(*columns).render_derived("given")
    said = {**ENTRY_PARAMETERS, "reason": given.c.reason, "fence": null()}
    head = (
        update(result)
        .where(result.c.storage_id == _STORAGE, result.c.key == given.c.key)
        .values(**said, **next_entry(result.c.version, result.c.expires_at, given.c.content))
        .returning(*result.c)
        .cte("head")
    )
    return Statement(select(func.count()).select_from(head))


RETAIN = _retain()
"""Say of locked heads that earlier versions lose their payloads."""


def _drop() -> Statement:
    versions: ColumnElement[Any] = bindparam("versions", type_=ARRAY(BigInteger))
    given = func.unnest(_KEYS, versions).table_valued(column("key", Text), column("version", BigInteger))
    upto = given.render_derived("given")
    gone = (
        delete(payload)
        .where(
            payload.c.storage_id == _STORAGE,
            payload.c.key == upto.c.key,
            history.c.storage_id == _STORAGE,
            history.c.key == upto.c.key,
            history.c.version <= upto.c.version,
            history.c.payload_id == payload.c.payload_id,
            _WRITES,
        )
        .returning(payload.c.chunk)
        .cte("gone")
    )
    return _counted(gone)


DROP = _drop()
"""Take the payloads of versions up to a number away."""
