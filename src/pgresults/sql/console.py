"""The statements of the console: pages of lists, whose cost does not grow with the store, and sums over it."""

from functools import cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    DateTime,
    Select,
    Text,
    Uuid,
    and_,
    bindparam,
    case,
    cast,
    func,
    literal_column,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY, INTERVAL
from sqlalchemy.sql.selectable import Subquery

from pgresults.sql.compiled import Query, Statement
from pgresults.sql.history import ENTRY_COLUMNS
from pgresults.sql.results import ONE_KEY, UNEXPIRED, as_read
from pgresults.sql.schema import history, payload, result
from pgresults.sql.sums import capped
from pgresults.sql.times import as_utc, sayable

_STORAGE: ColumnElement[Any] = bindparam("storage_id", type_=Uuid)
_LIMIT: ColumnElement[Any] = bindparam("limit", type_=BigInteger)
_TIME = DateTime(timezone=True)
_NOW: ColumnElement[Any] = func.statement_timestamp()


def _given(name: str, kind: Any) -> ColumnElement[Any]:
    return bindparam(name, type_=kind)


class _ReadOnly(Statement):
    """A command that is no query, so that others may still say how the transaction is isolated."""

    def __init__(self) -> None:
        self.changes = False
        self.query = cache(lambda _: Query(b"SET TRANSACTION READ ONLY"))


READ_ONLY = _ReadOnly()
"""Let the transaction change nothing."""


def _task_of(rows: Any) -> ColumnElement[Any]:
    name: ColumnElement[Any] = rows.c.provenance.op("#>>")(literal_column("'{task,name}'::text[]"))
    return name


def _beyond() -> ColumnElement[bool]:
    """What comes after an entry in a list of the newest first."""
    at, key, seq = _given("last_at", _TIME), _given("last_key", history.c.key.type), _given("last_seq", BigInteger)
    same = and_(history.c.at == at, or_(history.c.key > key, and_(history.c.key == key, history.c.seq < seq)))
    return and_(history.c.at <= at, or_(history.c.at < at, same))


_BOUNDS: dict[str, ColumnElement[bool]] = {
    "since": history.c.at >= _given("since", _TIME),
    "until": history.c.at < _given("until", _TIME),
    "last_at": _beyond(),
    "actor": history.c.actor == _given("actor", Text),
}
"""What says which part of the history is looked at; an index answers each."""


def _filters(rows: Any) -> dict[str, tuple[ColumnElement[bool], ...]]:
    return {
        "action": (rows.c.action == _given("action", Text),),
        "prefix": (
            rows.c.key >= _given("prefix", history.c.key.type),
            rows.c.key < _given("end", history.c.key.type),
        ),
        "tags": (rows.c.tags.contains(_given("tags", ARRAY(Text))),),
        "task": (_task_of(rows) == _given("task", Text),),
    }


FILTERS = frozenset(_filters(history))
"""What picks entries of the part that is looked at."""


def _window(chosen: frozenset[str]) -> Subquery:
    bounds = [condition for name, condition in _BOUNDS.items() if name in chosen]
    return (
        select(*history.c)
        .where(history.c.storage_id == _STORAGE, *bounds)
        .order_by(history.c.at.desc(), history.c.key, history.c.seq.desc())
        .limit(_given("window", BigInteger))
        .subquery("looked_at")
    )


@cache
def log(chosen: frozenset[str]) -> Statement:
    """The newest entries that meet the chosen `FILTERS`, among some of the newest within bounds."""
    rows = _window(chosen)
    conditions = [one for name, some in _filters(rows).items() if name in chosen for one in some]
    said = [rows.c[name] if name == "tags" else as_read(rows, name) for name in ENTRY_COLUMNS]  # type: ignore[arg-type]
    return Statement(
        select(rows.c.key, *said)
        .where(*conditions)
        .order_by(rows.c.at.desc(), rows.c.key, rows.c.seq.desc())
        .limit(_LIMIT),
        plan_anew=True,
    )


@cache
def log_end(chosen: frozenset[str]) -> Statement:
    """The last entry of those that are looked at, and how many they are; no row where there is none."""
    rows = _window(chosen)
    return Statement(
        select(sayable(rows.c.at), rows.c.key, rows.c.seq, func.count().over())
        .order_by(rows.c.at, rows.c.key.desc(), rows.c.seq)
        .limit(literal_column("1")),
        plan_anew=True,
    )


_PROOF = history.outerjoin(
    payload,
    and_(
        payload.c.storage_id == history.c.storage_id,
        payload.c.key == history.c.key,
        payload.c.payload_id == history.c.payload_id,
        payload.c.chunk == literal_column("0"),
    ),
)
_ONE_HISTORY = and_(history.c.storage_id == _STORAGE, history.c.key == _given("key", history.c.key.type))

TIMELINE = Statement(
    select(
        *(history.c[name] if name == "tags" else as_read(history, name) for name in ENTRY_COLUMNS),
        payload.c.sha256,
    )
    .select_from(_PROOF)
    .where(_ONE_HISTORY, history.c.seq < _given("before", BigInteger))
    .order_by(history.c.seq.desc())
    .limit(_LIMIT)
)
"""The last entries of a key before one, the newest first."""

EXTENT = Statement(select(result.c.seq, result.c.version).where(ONE_KEY))
"""The numbers of a key's last entry and of its last version."""

