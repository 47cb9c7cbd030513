"""Rows that no write of ours could have left are findings or errors of ours: they stop nobody."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import URL
from sqlalchemy.dialects import postgresql
from typer.testing import CliRunner

from pgresults.cli.app import app
from pgresults.errors import PgResultsError
from pgresults.serializers import JSONSerializer
from pgresults.settings import Settings
from pgresults.sql.grants import Kind
from pgresults.sql.schema import document, history, lock, payload, result, waiting
from pgresults.sql.schema import storage as registry
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.database import psycopg_url
from tests.support.roles import logged_in

TEXTS = [
    "''",
    "'x'",
    "repeat('9', 5000)",
    "'payloads of versions up to ' || repeat('9', 5000)",
    "E'\\x1b[31m\\n\\u202e'",
]
NUMBERS = ["0", "-1", "7", "9223372036854775807", "-9223372036854775808"]
BYTES = ["''::bytea", "'x'::bytea", "sha256('x')"]
TIMES = ["'infinity'", "'-infinity'", "'4713-01-01 BC'", "'0001-01-01+00'", "'9999-12-31 23:59:59.999999+00'",
         "'10000-01-01'", "'294276-12-31 23:59:59.999999+00'", "now() + interval '2 days'"]  # fmt: skip
OBJECTS = ["'[]'", "'{}'", "'\"json\"'", "'7'", "'null'", "repeat('9', 5000)::jsonb", "'1e130000'::jsonb",
           "(repeat('[', 3000) || repeat(']', 3000))::jsonb", "'{\"type\": 7}'",
           "'{\"task\": 7, \"process\": []}'"]  # fmt: skip
LISTS = ["'{}'", "'{{a,b},{c,d}}'", "ARRAY[NULL]::text[]", "'[0:1]={a,b}'", "ARRAY[repeat('x', 5000)]"]
VALUES = {
    "TEXT": TEXTS,
    "BIGINT": NUMBERS,
    "INTEGER": ["0", "-1", "2147483647"],
    "BYTEA": BYTES,
    "TIMESTAMP WITH TIME ZONE": TIMES,
    "JSONB": OBJECTS,
    "TEXT[]": LISTS,
    "UUID": ["gen_random_uuid()", "'00000000-0000-0000-0000-000000000000'"],
    "BOOLEAN": ["true", "false"],
}
TABLES = (result, history, payload, lock, waiting, document, registry)
COLUMNS = [(table.name, column.name) for table in TABLES for column in table.c if column.name != "storage_id"]


def values_of(table: str, column: str) -> list[str]:
    (described,) = [one.c[column] for one in TABLES if one.name == table]
    kind = str(described.type.compile(dialect=postgresql.dialect())).split(" COLLATE")[0]
    return VALUES[kind] + (["NULL"] if described.nullable else [])


@pytest.fixture(scope="module")
def database(create_database: Callable[[], URL]) -> URL:
    return create_database()


@pytest.fixture(scope="module")
def admin(database: URL) -> Iterator[psycopg.Connection[Any]]:
    """Somebody with no guard in the way."""
    with psycopg.connect(psycopg_url(database), autocommit=True) as connection:
        for table in ("history", "result"):
            connection.execute(f"ALTER TABLE pgresults.{table} DISABLE TRIGGER USER")
        yield connection


@pytest.fixture
def store(database: URL, tmp_path: Path) -> Iterator[ResultStore]:
    """A store with a key of three entries, one that is gone, and a lock."""
    settings = Settings(seal_key=tmp_path / "seal.pem", signing_key="s" * 16, read_lock_timeout=0.05)
    storage = PostgresStorage(database, f"test-{uuid4().hex}", settings=settings)
    yield ResultStore(result_storage=storage, lock_manager=storage.lock_manager(), serializer=JSONSerializer())
    storage.close()


def filled(store: ResultStore, admin: psycopg.Connection[Any]) -> None:
    for table in ("history", "result"):
        admin.execute(f"ALTER TABLE pgresults.{table} ENABLE TRIGGER USER")
    for n in range(3):
        store.write({"n": n}, key="k", tags=["a"], provenance={"n": n})
    store.write(1, key="gone")
    store.delete("gone")
    for table in ("history", "result"):
        admin.execute(f"ALTER TABLE pgresults.{table} DISABLE TRIGGER USER")
    admin.execute(
        "INSERT INTO pgresults.lock VALUES (%s, 'k', 'somebody', 1, gen_random_uuid(), NULL, gen_random_uuid(), 'me',"
        " 1, now(), now(), false, NULL)",
        [store.result_storage.id],
    )


def ways(store: ResultStore) -> dict[str, Callable[[], Any]]:
    """Everything that may meet such a row."""
    return {
        "verify": store.verify,
        "verify one": lambda: store.verify("k"),
        "seal": store.seal,
        "history": lambda: [store.history(key) for key in ("k", "gone")],
        "history with results": lambda: store.history("k", with_results=True),
        "read": lambda: store.read("k"),
        "read what is gone": lambda: store.read("gone"),
        "read a version": lambda: store.read("k", version=1),
        "exists": lambda: store.exists("k"),
        "find": store.find,
        "find by tag": lambda: store.find(tags=["a"]),
        "is locked": lambda: store.is_locked("k"),
        "locks": store.result_storage.lock_manager().held_locks,
        "sweep": store.sweep,
        "retain": lambda: store.retain(versions=1),
        "touch": lambda: store.touch("k", None),
        "write": lambda: store.write(1, key="k"),
        "read what was written": lambda: store.read("k"),
    }


SOME = [
    at if number % 6 == 0 or at[0] == "storage" else pytest.param(*at, marks=pytest.mark.slow)
    for number, at in enumerate(COLUMNS)
]


@pytest.mark.parametrize(("table", "column"), SOME)
def test_a_hostile_row_stops_nobody(
    store: ResultStore, admin: psycopg.Connection[Any], table: str, column: str
) -> None:
    storage_id = store.result_storage.id
    for value in values_of(table, column):
        for each in ("result", "history", "payload", "lock", "document"):
            admin.execute(f"DELETE FROM pgresults.{each} WHERE storage_id = %s", [storage_id])
        filled(store, admin)
        place = "id = %s" if table == "storage" else "storage_id = %s AND key = 'k'"
        with contextlib.suppress(psycopg.errors.UniqueViolation):
            admin.execute(f"UPDATE pgresults.{table} SET {column} = {value} WHERE {place}", [storage_id])
        if table == "storage":  # what was read of it once is remembered
            store = anew(store)
        _meet(store, f"{column} = {value}")
        if table == "storage":
            store.result_storage.close()
            admin.execute("DELETE FROM pgresults.storage")
            store = anew(store)


def anew(store: ResultStore) -> ResultStore:
    """The store as another process has it."""
    old = store.result_storage
    storage = PostgresStorage(old.database.url(), old.name, settings=old.settings)
    return store.model_copy(update={"result_storage": storage, "lock_manager": storage.lock_manager()})


def _meet(store: ResultStore, what: str) -> None:
    for name, way in ways(store).items():
        try:
            way()
        except PgResultsError as error:
            assert name not in ("verify", "seal", "find", "history", "exists"), f"{name} fails for {what}: {error}"
        except Exception as error:
            raise AssertionError(f"{name} ends with {error!r} for {what}") from error


@pytest.mark.parametrize("value", ["'infinity'", "'9999-12-31 23:59:59.999999+00'", "'-infinity'"])
def test_a_time_beyond_all_times_is_found_and_hinders_no_write(store: ResultStore, admin: Any, value: str) -> None:
    filled(store, admin)
    for table in ("result", "history"):
        admin.execute(
            f"UPDATE pgresults.{table} SET at = {value} WHERE storage_id = %s AND key = 'k' AND seq = 3",
            [store.result_storage.id],
        )
    assert store.write(7, key="other").version == 1
    for command in (["ls"], ["history", "k"], ["get", "k"], ["verify"]):
        options = [
            "--database-url",
            psycopg_url(store.result_storage.database.url()),
            "--storage",
            store.result_storage.name,
        ]
        printed = CliRunner().invoke(app, [*options, *command])
        assert printed.exit_code == (1 if command == ["verify"] else 0), printed.output
    assert {finding.keys for finding in store.verify("k").findings} == {("k",)}
    assert store.seal().entries >= 0


# What a writer may leave

HONEST = {
    "seq": "seq + 1",
    "at": "greatest(statement_timestamp(), at + interval '1 microsecond')",
    "db_user": "session_user",
    "previous": "digest",
    "action": "'break'",
}
FIRST = {
    "version": "0", "seq": "1", "action": "'break'", "actor": "'me'", "at": "statement_timestamp()",
    "db_user": "session_user", "previous": "''::bytea", "digest": "sha256('x')",
}  # fmt: skip
WRITTEN = {"action": "'write'", "version": "version + 1", "created_at": HONEST["at"], "payload_id": "%(payload_id)s"}


def hostile(table: Any) -> st.SearchStrategy[dict[str, str]]:
    columns = [column.name for column in table.c if column.name not in ("storage_id", "key")]
    changes = st.sampled_from(columns).flatmap(
        lambda column: st.tuples(st.just(column), st.sampled_from(values_of(table.name, column)))
    )
    return st.lists(changes, max_size=3).map(dict)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("change"), hostile(result)),
        st.tuples(st.just("write"), hostile(result)),
        st.tuples(st.just("begin"), hostile(result)),
        st.tuples(st.just("payload"), hostile(payload)),
        st.tuples(st.just("history"), hostile(history)),
        st.tuples(st.just("lock"), hostile(lock)),
        st.tuples(st.just("storage"), hostile(registry)),
    ),
    min_size=1,
    max_size=8,
)


def step(kind: str, changes: dict[str, str]) -> str:
    match kind:
        case "change" | "write":
            said = {**HONEST, **(WRITTEN if kind == "write" else {}), **changes}
            chunk = (
                "WITH chunk AS (INSERT INTO pgresults.payload (storage_id, key, payload_id, chunk, data) VALUES"
                " (%(id)s, 'k', %(payload_id)s, 0, 'x')) "
            )
            sets = ", ".join(f"{name} = {value}" for name, value in said.items())
            update = f"UPDATE pgresults.result SET {sets} WHERE storage_id = %(id)s AND key = 'k'"
            return (chunk if kind == "write" else "") + update
        case "begin":
            row = {"storage_id": "%(id)s", "key": "gen_random_uuid()::text", **FIRST, **changes}
            table = "result"
        case "payload":
            row = {"storage_id": "%(id)s", "key": "'k'", "payload_id": "gen_random_uuid()", "chunk": "0", "data": "'x'",
                   **changes}  # fmt: skip
            table = "payload"
        case "history":
            row = {"storage_id": "%(id)s", "key": "'k'", **FIRST, "seq": "7", **changes}
            table = "history"
        case "storage":
            row = {"id": "gen_random_uuid()", "name": "gen_random_uuid()::text", "created_at": "now()", **changes}
            table = "storage"
        case _:
            sets = ", ".join(f"{name} = {value}" for name, value in changes.items()) or "released = true"
            return f"UPDATE pgresults.lock SET {sets} WHERE storage_id = %(id)s AND key = 'k'"
    return f"INSERT INTO pgresults.{table} ({', '.join(row)}) SELECT {', '.join(row.values())}"


@pytest.fixture(scope="module")
def guarded_url(create_database: Callable[[], URL]) -> URL:
    return create_database()


@pytest.fixture(scope="module")
def writer(guarded_url: URL) -> Iterator[URL]:
    with logged_in(guarded_url, Kind.WRITER) as url:
        yield url


UNTRUE = """
SELECT seq, action, db_user, at, xid FROM pgresults.history h
WHERE storage_id = %(id)s AND (
    db_user NOT IN (%(writer)s, current_user) OR at NOT BETWEEN %(since)s AND clock_timestamp()
    OR xid > pg_current_xact_id()::text::bigint OR action NOT IN ('write', 'break', 'touch', 'delete')
    OR seq <> (SELECT count(*) FROM pgresults.history g
               WHERE g.storage_id = h.storage_id AND g.key = h.key AND g.seq <= h.seq)
    OR previous <> coalesce((SELECT g.digest FROM pgresults.history g
                             WHERE g.storage_id = h.storage_id AND g.key = h.key AND g.seq = h.seq - 1), ''))
