"""The statements that take the place of others where a schema is spread over several servers; see `distribution`."""

from collections.abc import Mapping
from functools import cache
from itertools import product
from typing import Any, TypeAlias

from psycopg import sql
from sqlalchemy import ARRAY, BigInteger, ColumnElement, Text, Uuid, bindparam, delete, func, literal_column, select

from pgresults.sql import bulk, history, results
from pgresults.sql.compiled import Query, Statement
from pgresults.sql.coordinator_functions import MANY, PROOF
from pgresults.sql.guards import Guard
from pgresults.sql.results import HEAD_COLUMNS, SIGNED_COLUMNS, Kind, Look
from pgresults.sql.schema import history as entries
from pgresults.sql.schema import payload, result
from pgresults.sql.shard_functions import BY_KEY, GIVEN, SAID

_Said: TypeAlias = str | sql.Literal | None
"""The parameter of a statement, a constant, or nothing."""


class FunctionStatement(Statement):
    """A query of what one of the schema's own functions gives.

    Parameters:
        columns: what to select of it.
        function: its name.
        types: its parameters, in their order, and the type of each.
        said: the parameter of the statement that a parameter stands for, where its name is another, or what else it is.
    """

    changes = True

    def __init__(
        self,
        columns: str,
        function: str,
        types: Mapping[str, str],
        said: Mapping[str, _Said] | None = None,
    ) -> None:
        self._columns, self._function, self._types, self._said = columns, function, types, said or {}
        self.query = cache(self._compile)

    def _compile(self, schema: str) -> Query:
        names: list[str] = []
        places: list[sql.Composable] = []
        for name, kind in self._types.items():
            said = self._said.get(name, name)
            if isinstance(said, str):
                names.append(said)
                places.append(sql.SQL(f"${len(names)}::{kind}"))
            else:
                places.append(said or sql.NULL)
        call = sql.SQL("SELECT {} FROM {}({})").format(
            sql.SQL(self._columns),
            sql.Identifier(schema, self._function),
            sql.SQL(", ").join(places),
        )
        return Query(call.as_bytes(None), tuple(names))


def _proven(guard: Guard) -> dict[str, _Said]:
    fence = guard is Guard.FENCE
    return {
        "guard": sql.Literal(guard.value),
        "of_holder": "holder",
        "of_fence": "fence" if fence else None,
        "token": "token" if fence else None,
    }


_WRITTEN = "version, created_at, expires_at"


def _write(kind: Kind) -> FunctionStatement:
    unsaid = {} if kind.with_payload else {"data": None, "salt": None}
    if kind.guard is Guard.NONE:
        return FunctionStatement(_WRITTEN, "write_version", GIVEN, unsaid)
    return FunctionStatement(_WRITTEN, "write_proven", {**GIVEN, **PROOF}, unsaid | _proven(kind.guard))


WRITE = {kind: _write(kind) for kind in (Kind(*one) for one in product(Guard, (True, False), (True, False)))}
"""Store a version."""

WRITE_MANY = {
    guard: FunctionStatement(
        "key, version, created_at, timezone('UTC', expires_at)",
        "write_many",
        {**MANY, "guarded": "boolean"},
        {"guarded": sql.Literal(guard is Guard.NOT_HELD)},
    )
    for guard in bulk.WRITE_MANY
}
"""Store versions under keys that differ."""


def _change(columns: str, guard: Guard = Guard.NONE, **unsaid: _Said) -> FunctionStatement:
    if guard is Guard.NONE:
        return FunctionStatement(columns, "change_head", SAID, unsaid)
    return FunctionStatement(columns, "change_proven", {**SAID, **PROOF}, unsaid | _proven(guard))


DELETE = {guard: _change("version, at", guard, expires_at=None) for guard in Guard}
TOUCH = {guard: _change("version", guard) for guard in Guard}
REDACT = {guard: _change("version", guard, expires_at=None) for guard in Guard}
"""Append an entry that stores no version."""

RECORD_BREAK = _change("seq", expires_at=None)
"""Say that a lock was broken, be it the first entry of its key."""

RETAIN = _change("seq", expires_at=None, fence=None)
"""Say of one key that earlier versions lose their payloads."""

_AS_READ = {
    **{name: f"{name}::text" for name in ("serializer", "provenance")},
    "tags": "array_to_json(tags)::text",
}
_CHUNK = "{}.first_chunk(key, storage_id, payload_id, expires_at, $3::uuid)"


