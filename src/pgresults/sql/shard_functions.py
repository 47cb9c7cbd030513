"""The functions by which a key changes where its shard is; see `distribution`.

They take the place of the trigger that records entries, which cannot look beyond its own row there. Each is called with
the key, and its statements name that argument itself: so all of them go to the key's own shard.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Column
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeEngine

from pgresults.sql.results import CLEARED, WRITTEN_COLUMNS
from pgresults.sql.schema import history, result

MARK = "write_version"
"""The function by which one sees that a schema is spread."""

_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]

_BYTEWISE = ' COLLATE "C"'  # no part of a parameter's type

_ENTRY = [name for name in history.c.keys() if name != "xid"]  # noqa: SIM118 (no dict)


def type_of(kind: TypeEngine[Any]) -> str:
    return kind.compile(dialect=_DIALECT)


def column_type(column: Column[Any]) -> str:
    return type_of(column.type)


GIVEN = {
    "key": "text",
    **{name: column_type(result.c[name]).removesuffix(_BYTEWISE) for name in WRITTEN_COLUMNS if name != "key"},
    "content": "bytea",
    "place_bytes": "bytea",
    "expiry_bytes": "bytea",
    "expires_in": "interval",
    "data": "bytea",
    "salt": "bytea",
}
"""What a writer says of a version, by the type of each."""

SAID = {
    "key": "text",
    "storage_id": "uuid",
    "action": "text",
    "actor": "text",
    "holder": "text",
    "fence": "bigint",
    "reason": "text",
    "content": "bytea",
    "expires_at": "timestamptz",
}
"""What is said of an entry that stores no version."""


def declared(types: dict[str, str]) -> str:
    return ", ".join(f"_{name} {kind}" for name, kind in types.items())


_NEXT_AT = "CASE WHEN excluded.at > r.at THEN excluded.at ELSE {schema}.tick(r.at) END"

_DIGEST = (
    "sha256(int4send(octet_length({previous})) || {previous} || _place_bytes || int8send({seq}) || int8send({version})"
    " || timestamptz_send({at}) || _expiry || _said)"
)


def _first_row() -> dict[str, str]:
    said = {name: f"_{name}" for name in WRITTEN_COLUMNS} | {"expires_at": "_until"}
    return said | {
        "version": "1",
        "seq": "1",
        "at": "_now",
        "created_at": "_now",
        "db_user": "session_user",
        "previous": "''::bytea",
        "digest": _DIGEST.format(previous="''::bytea", seq="1", version="1", at="_now"),
    }


def _next_row() -> dict[str, str]:
    said = {name: f"excluded.{name}" for name in WRITTEN_COLUMNS if name not in ("storage_id", "key")}
    return said | {
        "version": "r.version + 1",
        "seq": "r.seq + 1",
        "at": _NEXT_AT,
        "created_at": _NEXT_AT,
        "db_user": "excluded.db_user",
        "previous": "r.digest",
        "digest": _DIGEST.format(previous="r.digest", seq="r.seq + 1", version="r.version + 1", at=_NEXT_AT),
    }


_TICK = """
CREATE OR REPLACE FUNCTION {schema}.tick(moment timestamptz) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT moment OPERATOR(pg_catalog.+) interval '1 microsecond' $$
"""

WRITTEN = "RETURNS TABLE (version bigint, created_at timestamptz, expires_at timestamptz)"

_AS_OWNER = "LANGUAGE plpgsql SECURITY DEFINER SET search_path = {schema}, pg_temp"


# The row of `result`, which Citus finds, keeps the shards of its key where they are until the transaction ends. What
# follows names them itself: to plan for a table takes longer than to write.
def _stored(table: str, said: Mapping[str, str]) -> str:
    """The statement that puts a row of the key into a shard whose name is made of that table's."""
    places = ", ".join(f"${number}" for number in range(1, len(said) + 1))
    return f"""
    EXECUTE 'INSERT INTO ' || {{{table}_shards}} || get_shard_id_for_distribution_column({{{table}}}, _key)
            || ' ({", ".join(said)}) VALUES ({places})'
    USING {", ".join(said.values())};"""  # noqa: S608 (the names are ours)


def _written_entry() -> dict[str, str]:
    known = {name: f"_head.{name}" for name in ("version", "seq", "at", "previous", "digest")}
    known |= {"expires_at": "_until", "db_user": "session_user::text"}
    return {name: known.get(name, f"_{name}") for name in _ENTRY}


_CHUNK = {name: f"_{name}" for name in ("storage_id", "key", "payload_id")} | {
    "chunk": "0",
    **{name: f"_{name}" for name in ("data", "salt", "sha256")},
}


