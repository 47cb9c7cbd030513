"""What is said about the current results: writing, reading, listing and deleting them; each statement is pure."""

from collections.abc import Sequence
from functools import partial
from itertools import chain, product, starmap
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    DateTime,
    Integer,
    Interval,
    LargeBinary,
    MetaData,
    Select,
    Table,
    Text,
    and_,
    any_,
    bindparam,
    cast,
    func,
    insert,
    literal_column,
    null,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.sql.dml import ReturningInsert
from sqlalchemy.sql.selectable import CTE

from pgresults.sql.compiled import CopyStatement, Statement
from pgresults.sql.digests import entry_digest_sql, expiry_sql, place_sql
from pgresults.sql.guards import Guard
from pgresults.sql.prefixes import begins
from pgresults.sql.schema import SCHEMA, history, payload, result
from pgresults.sql.times import as_utc, sayable

ONE_KEY = and_(result.c.storage_id == bindparam("storage_id"), result.c.key == bindparam("key"))
"""The condition that picks one key's row."""

UNEXPIRED = or_(result.c.expires_at.is_(None), result.c.expires_at > func.statement_timestamp())
"""The condition of a row whose time has not come; with a payload it is live."""

_NOW: ColumnElement[Any] = func.statement_timestamp()
_DB_USER = cast(literal_column("session_user"), Text)
_ONE = literal_column("1", BigInteger)
_GENESIS = literal_column("''::bytea", LargeBinary)
CONTENT = bindparam("content", type_=LargeBinary)

# Later entries never carry an earlier time, even where a statement waited for the row or the clock was set back.
_TICK: ColumnElement[Any] = literal_column("interval '1 microsecond'")


def next_entry(
    version: ColumnElement[Any],
    expires_at: ColumnElement[Any],
    content: ColumnElement[Any] = CONTENT,
    place: ColumnElement[Any] | None = None,
    expiry: ColumnElement[Any] | None = None,
) -> dict[str, ColumnElement[Any]]:
    """What every further entry under a key sets on the key's row, besides its own content.

    ``place`` and ``expiry`` are given where the client has computed them; see `entry_digest_sql`.
    """
    at = func.greatest(_NOW, result.c.at + _TICK)
    seq = result.c.seq + _ONE
    return {
        "version": version,
        "expires_at": expires_at,
        "seq": seq,
        "at": at,
        "db_user": _DB_USER,
        "previous": result.c.digest,
        "digest": entry_digest_sql(
            result.c.digest,
            place_sql(result.c.storage_id, result.c.key) if place is None else place,
            seq,
            version,
            at,
            expiry_sql(expires_at) if expiry is None else expiry,
            _DB_USER,
            content,
        ),
    }


_SERVER_COLUMNS = frozenset(
    ("version", "seq", "at", "created_at", "db_user", "previous", "digest"),
)
WRITTEN_COLUMNS = [name for name in result.c.keys() if name not in _SERVER_COLUMNS]  # noqa: SIM118 (no dict)
"""What a writer says of a version, in the columns of a key's row."""


def first_entry(
    content: ColumnElement[Any], place: ColumnElement[Any], expiry: ColumnElement[Any]
) -> dict[str, ColumnElement[Any]]:
    """What the first write of a key sets on its new row, besides its own content; see `next_entry`."""
    return {
        "version": _ONE,
        "seq": _ONE,
        "at": _NOW,
        "created_at": _NOW,
        "db_user": _DB_USER,
        "previous": _GENESIS,
        "digest": entry_digest_sql(_GENESIS, place, _ONE, _ONE, _NOW, expiry, _DB_USER, content),
    }


EXPIRES_IN: ColumnElement[Any] = _NOW + bindparam("expires_in", type_=Interval)
"""An expiration that is said as a time from now, which is the server's now."""


def _upsert_head(allowed: ColumnElement[bool], *, relative: bool) -> ReturningInsert[Any]:
    """Write a new version into the key's row, creating the row where there is none.

    ``relative``: its expiration is a time from now; else the client has computed what the digest takes of it.
    """
    given: dict[str, ColumnElement[Any]] = {
        name: bindparam(name, type_=result.c[name].type) for name in WRITTEN_COLUMNS
    }
    place: ColumnElement[Any] = bindparam("place_bytes", type_=LargeBinary)
    expiry: ColumnElement[Any] = bindparam("expiry_bytes", type_=LargeBinary)
    if relative:
        given["expires_at"] = EXPIRES_IN
        expiry = expiry_sql(EXPIRES_IN)
    first = given | first_entry(CONTENT, place, expiry)
    statement = upsert(result).from_select(list(first), select(*first.values()).where(allowed))
    expires_at = statement.excluded.expires_at
    if relative:
        expiry = expiry_sql(expires_at)
    following = next_entry(result.c.version + _ONE, expires_at, CONTENT, place, expiry)
    replaced = {name: statement.excluded[name] for name in WRITTEN_COLUMNS if name not in ("storage_id", "key")}
    return statement.on_conflict_do_update(
        index_elements=[result.c.storage_id, result.c.key],
        set_=replaced | following | {"created_at": following["at"]},
    ).returning(result.c.version, result.c.created_at, result.c.expires_at)