"""


@pytest.mark.parametrize("kind", ["change", "write", "begin", "payload", "lock", "storage"])
def test_a_step_without_a_change_is_taken(guarded_url: URL, writer: URL, kind: str) -> None:
    """Else what is tried below would come to nothing."""
    storage = PostgresStorage(guarded_url, f"test-{uuid4().hex}")
    ResultStore(result_storage=storage).write({"n": 1}, key="k")
    with psycopg.connect(psycopg_url(writer), autocommit=True) as forger:
        forger.execute(step(kind, {}), {"id": storage.id, "payload_id": uuid4()})
    storage.close()


@given(steps=STEPS)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_whatever_a_writer_leaves_is_the_servers_word_or_a_finding(
    tmp_path: Path, guarded_url: URL, writer: URL, steps: list[tuple[str, dict[str, str]]]
) -> None:
    settings = Settings(seal_key=tmp_path / "seal.pem", read_lock_timeout=0.05)
    storage = PostgresStorage(guarded_url, f"test-{uuid4().hex}", settings=settings)
    store = ResultStore(result_storage=storage, lock_manager=storage.lock_manager(), serializer=JSONSerializer())
    store.write({"n": 1}, key="k", tags=["a"])
    names = {"id": storage.id, "writer": writer.username}
    with (
        psycopg.connect(psycopg_url(guarded_url), autocommit=True) as connection,
        psycopg.connect(psycopg_url(writer), autocommit=True) as forger,
    ):
        names["since"] = connection.execute("SELECT now() - interval '1 minute'").fetchone()[0]
        for kind, changes in steps:
            with contextlib.suppress(psycopg.Error):
                forger.execute(step(kind, changes), {**names, "payload_id": uuid4()})
        assert connection.execute(UNTRUE, names).fetchall() == []
    store.verify()
    store.seal()
    _meet(store, f"{steps}")
    storage.close()