_WRITE = f"""
CREATE OR REPLACE FUNCTION {{schema}}.write_version({declared(GIVEN)})
{WRITTEN}
{_AS_OWNER} AS $$
#variable_conflict use_column
DECLARE
    _now timestamptz := statement_timestamp();
    _until timestamptz := coalesce(_expires_at, _now + _expires_in);
    _user bytea := convert_to(session_user::text, 'UTF8');
    _said bytea := int4send(octet_length(_user)) || _user || _content;
    _expiry bytea := CASE WHEN _expires_in IS NULL THEN _expiry_bytes END;
    _head record;
BEGIN
    _expiry := coalesce(_expiry, int4send(8) || timestamptz_send(_until), int4send(-1));
    IF NOT has_any_column_privilege(session_user, {{payload}}, 'INSERT')
       OR _action NOT IN ('write', 'import') OR _payload_id IS NULL
       OR _storage_id = '00000000-0000-0000-0000-000000000000' THEN
        RAISE EXCEPTION 'permission denied: this is no version that a write may make under the key %',
                        quote_literal(_key) USING ERRCODE = 'insufficient_privilege';
    END IF;
    INSERT INTO {{schema}}.result AS r ({", ".join(_first_row())})
    VALUES ({", ".join(_first_row().values())})
    ON CONFLICT (storage_id, key) DO UPDATE SET
        {", ".join(f"{name} = {value}" for name, value in _next_row().items())}
    RETURNING r.version, r.seq, r.at, r.previous, r.digest INTO _head;
    {_stored("history", _written_entry())}
    IF _data IS NOT NULL THEN
        {_stored("payload", _CHUNK)}
    ELSIF NOT EXISTS (
        SELECT FROM {{schema}}.payload p
        WHERE p.storage_id = _storage_id AND p.key = _key AND p.payload_id = _payload_id AND p.chunk = 0
    ) THEN
        RAISE EXCEPTION 'permission denied: the payload of % is not there', quote_literal(_key)
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN QUERY VALUES (_head.version::bigint, _head.at::timestamptz, _until);
END
$$
"""  # noqa: S608 (the names are ours)

CHANGED = "RETURNS TABLE (version bigint, at timestamptz, seq bigint)"

_UNEXPIRED = "(_old.expires_at IS NULL OR _old.expires_at > statement_timestamp())"


def _new_row(names: Iterable[str]) -> str:
    """The row that is made; its key is named as the argument, which is what is known to be on this server."""
    return ", ".join("_key" if name == "key" else f"_new.{name}" for name in names)