VERSION_SIZE = Statement(
    select(history.c.size)
    .where(_ONE_HISTORY, history.c.version == _given("version", BigInteger), history.c.payload_id.is_not(None))
    .order_by(history.c.seq.desc())
    .limit(literal_column("1"))
)
"""The bytes of a version; no row where there is none."""

SIZE_AS_OF = Statement(
    select(history.c.size)
    .where(_ONE_HISTORY, history.c.at <= _given("moment", _TIME))
    .order_by(history.c.seq.desc())
    .limit(literal_column("1"))
)
"""The bytes of what a key had at a moment; no row where it had no history yet."""

_LIVE = and_(result.c.storage_id == _STORAGE, result.c.payload_id.is_not(None), UNEXPIRED)

LARGEST = Statement(
    select(result.c.key, result.c.version, result.c.size, sayable(result.c.created_at), as_utc(result.c.expires_at))
    .where(_LIVE)
    .order_by(result.c.size.desc(), result.c.key)
    .limit(_LIMIT)
)
"""The live results with the most bytes."""

_by_task = _task_of(result)
TASKS = Statement(
    select(
        _by_task.label("task"),
        func.count(),
        capped(func.sum(result.c.size)),
        sayable(func.max(result.c.created_at)),
    )
    .where(_LIVE, _by_task.is_not(None))
    .group_by(literal_column("1"))
    .order_by(func.count().desc(), literal_column("1"))
    .limit(_LIMIT)
)
"""The tasks with the most live results: how many, their bytes, and when the last one was written."""

_tag = func.unnest(result.c.tags).label("tag")
_tagged = select(_tag, result.c.size).where(_LIVE, result.c.tags.is_not(None)).subquery("tagged")
TAGS = Statement(
    select(_tagged.c.tag, func.count(), capped(func.sum(_tagged.c.size)))
    .group_by(_tagged.c.tag)
    .order_by(func.count().desc(), _tagged.c.tag)
    .limit(_LIMIT)
)
"""The tags that the most live results carry: how many, and their bytes."""

OVERDUE = Statement(
    select(result.c.key, result.c.version, result.c.size, as_utc(result.c.expires_at))
    .where(
        result.c.storage_id == _STORAGE,
        result.c.payload_id.is_not(None),
        result.c.expires_at.is_not(None),
        result.c.expires_at <= _NOW,
    )
    .order_by(result.c.expires_at, result.c.key)
    .limit(_LIMIT),
    plan_anew=True,
)
"""What has expired and waits to be swept, the first to expire first."""

_writes = history.c.action.in_((literal_column("'write'"), literal_column("'import'")))
_recent = (
    select(history.c.key, history.c.seq, history.c.at, history.c.version, history.c.size, history.c.actor)
    .add_columns(_task_of(history).label("task"))
    .where(history.c.storage_id == _STORAGE, _writes)
    .order_by(history.c.at.desc())
    .limit(_given("window", BigInteger))
    .subquery("recent")
)
_before = history.alias("before")
COMPUTED = Statement(
    select(
        _recent.c.key,
        sayable(_recent.c.at),
        _recent.c.version,
        _recent.c.size,
        _recent.c.actor,
        _recent.c.task,
        _before.c.action,
        sayable(_before.c.at),
        _before.c.actor,
        _before.c.reason,
        as_utc(_before.c.expires_at),
    )
    .select_from(
        _recent.outerjoin(
            _before,
            and_(
                _before.c.storage_id == _STORAGE,
                _before.c.key == _recent.c.key,
                _before.c.seq == _recent.c.seq - literal_column("1"),
            ),
        )
    )
    .where(_recent.c.task == _given("task", Text))
    .order_by(_recent.c.at.desc())
    .limit(_LIMIT),
    plan_anew=True,
)
"""The last results that a task computed, each with what its key's history said before."""

_bucket = func.date_bin(
    _given("step", INTERVAL), history.c.at, literal_column("'2000-01-01 00:00:00+00'::timestamptz", _TIME)
).label("bucket")
_rated = (
    select(_bucket, history.c.seq, _task_of(history).label("task"))
    .where(history.c.storage_id == _STORAGE, _writes, history.c.at > _NOW - _given("span", INTERVAL))
    .where(history.c.at <= _NOW)
    .order_by(history.c.at.desc())
    .limit(_given("window", BigInteger))
    .subquery("rated")
)
RATES = Statement(
    select(
        _rated.c.bucket,
        func.count(case((_rated.c.seq == literal_column("1"), literal_column("1")))),
        func.count(case((_rated.c.seq > literal_column("1"), literal_column("1")))),
    )
    .where(or_(_given("task", Text).is_(None), _rated.c.task == _given("task", Text)), _rated.c.task.is_not(None))
    .group_by(_rated.c.bucket)
    .order_by(_rated.c.bucket),
    plan_anew=True,
)
"""How many results of tasks were computed in each span of time: for the first time, and again."""

COMPARED = (
    "version", "payload_id", "expires_at", "serializer", "size", "tags", "provenance", "seq", "action", "at", "actor",
    "db_user", "holder", "fence", "reason", "digest",
)  # fmt: skip


def _said(rows: Any, *conditions: ColumnElement[bool]) -> Select[Any]:
    columns: list[ColumnElement[Any]] = [cast(rows.c[name], Text) for name in COMPARED]
    return select(*columns).where(*conditions)


HEAD_SAYS = Statement(_said(result, ONE_KEY))
ENTRY_SAYS = Statement(_said(history, _ONE_HISTORY).order_by(history.c.seq.desc()).limit(literal_column("1")))
"""What a key's row says, and what its last entry does: it has to be the same."""