class _Read(Statement):
    """A query of one row of one table, which Citus plans once; what else is wanted is fetched where the row is."""

    changes = False

    def __init__(self, look: Look) -> None:
        self._columns = (*HEAD_COLUMNS, "expires_at <= statement_timestamp()", *(SIGNED_COLUMNS if look.signed else ()))
        self.query = cache(self._compile)

    def _compile(self, schema: str) -> Query:
        text = sql.SQL("SELECT {}, {} FROM {} WHERE storage_id = $1::uuid AND key = $2").format(
            sql.SQL(_CHUNK).format(sql.Identifier(schema)),
            sql.SQL(", ".join(_AS_READ.get(name, name) for name in self._columns)),
            sql.Identifier(schema, result.name),
        )
        return Query(text.as_bytes(None), ("storage_id", "key", "known_payload_id"))


READ = {look: _Read(look) for look in results.READ}
"""The head of a key with the first chunk of its payload, unless the caller knows that payload already."""

LOCK = FunctionStatement("lock_head", "lock_head", BY_KEY["lock_head"])
"""Lock a key's head."""

END_ALL = {
    guarded: FunctionStatement(
        "ended, obstacle",
        "end_all",
        {"storage_id": "uuid", "keys": "text[]", "actor": "text", "holder": "text", "fence": "bigint",
         "reason": "text", "content": "bytea", "guarded": "boolean"},
        {"guarded": sql.Literal(guarded)},
    )
    for guarded in (True, False)
}  # fmt: skip
"""Take the current versions of some keys away."""

LOCKED_KEYS = FunctionStatement("locked_keys", "locked_keys", {"storage_id": "uuid", "holder": "text"})
"""The keys that another holder has locked, and lives."""

REGISTER = FunctionStatement("register_storage", "register_storage", {"id": "uuid", "name": "text"})
"""Enter a storage's name in the registry."""

_STORAGE = bindparam("storage_id", type_=Uuid)
_UNLOCKED = result.c.key != func.all(bindparam("locked", type_=ARRAY(Text)))

_counts: tuple[ColumnElement[Any], ...] = (func.count(), literal_column("0"))
EXPIRED = Statement(select(*_counts).select_from(result).where(history.OVERDUE, _UNLOCKED))
"""How many results a sweep would take; none is on hold, which is not to be had here."""

PAGE = Statement(
    select(result.c.key)
    .where(result.c.storage_id == _STORAGE, result.c.key > bindparam("after", type_=result.c.key.type), _UNLOCKED)
    .order_by(result.c.key)
    .limit(bindparam("limit", type_=BigInteger))
)
"""A page of keys that nobody else has locked."""

STAYING = Statement(
    select(result.c.key, *history.STAYING)
    .where(result.c.storage_id == _STORAGE, result.c.key == func.any(bindparam("keys", type_=ARRAY(Text))), _UNLOCKED)
    .order_by(result.c.key)
)
"""What the heads of some keys say, to say it again."""

_KEY = bindparam("key", type_=result.c.key.type)

SUPERFLUOUS = history.superfluous(
    select(result.c.key, result.c.version, result.c.payload_id, literal_column("false").label("held")).where(
        result.c.storage_id == _STORAGE, result.c.key == _KEY
    )
)
"""What one key need not keep."""


def _drop() -> Statement:
    gone = (
        delete(payload)
        .where(
            payload.c.storage_id == _STORAGE,
            payload.c.key == _KEY,
            entries.c.storage_id == _STORAGE,
            entries.c.key == _KEY,
            entries.c.version <= bindparam("upto", type_=BigInteger),
            entries.c.payload_id == payload.c.payload_id,
            entries.c.action.in_((literal_column("'write'"), literal_column("'import'"))),
        )
        .returning(payload.c.chunk)
        .cte("gone")
    )
    return Statement(select(func.count()).select_from(gone).where(gone.c.chunk == literal_column("0")))


DROP = _drop()
"""Take the payloads of one key's versions up to a number away; gives how many."""

CERTAIN = FunctionStatement("bound, until", "certain", {})
"""Up to where all transactions have ended, on every server."""

GUARDS = FunctionStatement("trigger, of, false", "missing_guards", {})
"""The triggers that keep the history and are gone or off, on any shard."""