_CHANGE = f"""
CREATE OR REPLACE FUNCTION {{schema}}.change_head({declared(SAID)})
{CHANGED}
{_AS_OWNER} AS $$
#variable_conflict use_column
DECLARE
    _old {{schema}}.result;
    _new {{schema}}.result;
    _name bytea := convert_to(_key, 'UTF8');
    _user bytea := convert_to(session_user::text, 'UTF8');
    _place_bytes bytea := uuid_send(_storage_id) || int4send(octet_length(_name)) || _name;
    _said bytea := int4send(octet_length(_user)) || _user || _content;
    _expiry bytea;
    _takes boolean := _action IN ('expire', 'redact', 'retain');
BEGIN
    IF NOT coalesce(_action IN ('touch', 'break', 'retain', 'delete', 'expire', 'redact'), false)
       OR (_takes AND NOT has_table_privilege(session_user, {{payload}}, 'DELETE'))
       OR (NOT _takes AND NOT has_any_column_privilege(session_user, {{payload}}, 'INSERT')) THEN
        RAISE EXCEPTION 'permission denied: this is no entry that % may make under the key %', session_user,
                        quote_literal(_key) USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF _action = 'expire' THEN -- what somebody works on is left for later
        SELECT * INTO _old FROM {{schema}}.result r WHERE r.storage_id = _storage_id AND r.key = _key
        FOR UPDATE SKIP LOCKED;
    ELSE
        SELECT * INTO _old FROM {{schema}}.result r WHERE r.storage_id = _storage_id AND r.key = _key FOR UPDATE;
    END IF;
    _new := _old;
    IF _old.key IS NULL THEN
        IF _action <> 'break' THEN
            RETURN;
        END IF;
        _new.storage_id := _storage_id;
        _new.key := _key;
        _new.version := 0;
    ELSIF (_action IN ('delete', 'touch') AND NOT (_old.payload_id IS NOT NULL AND {_UNEXPIRED}))
          OR (_action = 'expire' AND (_old.payload_id IS NULL OR {_UNEXPIRED})) THEN
        RETURN;
    END IF;
    _new.seq := coalesce(_old.seq, 0) + 1;
    _new.at := greatest(statement_timestamp(), _old.at + interval '1 microsecond');
    _new.action := _action;
    _new.actor := _actor;
    _new.db_user := session_user;
    _new.holder := _holder;
    _new.fence := _fence;
    _new.reason := _reason;
    IF _action = 'touch' THEN
        _new.expires_at := _expires_at;
    ELSIF _action IN ('delete', 'expire', 'redact') THEN
        _new.expires_at := NULL;
        {" ".join(f"_new.{name} := NULL;" for name in CLEARED)}
    END IF;
    _new.previous := coalesce(_old.digest, '');
    _expiry := coalesce(int4send(8) || timestamptz_send(_new.expires_at), int4send(-1));
    _new.digest := {_DIGEST.format(previous="_new.previous", seq="_new.seq", version="_new.version", at="_new.at")};
    IF _action = 'expire' THEN
        DELETE FROM {{schema}}.payload p
        WHERE p.storage_id = _storage_id AND p.key = _key AND p.payload_id = _old.payload_id;
    END IF;
    IF _old.key IS NULL THEN
        INSERT INTO {{schema}}.result ({", ".join(result.c.keys())})
        VALUES ({_new_row(result.c.keys())})
        ON CONFLICT DO NOTHING;
        IF NOT FOUND THEN
            RETURN; -- another's first entry came in between
        END IF;
    ELSE
        UPDATE {{schema}}.result r
        SET {", ".join(f"{name} = _new.{name}" for name in result.c.keys() if name not in ("storage_id", "key"))}
        WHERE r.storage_id = _storage_id AND r.key = _key;
    END IF;
    INSERT INTO {{schema}}.history ({", ".join(_ENTRY)}) VALUES ({_new_row(_ENTRY)});
    RETURN QUERY VALUES (_new.version, _new.at, _new.seq);
END
$$
"""  # noqa: S608, SIM118 (the names are ours; no dict)

_LOCK = f"""
CREATE OR REPLACE FUNCTION {{schema}}.lock_head(_key text, _storage_id uuid) RETURNS boolean
{_AS_OWNER} AS $$
BEGIN
    IF NOT (has_any_column_privilege(session_user, {{payload}}, 'INSERT')
            OR has_table_privilege(session_user, {{payload}}, 'DELETE')) THEN
        RAISE EXCEPTION 'permission denied: % changes nothing here', session_user
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    PERFORM FROM {{schema}}.result r WHERE r.storage_id = _storage_id AND r.key = _key FOR UPDATE;
    RETURN FOUND;
END
$$
"""

# Of the shard by its own name, which is where the row of its key is: to plan for the table takes longer than to read.
_FIRST_CHUNK = """
CREATE OR REPLACE FUNCTION {schema}.first_chunk(
    _key text, _storage_id uuid, _payload_id uuid, _expires_at timestamptz, _known uuid
) RETURNS bytea
LANGUAGE plpgsql STABLE AS $$
DECLARE
    _data bytea;
BEGIN
    IF _payload_id IS DISTINCT FROM _known AND (_expires_at IS NULL OR _expires_at > statement_timestamp()) THEN
        EXECUTE 'SELECT data FROM ' || {payload_shards} || get_shard_id_for_distribution_column({payload}, _key)
                || ' WHERE storage_id = $1 AND key = $2 AND payload_id = $3 AND chunk = 0'
        INTO _data USING _storage_id, _key, _payload_id;
    END IF;
    RETURN _data;
END
$$
"""

_REFUSE = """
CREATE OR REPLACE FUNCTION {schema}.refuse_on_shard() RETURNS trigger
LANGUAGE plpgsql SET search_path = {schema}, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'the history is append-only: % is refused', TG_OP
        USING ERRCODE = 'insufficient_privilege',
              HINT = 'A history that is spread over several servers cannot be opened.';
END
$$
"""

BY_KEY: dict[str, Mapping[str, str]] = {
    MARK: GIVEN,
    "change_head": SAID,
    "lock_head": {"key": "text", "storage_id": "uuid"},
}
"""The functions that run where a key's shard is, by the types of their parameters; the first one is the key."""

WITHIN = ("first_chunk",)
"""The functions that a statement calls where it finds a row."""

FUNCTIONS = (_TICK, _WRITE, _CHANGE, _LOCK, _FIRST_CHUNK, _REFUSE)
"""What creates or renews them, and the trigger of the history's shards."""
