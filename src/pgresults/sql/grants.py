"""The roles that programs and people use a schema of ours with, as statements for a database owner."""

import re
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from itertools import chain

from psycopg import sql

from pgresults.sql import schema as tables
from pgresults.sql.distribution import letting

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
_HISTORY: dict[str | None, tuple[str, ...]] = dict.fromkeys(
    (tables.history.name, "result_history", "activity", "lineage", "holds", "retention_rules", "retention_due"), _READ
)
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

_HOLD = "place_hold(uuid, text, text, timestamptz, text, regclass)"
_RELEASE = "release_hold(uuid, text, text, text, regclass)"
_RULES = ("set_rule(uuid, text, text, text, text, regclass)", "end_rule(uuid, uuid, text, text, regclass)")
_SWEEPING = (
    *_RULES,
    "held(uuid, text, regclass)",
    "forget_released(integer, uuid, regclass)",
    "sweep(integer, uuid, text, text, regclass)",
    "bare_content(text, text, text, text)",
    "entry_digest(bytea, uuid, text, bigint, bigint, timestamptz, timestamptz, text, bytea)",
)
_FUNCTIONS: dict[Kind, tuple[str, ...]] = {
    Kind.WRITER: ("forget_released(integer, uuid, regclass)", _HOLD),
    Kind.AUDITOR: (_HOLD, _RELEASE),
    Kind.SWEEPER: _SWEEPING,
    Kind.OWNER: (*_SWEEPING, "maintenance(text, regclass)", _HOLD, _RELEASE),
}
"""The functions that a kind of role may run; the public may run none."""

_COUNTING = ((tables.fence.name, "SELECT"), (tables.forgotten.name, "SELECT"))
_SEQUENCES: dict[Kind, tuple[tuple[str, str], ...]] = {
    Kind.WRITER: ((tables.fence.name, "USAGE"), *_COUNTING),
    Kind.SWEEPER: _COUNTING,
    Kind.OWNER: ((tables.fence.name, "USAGE"), *_COUNTING),
}


ROLES = {kind: f"pgresults_{kind}" for kind in Kind}
"""How the role of each kind is called unless an operator names it otherwise."""


def allowed(name: str, column: str | None, privilege: str) -> bool:
    """Whether some kind of role but an owner is granted that.

    Parameters:
        name: a table, view, sequence or function.
        column: one of its columns; None: the whole.
        privilege: as the server calls it.
    """
    others = [kind for kind in Kind if kind is not Kind.OWNER]
    if privilege == "EXECUTE":
        return any(call.startswith(f"{name}(") for kind in others for call in _FUNCTIONS.get(kind, ()))
    given = [one for kind in others for table in (name, _ALL_TABLES) for one in _PRIVILEGES[kind].get(table, ())]
    given += [one for kind in others for sequence, one in _SEQUENCES.get(kind, ()) if sequence == name]
    if privilege in given or column is None:
        return privilege in given
    parts = [parsed for one in given if (parsed := _COLUMNS.fullmatch(one))]
    return any(parsed[1] == privilege and column in parsed[2].split(", ") for parsed in parts)


def grants(schema: str = tables.SCHEMA, roles: Mapping[Kind, str] | None = None) -> str:
    """The statements that create a role of each kind and grant what it needs, to be run by the owner of the tables.

    Parameters:
        schema: the schema that holds the tables.
        roles: their names, where they are others than in `ROLES`; a role that exists is kept as it is.

    Returns: SQL, one statement a line; it may be run again.
    """
    named = {**ROLES, **(roles or {})}
    created = (sql.SQL("DO {}").format(sql.Literal(_creation(role))) for role in named.values())
    return _script(created) + "".join(_granting(schema, role, kind) for kind, role in named.items()) + _spread(schema)


def granting(schema: str, role: str, kind: Kind) -> str:
    """The statements that grant a role that exists what a kind of role needs.

    The last one fails where that was not granted, of which the server only warns whoever is not the tables' owner.

    Returns: SQL, one statement a line; it may be run again.
    """
    return _granting(schema, role, kind) + _spread(schema)


def _spread(schema: str) -> str:
    """What else is granted where the schema is spread over several servers."""
    return f"{' '.join(letting(schema).as_string(None).split())};\n"


