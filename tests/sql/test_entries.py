"""Entries say what the server knows, whoever makes them: a role forges neither a name nor a time, nor a step."""

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr
from sqlalchemy import URL

from pgresults.errors import IntegrityError
from pgresults.settings import Settings
from pgresults.sql.grants import Kind
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from pgresults.transactions import transaction
from tests.support.database import psycopg_url
from tests.support.roles import logged_in

NEXT = {
    "seq": "seq + 1",
    "version": "version",
    "at": "greatest(statement_timestamp(), at + interval '1 microsecond')",
    "db_user": "session_user",
    "previous": "digest",
    "digest": "sha256('x')",
    "action": "'break'",
    "reason": "'as it should be'",
}
CLEARED = dict.fromkeys(
    ("payload_id", "payload_digest", "size", "serializer", "tags", "provenance", "storage_key", "storage_block_id",
     "pgresults_version", "prefect_version", "signature", "sha256", "expires_at"),
    "NULL",
)  # fmt: skip
WRITTEN = {**NEXT, "action": "'write'", "version": "version + 1", "created_at": NEXT["at"]}


def changed(changes: dict[str, str], condition: str = "key = 'k'") -> str:
    said = ", ".join(f"{name} = {value}" for name, value in changes.items())
    return f"UPDATE pgresults.result SET {said} WHERE {condition} AND storage_id = %(id)s"


@pytest.fixture(scope="module")
def database(create_database: Any) -> Any:
    return create_database()


@pytest.fixture(scope="module")
def urls(database: URL) -> Iterator[dict[str, URL]]:
    with ExitStack() as roles:
        yield {kind: roles.enter_context(logged_in(database, Kind(kind))) for kind in ("writer", "sweeper", "owner")}


@pytest.fixture
def storage(database: URL) -> Iterator[PostgresStorage]:
    """A storage with one live result, and its owner's view of it."""
    storage = PostgresStorage(database, f"test-{uuid4().hex}")
    ResultStore(result_storage=storage).write(1, key="k", tags=["a"], expires_in=timedelta(days=1))
    yield storage
    storage.close()


@pytest.fixture
def roles(urls: dict[str, URL]) -> Iterator[dict[str, psycopg.Connection[Any]]]:
    made = {kind: psycopg.connect(psycopg_url(url), autocommit=True) for kind, url in urls.items()}
    yield made
    for connection in made.values():
        connection.close()


def test_an_honest_entry_of_ones_own_making_is_taken(storage: PostgresStorage, roles: Any) -> None:
    """Else what is refused below could be refused for another reason."""
    roles["writer"].execute(changed(NEXT), {"id": storage.id})
    roles["writer"].execute(changed({**NEXT, **CLEARED, "action": "'delete'"}), {"id": storage.id})
    entries = ResultStore(result_storage=storage).history("k")
    assert [entry.action for entry in entries] == ["write", "break", "delete"]
    assert entries[-1].db_user == roles["writer"].info.user