class Kind(NamedTuple):
    """Which of the statements that write a version."""

    guard: Guard
    with_payload: bool
    """Its payload is one chunk; else the payload is in its table already."""
    relative: bool
    """Its expiration is a time from now."""


CHUNK_COLUMNS = tuple(name for name in payload.c.keys() if name != "xid")  # noqa: SIM118 (no dict)
"""What a writer says of a chunk; in which transaction it came the server says."""


def _write(guard: Guard, *, with_payload: bool, relative: bool) -> ReturningInsert[Any]:
    """The whole write of one version: payload and head in one statement; a trigger takes the head into the history."""
    allowed = guard.condition()
    statement = _upsert_head(allowed, relative=relative)
    if with_payload:
        given: dict[str, ColumnElement[Any]] = {
            name: bindparam(name, type_=payload.c[name].type) for name in CHUNK_COLUMNS
        }
        given["chunk"] = literal_column("0", Integer)
        chunk = select(*given.values()).where(allowed)
        statement = statement.add_cte(insert(payload).from_select(list(given), chunk).cte("stored"))
    return statement


WRITE = {
    Kind(guard, with_payload, relative): Statement(partial(_write, guard, with_payload=with_payload, relative=relative))
    for guard, with_payload, relative in product(Guard, (True, False), (True, False))
}
"""Store a version; gives its version, time and expiration, or no row where the guard refuses."""

UPLOAD = CopyStatement(payload, CHUNK_COLUMNS, ("uuid", "text", "uuid", "int4", "bytea", "bytea", "bytea"))
"""Put the chunks of a payload into their table."""

FIND_WRITE = Statement(
    select(history.c.version, sayable(history.c.at), as_utc(history.c.expires_at)).where(
        history.c.storage_id == bindparam("storage_id"),
        history.c.key == bindparam("key"),
        history.c.payload_id == bindparam("payload_id"),
        history.c.action.in_((literal_column("'write'"), literal_column("'import'"))),
    )
)
"""Look whether a write whose answer was lost has been carried out."""

TAKEN_AWAY = Statement(
    select(history.c.action, sayable(history.c.at), history.c.actor)
    .where(
        history.c.storage_id == bindparam("storage_id"),
        history.c.key == bindparam("key"),
        history.c.seq < bindparam("before"),
        history.c.action.in_([literal_column(f"'{action}'") for action in ("delete", "expire", "redact")]),
    )
    .order_by(history.c.seq.desc())
    .limit(literal_column("1"))
)
"""The last entry that took a key's result away."""

VERSION_COLUMNS = (
    "version",
    "payload_id",
    "created_at",
    "expires_at",
    "serializer",
    "size",
    "sha256",
    "provenance",
    "storage_key",
    "storage_block_id",
    "pgresults_version",
    "prefect_version",
)
"""What a key's row says of its current version."""

HEAD_COLUMNS = (*VERSION_COLUMNS, "action", "at", "actor")
"""What a read needs to know of a key's row, in the order of `operations.results.Head`."""

SIGNED_COLUMNS = ("tags", "signature")
"""What it needs besides where versions are signed."""

_READ = ("storage_id", "key", "payload_id", "chunk", "data")
_TIMES = ("created_at", "expires_at", "at")


def as_read(table: Table, name: str) -> ColumnElement[Any]:
    """A column in the form in which it is read fastest, or at all.

    Objects and lists come as JSON texts, which are parsed only where somebody asks for them.
    """
    column: ColumnElement[Any] = table.c[name]
    match name:
        case "serializer" | "provenance":
            return cast(column, Text)
        case "tags" | "derived_from":
            return cast(func.array_to_json(column), Text)
        case "expires_at":
            return as_utc(column)
        case "at" | "created_at":
            return sayable(column)
    return column


# Each function in a statement is looked up anew in every call: times come as they are, and the driver makes of those
# that Python has not what it can.
def _said(names: Sequence[str]) -> tuple[ColumnElement[Any], ...]:
    return tuple(result.c[name] if name in _TIMES else as_read(result, name) for name in names)


_HEAD: tuple[ColumnElement[Any], ...] = (
    *_said(HEAD_COLUMNS),
    (result.c.expires_at <= func.statement_timestamp()).label("expired"),
)
_SIGNED: tuple[ColumnElement[Any], ...] = tuple(as_read(result, name) for name in SIGNED_COLUMNS)


CURRENT = Table(
    "current_payloads", MetaData(schema=SCHEMA), *(Column(c.name, c.type) for c in payload.c if c.name in _READ)
)
"""The payloads of what is live: who only reads has a right on them, and none on those that were superseded."""


class Look(NamedTuple):
    """Which of the statements that read a key."""

    at_table: bool
    """It may see the table of the payloads itself, which spares the view's proof that the payload is current."""
    signed: bool
    """What it finds must be signed."""
    known: bool = False
    """The payload may be known; then it is left out."""