def _granting(schema: str, role: str, kind: Kind) -> str:
    checked = sql.SQL("DO {}").format(sql.Literal(_check(schema, role, kind)))
    return _script(chain(_statements(schema, sql.Identifier(role), kind), [checked]))


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
    for sequence, privilege in _SEQUENCES.get(kind, ()):
        counted = sql.Identifier(schema, sequence)
        yield sql.SQL("GRANT {} ON SEQUENCE {} TO {}").format(sql.SQL(privilege), counted, role)


def _script(statements: Iterable[sql.Composed]) -> str:
    return "".join(statement.as_string(None) + ";\n" for statement in statements)


def _creation(role: str) -> str:
    """A block that creates a role; there is no ``CREATE ROLE IF NOT EXISTS``."""
    block = sql.SQL("BEGIN CREATE ROLE {} NOLOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END")
    return block.format(sql.Identifier(role)).as_string(None)


_COLUMNS = re.compile(r"(\w+) \((.*)\)")
_EVERYTHING = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")


def lacking(schema: str, role: str, kind: Kind) -> sql.Composed:
    """A query for what a role lacks of what a kind of role needs, in words."""
    return sql.SQL(" UNION ALL ").join(
        sql.SQL("SELECT {} WHERE {} IS NOT TRUE").format(sql.Literal(what), has)
        if what
        else sql.SQL("SELECT name FROM ({}) AS relations (name)").format(has)
        for what, has in _needs(schema, role, kind)
    )


def _check(schema: str, role: str, kind: Kind) -> str:
    """A block that fails where a role lacks something that its kind needs."""
    block = sql.SQL(
        "DECLARE lacking text; BEGIN SELECT string_agg(what, ', ') FROM (SELECT what FROM ({}) AS everything (what) "
        "LIMIT 3) AS shown INTO lacking; IF lacking IS NOT NULL THEN RAISE insufficient_privilege USING MESSAGE = {} "
        "|| lacking || {}; END IF; END"
    )
    message = f"nothing was granted, for {role} would still lack "
    advice = f": only the owner of the tables of schema {schema} can grant that"
    return block.format(lacking(schema, role, kind), sql.Literal(message), sql.Literal(advice)).as_string(None)


def _needs(schema: str, role: str, kind: Kind) -> Iterator[tuple[str, sql.Composed]]:
    """What a kind needs, by name, and the question whether a role has it; without a name, a query for what it lacks."""

    def asked(function: str, *arguments: str) -> sql.Composed:
        given = sql.SQL(", ").join(map(sql.Literal, (role, *arguments)))
        return sql.SQL("pg_catalog.{}({})").format(sql.SQL(function), given)

    def quoted(name: str) -> str:
        return sql.Identifier(schema, name).as_string(None)

    yield "USAGE on the schema", asked("has_schema_privilege", schema, "USAGE")
    for table, privileges in _PRIVILEGES[kind].items():
        for privilege in _EVERYTHING if privileges == ("ALL",) else privileges:
            if table is None:
                yield "", _lacking_tables(schema, role, privilege)
            elif columns := _COLUMNS.fullmatch(privilege):
                for column in columns[2].split(", "):
                    has = asked("has_column_privilege", quoted(table), column, columns[1])
                    yield f"{columns[1]} on {table} ({column})", has
            else:
                yield f"{privilege} on {table}", asked("has_table_privilege", quoted(table), privilege)
    for function in _FUNCTIONS.get(kind, ()):
        call = f"{sql.Identifier(schema).as_string(None)}.{function}"
        yield f"EXECUTE on {function}", asked("has_function_privilege", call, "EXECUTE")
    for sequence, privilege in _SEQUENCES.get(kind, ()):
        yield f"{privilege} on {sequence}", asked("has_sequence_privilege", quoted(sequence), privilege)


def _lacking_tables(schema: str, role: str, privilege: str) -> sql.Composed:
    return sql.SQL(
        "SELECT {} || relname FROM pg_catalog.pg_class WHERE relnamespace = {}::regnamespace "
        "AND relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT pg_catalog.has_table_privilege({}, oid, {})"
    ).format(
        sql.Literal(f"{privilege} on "),
        sql.Literal(sql.Identifier(schema).as_string(None)),
        sql.Literal(role),
        sql.Literal(privilege),
    )