FORGERIES = {
    "another's name": {**NEXT, "db_user": "'ceo_db'"},
    "an earlier time": {**NEXT, "at": "at + interval '1 microsecond'"},
    "a time to come": {**NEXT, "at": "statement_timestamp() + interval '1 second'"},
    "a time beyond all times": {**NEXT, "at": "'infinity'"},
    "the last of all times": {**NEXT, "at": "'9999-12-31 23:59:59.999999+00'"},
    "a number left out": {**NEXT, "seq": "seq + 2"},
    "the same number": {**NEXT, "seq": "seq"},
    "a number before the first": {**NEXT, "seq": "-1"},
    "a chain that is none": {**NEXT, "previous": "sha256('y')"},
    "an action that is none": {**NEXT, "action": "'promote'"},
    "the switch": {**NEXT, "action": "'maintenance'"},
    "a version without a write": {**NEXT, "version": "version + 1"},
    "a write without a version": {**WRITTEN, "version": "version"},
    "a version left out": {**WRITTEN, "version": "version + 2", "payload_id": "gen_random_uuid()"},
    "a signed write without a payload": {**WRITTEN, "payload_id": "gen_random_uuid()", "signature": "'x'"},
    "a write of nothing": {**WRITTEN, **CLEARED},
    "a write of what is there": WRITTEN,
    "a write of another time": {**WRITTEN, "created_at": "now() - interval '1 day'"},
    "a touch of the payload": {**NEXT, "action": "'touch'", "payload_id": "gen_random_uuid()"},
    "a touch of the serializer": {**NEXT, "action": "'touch'", "serializer": "'{}'"},
    "a touch of what is shown": {**NEXT, "action": "'touch'", "created_at": "now()"},
    "a break with another expiry": {**NEXT, "expires_at": "NULL"},
    "a delete of half of it": {**NEXT, "action": "'delete'", "payload_id": "NULL"},
    "a row without an entry": {"expires_at": "NULL"},
    "what was signed": {"signature": "'x'", "payload_id": "gen_random_uuid()"},
    "another key": {**NEXT, "key": "'other'"},
    "another storage": {**NEXT, "storage_id": "gen_random_uuid()"},
    "a sweeper's expire": {**NEXT, **CLEARED, "action": "'expire'"},
    "a sweeper's redact": {**NEXT, **CLEARED, "action": "'redact'"},
    "a sweeper's retain": {
        **NEXT,
        "action": "'retain'",
        "reason": "'payloads of versions up to ' || repeat('9', 5000)",
    },
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_writer_forges_nothing(storage: PostgresStorage, roles: Any, name: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        roles["writer"].execute(changed(FORGERIES[name]), {"id": storage.id})
    assert ResultStore(result_storage=storage).verify().intact


FIRST = {
    "storage_id": "%(id)s", "key": "'new'", "version": "1", "seq": "1", "action": "'write'", "actor": "'me'",
    "at": "statement_timestamp()", "created_at": "statement_timestamp()", "db_user": "session_user",
    "previous": "''::bytea", "digest": "sha256('x')", "payload_id": "gen_random_uuid()",
}  # fmt: skip
FIRST_FORGERIES = {
    "signed, without a payload": {"signature": "'x'::bytea"},
    "of nothing": {"payload_id": "NULL::uuid"},
    "another's name": {"db_user": "'ceo_db'"},
    "another time": {"at": "'-infinity'", "created_at": "'-infinity'"},
    "a later number": {"seq": "2"},
    "a later version": {"version": "7"},
    "a chain": {"previous": "sha256('y')"},
    "an action that begins nothing": {"action": "'touch'"},
    "the switch": {"action": "'maintenance'", "payload_id": "NULL"},
}


@pytest.mark.parametrize("name", FIRST_FORGERIES)
def test_a_writer_begins_no_forged_history(storage: PostgresStorage, roles: Any, name: str) -> None:
    row = {**FIRST, **FIRST_FORGERIES[name]}
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        roles["writer"].execute(
            f"INSERT INTO pgresults.result ({', '.join(row)}) SELECT {', '.join(row.values())}", {"id": storage.id}
        )


ASIDE = {
    "an entry beside the row's": "INSERT INTO pgresults.history SELECT (jsonb_populate_record(h, '{\"seq\": 2}')).*"
    " FROM pgresults.history h WHERE key = 'k' AND storage_id = %(id)s",
    "the transaction of a payload": "INSERT INTO pgresults.payload (storage_id, key, payload_id, chunk, data, xid)"
    " VALUES (%(id)s, 'k', gen_random_uuid(), 0, 'x', 7)",
    "the row": "DELETE FROM pgresults.result WHERE key = 'k' AND storage_id = %(id)s",
}


@pytest.mark.parametrize("kind", ["writer", "sweeper"])
@pytest.mark.parametrize("name", ASIDE)
def test_nothing_is_put_beside_the_rows(storage: PostgresStorage, roles: Any, kind: str, name: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        roles[kind].execute(ASIDE[name], {"id": storage.id})


OPERATORS = """
CREATE SCHEMA {schema};
CREATE FUNCTION {schema}.yes(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE FUNCTION {schema}.yes(text, name) RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE OPERATOR {schema}.= (LEFTARG = text, RIGHTARG = text, FUNCTION = {schema}.yes);
CREATE OPERATOR {schema}.= (LEFTARG = text, RIGHTARG = name, FUNCTION = {schema}.yes);
"""


def test_operators_of_ones_own_judge_nothing(storage: PostgresStorage, roles: Any, database: URL) -> None:
    writer = roles["writer"]
    with psycopg.connect(psycopg_url(database), autocommit=True) as admin:
        admin.execute(
            sql.SQL("GRANT CREATE ON DATABASE {} TO {}").format(
                *map(sql.Identifier, (database.database, writer.info.user))
            )
        )
    schema = f"own_{uuid4().hex[:8]}"
    writer.execute(OPERATORS.format(schema=schema))
    writer.execute(f"SET search_path = {schema}, pg_catalog")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        writer.execute(changed(FORGERIES["another's name"]), {"id": storage.id})


def test_a_role_that_was_taken_on_does_not_hide_who_took_it(
    storage: PostgresStorage, roles: Any, urls: dict[str, URL], database: URL
) -> None:
    login = f"pgresults_login_{uuid4().hex[:8]}"
    with psycopg.connect(psycopg_url(database), autocommit=True) as admin:
        names = [sql.Identifier(name) for name in (login, urls["writer"].username)]
        admin.execute(sql.SQL("CREATE ROLE {0} LOGIN NOINHERIT PASSWORD 'x'; GRANT {1} TO {0}").format(*names))
        with psycopg.connect(psycopg_url(database.set(username=login, password="x")), autocommit=True) as connection:
            connection.execute(sql.SQL("SET ROLE {}").format(names[1]))
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(changed({**NEXT, "db_user": "current_user"}), {"id": storage.id})
            connection.execute(changed(NEXT), {"id": storage.id})
        admin.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(names[0]))
    assert ResultStore(result_storage=storage).history("k")[-1].db_user == login


SWEEPERS_FORGERIES = {
    "a writer's delete": {**NEXT, **CLEARED, "action": "'delete'"},
    "a writer's touch": {**NEXT, "action": "'touch'", "expires_at": "NULL"},
    "a writer's break": NEXT,
    "a writer's write": WRITTEN,
    "a writer's unsigned write": {**WRITTEN, "payload_id": "gen_random_uuid()"},
    "a writer's signed write": {**WRITTEN, "payload_id": "gen_random_uuid()", "signature": "'x'"},
    "an end before its time": {**NEXT, **CLEARED, "action": "'expire'"},
    "a name": {**NEXT, **CLEARED, "action": "'redact'", "db_user": "'ceo_db'"},
}


@pytest.mark.parametrize("name", SWEEPERS_FORGERIES)
def test_a_sweeper_makes_a_sweepers_entries(storage: PostgresStorage, roles: Any, name: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        roles["sweeper"].execute(changed(SWEEPERS_FORGERIES[name]), {"id": storage.id})
    roles["sweeper"].execute(changed({**NEXT, **CLEARED, "action": "'redact'"}), {"id": storage.id})


# Replay within a key


def test_an_earlier_version_does_not_come_back(storage: PostgresStorage, roles: Any) -> None:
    """As something signed, that is; what is not signed, a writer could as well write anew."""
    signing = Settings(signing_key=SecretStr("a key of the team's"))
    signed = PostgresStorage(storage.database.url(), storage.name, settings=signing)
    store = ResultStore(result_storage=signed)
    for number in (1, 2):
        store.write(number, key="k")
    back = {
        name: f"(SELECT h.{name} FROM pgresults.history h WHERE h.storage_id = %(id)s AND h.key = 'k' AND h.seq = 2)"
        for name in ("payload_id", "payload_digest", "size", "signature", "serializer", "tags", "provenance")
    }
    for row in ({**WRITTEN, **back}, {**WRITTEN, **back, "action": "'import'"}, back):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            roles["writer"].execute(changed(row), {"id": storage.id})
    assert store.read("k").result == 2
    roles["writer"].execute(changed({**WRITTEN, **back, "signature": "NULL"}), {"id": storage.id})
    with pytest.raises(IntegrityError):
        store.read("k")
    signed.close()


EARLIER = "(SELECT payload_id FROM pgresults.history WHERE seq = 1 AND key = 'k' AND storage_id = %(id)s)"


@pytest.mark.parametrize("payload_id", ["gen_random_uuid()", EARLIER])
def test_a_version_that_is_not_what_it_says_is_found(storage: PostgresStorage, roles: Any, payload_id: str) -> None:
    store = ResultStore(result_storage=storage)
    store.write(2, key="k")
    roles["writer"].execute(changed({**WRITTEN, "payload_id": payload_id}), {"id": storage.id})
    assert not store.verify().intact
    assert store.history("k")[-1].db_user == roles["writer"].info.user


def test_what_has_expired_does_not_come_back(storage: PostgresStorage, roles: Any) -> None:
    store = ResultStore(result_storage=storage)
    store.write(2, key="k", expiration=datetime.now(UTC) - timedelta(hours=1))
    touched = {**NEXT, "action": "'touch'", "expires_at": "NULL"}
    for row in ({"expires_at": "NULL"}, touched):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            roles["writer"].execute(changed(row), {"id": storage.id})
    assert not store.exists("k")


def test_what_was_deleted_does_not_come_back(storage: PostgresStorage, roles: Any) -> None:
    store = ResultStore(result_storage=storage)
    store.delete("k")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        roles["writer"].execute(
            changed(
                {"payload_id": "(SELECT payload_id FROM pgresults.payload WHERE key = 'k' AND storage_id = %(id)s)"}
            ),
            {"id": storage.id},
        )


def test_savepoints_are_parts_of_one_transaction(urls: dict[str, URL], storage: PostgresStorage) -> None:
    """A payload stored within one comes with its version."""
    mine = PostgresStorage(urls["writer"], storage.name)
    store = ResultStore(result_storage=mine)
    with psycopg.connect(psycopg_url(urls["writer"])) as connection, connection.transaction():
        for size in (10, 3_000_000):
            with connection.transaction(), transaction("k", store=store, connection=connection, overwrite=True) as tree:
                tree.stage(bytes(size))
    assert len(store.read("k").result) == 3_000_000
    assert ResultStore(result_storage=storage).verify().intact
    mine.close()
