"""The roles that programs and people use a schema of ours with, as statements for a database owner."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from psycopg import sql

from pgresults.sql import schema as tables

_READ = ("SELECT",)
_STORE = "INSERT (storage_id, key, payload_id, chunk, data, salt, sha256)"  # the transaction is for the server to say
_ALL_TABLES = None
_VIEWS = ("live_results", "expirations", "storage_usage", "held_locks")
_LOCKS = f"SELECT ({', '.join(name for name in tables.lock.c.keys() if name != 'token')})"  # noqa: SIM118 (no dict)
_TAKEN = ", ".join(name for name in tables.lock.c.keys() if name not in ("storage_id", "key", "db_user"))  # noqa: SIM118
_PROOFS = "SELECT (storage_id, key, payload_id, chunk, sha256, xid)"


class Kind(StrEnum):
    """What a role is for."""

    WRITER = "writer"
    """Stores results and takes locks; neither changes nor removes history."""

    READER = "reader"
    """Reads what is there now."""

    AUDITOR = "auditor"
    """Reads everything, history included: enough to verify and to seal."""

    HISTORIAN = "historian"
    """Reads all history and no payload: enough to seal and to see who did what, not to verify payloads."""

    SWEEPER = "sweeper"
    """Takes away what has expired, was superseded or must be erased."""

    OWNER = "owner"
    """May do everything with the tables; what the history refuses, it refuses to owners, too."""


_SHOWN: dict[str | None, tuple[str, ...]] = {
    **dict.fromkeys(
        (tables.VERSION_TABLE, tables.storage.name, tables.result.name, tables.waiting.name, *_VIEWS), _READ
    ),
    tables.lock.name: (_LOCKS,),
}
_CURRENT: dict[str | None, tuple[str, ...]] = dict.fromkeys(("current_payloads", "json_results"), _READ)
_HISTORY: dict[str | None, tuple[str, ...]] = dict.fromkeys((tables.history.name, "result_history"), _READ)
_PRIVILEGES: dict[Kind, dict[str | None, tuple[str, ...]]] = {
    Kind.WRITER: {
        _ALL_TABLES: _READ,
        tables.storage.name: ("INSERT (id, name, created_at)",),  # the identity is for the server to say
        tables.result.name: ("INSERT", "UPDATE"),
        tables.payload.name: (_STORE,),
        tables.lock.name: (f"INSERT (storage_id, key, {_TAKEN})", f"UPDATE ({_TAKEN})"),
        tables.waiting.name: ("INSERT", "UPDATE", "DELETE"),
    },
    Kind.READER: _SHOWN | _CURRENT,
    Kind.AUDITOR: _SHOWN | _CURRENT | _HISTORY | {tables.payload.name: _READ, tables.document.name: _READ},
    Kind.HISTORIAN: _SHOWN | _HISTORY | {tables.payload.name: (_PROOFS,)},
    Kind.SWEEPER: {
        _ALL_TABLES: _READ,
        tables.result.name: ("UPDATE",),
        tables.payload.name: ("DELETE",),
        tables.lock.name: ("UPDATE (taken_over_from)",),  # a proof locks its row
    },
    Kind.OWNER: {_ALL_TABLES: ("ALL",)},
}

_SWEEPING = (
    "forget_released(integer, uuid, regclass)",
    "sweep(integer, uuid, text, text, regclass)",
    "bare_content(text, text, text, text)",
    "entry_digest(bytea, uuid, text, bigint, bigint, timestamptz, timestamptz, text, bytea)",
)
_FUNCTIONS: dict[Kind, tuple[str, ...]] = {
    Kind.WRITER: ("forget_released(integer, uuid, regclass)",),
    Kind.SWEEPER: _SWEEPING,
    Kind.OWNER: (*_SWEEPING, "maintenance(text, regclass)"),
}
"""The functions that a kind of role may run; the public may run none."""


@dataclass(frozen=True)
class Roles:
    """The names of the roles: ``writer`` stores and locks but cannot change history, ``reader`` reads everything."""

    writer: str = "pgresults_writer"
    reader: str = "pgresults_reader"


def grants(schema: str = tables.SCHEMA, roles: Roles | None = None) -> str:
    """The statements that create the roles and grant what they need, to be run by the owner of the tables.

    Parameters:
        schema: the schema that holds the tables.
        roles: their names; a role that exists is kept as it is.

    Returns: SQL, one statement a line; it may be run again.
    """
    roles = roles or Roles()
    created = (sql.SQL("DO {}").format(sql.Literal(_creation(role))) for role in (roles.writer, roles.reader))
    granted = (granting(schema, roles.writer, Kind.WRITER), granting(schema, roles.reader, Kind.AUDITOR))
    return _script(created) + "".join(granted)


def granting(schema: str, role: str, kind: Kind) -> str:
    """The statements that grant a role that exists what a kind of role needs.

    Returns: SQL, one statement a line; it may be run again.
    """
    return _script(_statements(schema, sql.Identifier(role), kind))


def _statements(schema: str, role: sql.Identifier, kind: Kind) -> Iterator[sql.Composed]:
    yield sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(sql.Identifier(schema), role)
    for table, privileges in _PRIVILEGES[kind].items():
        granted = sql.SQL(", ").join(map(sql.SQL, privileges))
        target = (
            sql.SQL("ALL TABLES IN SCHEMA {}").format(sql.Identifier(schema))
            if table is None
            else sql.Identifier(schema, table)
        )
        yield sql.SQL("GRANT {} ON {} TO {}").format(granted, target, role)
    for function in _FUNCTIONS.get(kind, ()):
        call = sql.SQL("{}.{}").format(sql.Identifier(schema), sql.SQL(function))
        yield sql.SQL("GRANT EXECUTE ON FUNCTION {} TO {}").format(call, role)
    if kind in (Kind.WRITER, Kind.OWNER):
        fence = sql.Identifier(schema, tables.fence.name)
        yield sql.SQL("GRANT USAGE, SELECT ON SEQUENCE {} TO {}").format(fence, role)
    if kind in (Kind.WRITER, Kind.OWNER, Kind.SWEEPER):
        forgotten = sql.Identifier(schema, tables.forgotten.name)
        yield sql.SQL("GRANT SELECT ON SEQUENCE {} TO {}").format(sql.Identifier(schema, tables.fence.name), role)
        yield sql.SQL("GRANT SELECT ON SEQUENCE {} TO {}").format(forgotten, role)


def _script(statements: Iterator[sql.Composed]) -> str:
    return "".join(statement.as_string(None) + ";\n" for statement in statements)


def _creation(role: str) -> str:
    """A block that creates a role; there is no ``CREATE ROLE IF NOT EXISTS``."""
    block = sql.SQL("BEGIN CREATE ROLE {} NOLOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END")
    return block.format(sql.Identifier(role)).as_string(None)