# As a subquery, because a planner without statistics joins by key alone: over the payloads of every version.
def _first_chunk(key: ColumnElement[Any], *, at_table: bool, known: bool = False) -> ColumnElement[Any]:
    table = payload if at_table else CURRENT
    chunk = select(table.c.data).where(
        table.c.storage_id == bindparam("storage_id"),
        table.c.key == key,
        table.c.payload_id == result.c.payload_id,
        table.c.chunk == literal_column("0"),
    )
    if known:
        chunk = chunk.where(table.c.payload_id != bindparam("known_payload_id", type_=table.c.payload_id.type))
    return chunk.correlate(result).scalar_subquery().label("data")


def _read(look: Look) -> Select[Any]:
    chunk = _first_chunk(bindparam("key"), at_table=look.at_table, known=look.known)
    columns = (*_HEAD, *_SIGNED) if look.signed else _HEAD
    return select(chunk, *columns).select_from(result).where(ONE_KEY)


READ = {look: Statement(partial(_read, look)) for look in starmap(Look, product((True, False), repeat=3))}
"""The first chunk of a key's payload and its head; of what has expired the head alone counts."""


def _read_many(look: Look) -> Select[Any]:
    live = (
        result.c.storage_id == bindparam("storage_id"),
        result.c.key == any_(bindparam("keys", type_=ARRAY(Text))),
        result.c.payload_id.is_not(None),
        UNEXPIRED,
    )
    chunk = _first_chunk(result.c.key, at_table=look.at_table)
    columns = _said(VERSION_COLUMNS), _SIGNED if look.signed else ()
    return select(result.c.key, chunk, *chain(*columns)).select_from(result).where(*live)


READ_MANY = {look: Statement(partial(_read_many, look)) for look in starmap(Look, product((True, False), repeat=2))}
"""The first chunks of several keys that have a live result, each with what is said of its version, in one snapshot."""

LOOK_UP = Statement(select(*_HEAD).select_from(result).where(ONE_KEY))
"""The head of a key."""


def _further_chunks(table: Table) -> Statement:
    return Statement(
        select(table.c.chunk, table.c.data)
        .where(
            table.c.storage_id == bindparam("storage_id"),
            table.c.key == bindparam("key"),
            table.c.payload_id == bindparam("payload_id"),
            table.c.chunk > literal_column("0"),
        )
        .order_by(table.c.chunk)
    )


READ_CHUNKS = _further_chunks(CURRENT)
"""The further chunks of a payload that is current, in order."""

READ_CHUNK = Statement(
    select(CURRENT.c.data).where(
        CURRENT.c.storage_id == bindparam("storage_id"),
        CURRENT.c.key == bindparam("key"),
        CURRENT.c.payload_id == bindparam("payload_id"),
        CURRENT.c.chunk == bindparam("chunk"),
    )
)
"""One chunk of a payload that is current."""

READ_PAST_CHUNKS = _further_chunks(payload)
"""Those of any payload that is kept."""

EXISTS = Statement(
    select(literal_column("1")).select_from(result).where(ONE_KEY, result.c.payload_id.is_not(None), UNEXPIRED)
)
"""One row where the key has a live result."""


CLEARED = (
    "payload_id", "serializer", "size", "sha256", "tags", "provenance", "storage_key", "storage_block_id",
    "pgresults_version", "prefect_version", "signature", "derived_from", "payload_digest",
)  # fmt: skip
"""What a key's row no longer says once its version is gone."""

ENTRY_PARAMETERS = {
    name: bindparam(name, type_=result.c[name].type) for name in ("action", "actor", "holder", "fence", "reason")
}
"""What a caller says of an entry that stores no version."""


def end_versions(*conditions: ColumnElement[bool]) -> CTE:
    """Take the current version away from the keys' rows that meet the conditions."""
    no_expiry = cast(null(), DateTime(timezone=True))
    return (
        update(result)
        .where(*conditions)
        .values(**dict.fromkeys(CLEARED, null()), **ENTRY_PARAMETERS, **next_entry(result.c.version, no_expiry))
        .returning(*result.c)
        .cte("head")
    )


def _delete(guard: Guard) -> Select[Any]:
    head = end_versions(ONE_KEY, result.c.payload_id.is_not(None), UNEXPIRED, guard.condition())
    return select(head.c.version, sayable(head.c.at))


DELETE = {guard: Statement(partial(_delete, guard)) for guard in Guard}
"""Take a key's live version away, leaving its history."""

_LIST = (
    select(
        result.c.key,
        result.c.version,
        as_read(result, "created_at"),
        as_read(result, "expires_at"),
        result.c.size,
        result.c.serializer.op("->>")(literal_column("'type'")).label("serializer"),
    )
    .where(
        result.c.storage_id == bindparam("storage_id"),
        result.c.payload_id.is_not(None),
        UNEXPIRED,
        result.c.key > bindparam("after"),
    )
    .order_by(result.c.key)
    .limit(bindparam("limit"))
)
LIST, LIST_UNDER = Statement(_LIST), Statement(_LIST.where(*begins(result.c.key)))
"""A page of live results, all or under a prefix, by key."""
