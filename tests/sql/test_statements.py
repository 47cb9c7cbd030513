"""The statements: nothing of a caller's is in their text, the hot ones use an index, and every method has its twin."""

import inspect
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.types.json import Jsonb
from sqlalchemy import URL

from pgresults.database.database import Database
from pgresults.locking.memory import MemoryLockManager
from pgresults.locking.postgres import PostgresLockManager
from pgresults.sql import bulk as bulk_statements
from pgresults.sql import compiled
from pgresults.sql import history as history_statements
from pgresults.sql import locks as lock_statements
from pgresults.sql import results as statements
from pgresults.sql import verify as verify_statements
from pgresults.sql.compiled import Statement
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.database import psycopg_url


def named(module: Any) -> Iterator[tuple[str, Statement]]:
    for name, value in vars(module).items():
        if isinstance(value, Statement):
            yield name, value
        elif isinstance(value, dict):
            for kind, one in value.items():
                if isinstance(one, Statement):
                    yield f"{name}[{kind}]", one


MODULES = (statements, lock_statements, history_statements, verify_statements, bulk_statements)
STATEMENTS = dict(pair for module in MODULES for pair in named(module))


BUILT = {name: statement for name, statement in STATEMENTS.items() if type(statement) is Statement}


@pytest.mark.parametrize("statement", BUILT.values(), ids=BUILT)
def test_every_parameter_is_given_by_its_caller(statement: Statement) -> None:
    built = statement._element.compile(dialect=compiled._DIALECT)
    assert {name: value for name, value in built.params.items() if value is not None} == {}


@pytest.mark.parametrize("statement", STATEMENTS.values(), ids=STATEMENTS)
def test_every_table_is_named_with_its_schema(statement: Statement) -> None:
    text = statement.query('my "schema"').text.decode()
    assert "pgresults" not in text.replace("pgresults_version", "").replace("'pgresults.token'", "")
    if "FROM" in text and "advisory" not in text:
        assert '"my ""schema"""' in text or "pg_" in text


@pytest.fixture(scope="module")
def plans(create_database: Callable[[], URL]) -> Iterator[psycopg.RawCursor[Any]]:
    """A cursor into a database in which a scan of a whole table would be dear."""
    with psycopg.connect(psycopg_url(create_database()), autocommit=True) as connection:
        connection.execute(
            """
            INSERT INTO pgresults.result (storage_id, key, version, payload_id, seq, action, at, actor, db_user,
                                          previous, digest, created_at, expires_at, size)
            SELECT %(id)s, 'k' || n, 1, gen_random_uuid(), 1, 'write', now(), 'a', 'b', '', 'd', now(),
                   now() + n * interval '1 hour', 1
            FROM generate_series(1, 20000) n
            """,
            {"id": STORAGE},
        )
        connection.execute(
            "INSERT INTO pgresults.payload (storage_id, key, payload_id, chunk, data)"
            " SELECT storage_id, key, payload_id, 0, 'x' FROM pgresults.result"
        )
        connection.execute("VACUUM ANALYZE")
        yield psycopg.RawCursor(connection)


STORAGE = uuid4()
VALUES: dict[str, Any] = {
    "storage_id": STORAGE,
    "key": "k77",
    "keys": ["k77", "k78"],
    **{f"{name}_array": None for name in bulk_statements.ARRAYS},
    "key_array": ["k77", "k78"],
    "payload_id": UUID(int=1),
    "known_payload_id": None,
    "chunk": 0,
    "data": b"x",
    "content": b"x",
    "serializer": Jsonb({}),
    "provenance": Jsonb({}),
    "tags": ["a"],
    "size": 1,
    "expires_at": datetime(2040, 1, 1, tzinfo=UTC),
    "actor": "a",
    "action": "write",
    "holder": "h",
    "expires_in": timedelta(hours=1),
    "prefix": "k12",
    "end": "k13",
    "after": "",
    "limit": 10,
}
HOT = ["READ_CHUNKS", "EXISTS", "FIND_WRITE", "LIST", "DELETE[Guard.NONE]"]
HOT += [name for name in STATEMENTS if name.startswith(("READ[", "READ_MANY[", "WRITE[Kind(guard=<Guard.NONE"))]
HOT += ["WRITE_MANY[Guard.NONE]", "EXISTS_MANY", "READ_CHUNK"]


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def explained(plans: psycopg.RawCursor[Any], query: bytes, values: list[Any]) -> list[dict[str, Any]]:
    plans.execute(b"EXPLAIN (FORMAT JSON) " + query, values)
    ((plan,),) = plans.fetchall()
    return list(nodes((json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]))


@pytest.mark.parametrize("name", HOT)
def test_hot_statements_use_an_index(plans: psycopg.RawCursor[Any], name: str) -> None:
    query = STATEMENTS[name].query("pgresults")
    found = explained(plans, query.text, [VALUES.get(parameter) for parameter in query.names])
    assert not [node for node in found if node["Node Type"] == "Seq Scan"]
    indexes = {name for node in found for name in (node.get("Index Name"), *node.get("Conflict Arbiter Indexes", []))}
    assert indexes & {"result_pkey", "history_pkey", "payload_pkey"}


def test_exists_looks_at_no_payload(plans: psycopg.RawCursor[Any]) -> None:
    query = STATEMENTS["EXISTS"].query("pgresults")
    found = explained(plans, query.text, [VALUES[parameter] for parameter in query.names])
    assert {node["Relation Name"] for node in found if "Relation Name" in node} == {"result"}


def test_a_scan_would_be_seen(plans: psycopg.RawCursor[Any]) -> None:
    found = explained(plans, b"SELECT * FROM pgresults.result WHERE holder = $1", ["h"])
    assert [node["Node Type"] for node in found] == ["Seq Scan"]


TWINS = {
    ResultStore: {"write", "read", "exists", "delete", "persist_result_record", "history", "touch", "redact"}
    | {"invalidate", "expiring", "sweep", "retain", "verify", "seal", "find"}
    | {"write_many", "read_many", "iter_many", "exists_many", "delete_many", "open_write", "open_read"},
    PostgresStorage: {"read_path", "write_path", "save", "close"},
    Database: {"run", "connect", "close"},
    PostgresLockManager: {"acquire_lock", "release_lock", "is_locked", "is_lock_holder", "wait_for_lock"},
    MemoryLockManager: {"acquire_lock", "release_lock", "is_locked", "is_lock_holder", "wait_for_lock"},
}


def is_awaited(function: Any) -> bool:
    """Whether what a function gives is for an event loop, at once or one after the other."""
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


@pytest.mark.parametrize("cls", TWINS)
def test_both_ways_of_calling_take_the_same_arguments(cls: type) -> None:
    functions = {name: one for name, one in inspect.getmembers(cls, inspect.isfunction) if not name.startswith("_")}
    twins = {name: functions[name[1:]] for name in functions if name.startswith("a") and name[1:] in functions}
    if "wait_for_lock" in functions:
        twins["await_for_lock"] = functions["wait_for_lock"]
    for name, blocking in twins.items():
        assert is_awaited(functions[name])
        assert not inspect.iscoroutinefunction(blocking)
        assert inspect.signature(functions[name]).parameters == inspect.signature(blocking).parameters
    assert TWINS[cls] <= {blocking.__name__ for blocking in twins.values()}
    assert {name for name, one in functions.items() if is_awaited(one)} == twins.keys()
