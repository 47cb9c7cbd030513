"""One statement about many rows makes an entry of each, or none at all, whatever it is and whoever sends it."""

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import URL

from pgresults.sql.grants import Kind
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.sql.test_entries import CLEARED, FIRST, NEXT, WRITTEN, changed
from tests.support.database import psycopg_url
from tests.support.roles import logged_in

MANY = 1000
WRITES = {**WRITTEN, "payload_id": "gen_random_uuid()"}
REFUSED = psycopg.errors.InsufficientPrivilege


@pytest.fixture(scope="module")
def database(create_database: Any) -> Any:
    return create_database()


@pytest.fixture(scope="module")
def urls(database: URL) -> Iterator[dict[str, URL]]:
    with ExitStack() as roles:
        yield {
            kind: roles.enter_context(logged_in(database, Kind(kind)))
            for kind in ("reader", "writer", "sweeper", "owner")
        }


@pytest.fixture
def roles(urls: dict[str, URL]) -> Iterator[dict[str, psycopg.Connection[Any]]]:
    made = {kind: psycopg.connect(psycopg_url(url), autocommit=True) for kind, url in urls.items()}
    yield made
    for connection in made.values():
        connection.close()


@pytest.fixture
def admin(database: URL) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(psycopg_url(database), autocommit=True) as connection:
        yield connection


@pytest.fixture
def store(urls: dict[str, URL]) -> Iterator[ResultStore]:
    """A writer's, in a storage with a thousand results."""
    storage = PostgresStorage(urls["writer"], f"test-{uuid4().hex}")
    store = ResultStore(result_storage=storage)
    store.write_many((key, 1) for key in keys())
    yield store
    storage.close()


def keys(prefix: str = "k", count: int = MANY) -> list[str]:
    return [f"{prefix}{number:04}" for number in range(count)]


def said(admin: psycopg.Connection[Any], store: ResultStore) -> dict[str, list[str]]:
    """What the entries of each key say was done, in their order."""
    rows = admin.execute(
        "SELECT key, array_agg(action ORDER BY seq), array_agg(seq ORDER BY seq) FROM pgresults.history "
        "WHERE storage_id = %s GROUP BY key",
        (store.result_storage.id,),
    ).fetchall()
    assert all(seqs == list(range(1, len(seqs) + 1)) for _, _, seqs in rows)
    return {key: actions for key, actions, _ in rows}


def test_new_and_known_keys_in_one_statement(store: ResultStore, admin: psycopg.Connection[Any]) -> None:
    known, new = keys()[::2], keys("n")
    store.write_many((key, 2) for pair in zip(known, new, strict=False) for key in pair)
    assert said(admin, store) == {
        key: ["write", "write"] if key in known else ["write"] for key in keys() + new[: len(known)]
    }
    assert store.verify().intact


def test_the_same_key_twice_in_one_batch(store: ResultStore, admin: psycopg.Connection[Any]) -> None:
    store.write_many([(key, number) for number in range(2) for key in keys(count=50)] + [("k0000", 3)])
    found = said(admin, store)
    assert (len(found["k0000"]), len(found["k0001"]), len(found["k0051"])) == (4, 3, 1)
    assert [entry.version for entry in store.history("k0000")] == [1, 2, 3, 4]
    assert store.read("k0000").result == 3
    assert store.verify().intact


def test_what_takes_many_away_says_so_of_each(
    store: ResultStore, admin: psycopg.Connection[Any], urls: dict[str, URL]
) -> None:
    """Deletes, sweeps, retention and redaction, each over many keys."""
    deleted, retained, redacted, swept = keys()[:100], keys()[100:200], keys()[200:203], keys("s", 100)
    store.write_many((key, 2) for key in retained)
    store.write_many(((key, 2) for key in swept), expires_in=timedelta(microseconds=1))
    assert store.delete_many(deleted) == len(deleted)
    with ExitStack() as closing:
        upkeep = PostgresStorage(urls["sweeper"], store.result_storage.name)
        closing.callback(upkeep.close)
        sweeper = ResultStore(result_storage=upkeep)
        assert sweeper.sweep() == len(swept)
        assert sweeper.retain(versions=1) == len(retained)
        for key in redacted:
            assert sweeper.redact(key, "a test") == 1
    found = said(admin, store)
    assert all(found[key] == ["write", "delete"] for key in deleted)
    assert all(found[key] == ["write", "expire"] for key in swept)
    assert all(found[key] == ["write", "write", "retain"] for key in retained)
    assert all(found[key] == ["write", "redact"] for key in redacted)
    assert store.verify().intact


def test_a_writers_own_update_of_many_makes_an_entry_of_each(
    store: ResultStore, roles: Any, admin: psycopg.Connection[Any]
) -> None:
    place = {"id": store.result_storage.id}
    assert roles["writer"].execute(changed(WRITES, "key < 'k0500'"), place).rowcount == MANY // 2
    assert roles["writer"].execute(changed(NEXT, "key >= 'k0500'"), place).rowcount == MANY // 2
    found = said(admin, store)
    assert found == {key: ["write", "write" if key < "k0500" else "break"] for key in keys()}


ONE_AMONG_MANY = {
    "another's name": {"db_user": "'ceo_db'"},
    "a number left out": {"seq": "seq + 2"},
    "a chain that is another's": {"previous": "sha256('y')"},
    "an earlier time": {"at": "at + interval '1 microsecond'", "created_at": "at + interval '1 microsecond'"},
    "the payload that is there": {"payload_id": "payload_id"},
    "another key": {"key": "'other'"},
}


@pytest.mark.parametrize("name", ONE_AMONG_MANY)
def test_one_refused_row_among_many_refuses_all(
    store: ResultStore, roles: Any, admin: psycopg.Connection[Any], name: str
) -> None:
    forged = {
        column: f"CASE WHEN key = 'k0700' THEN {value} ELSE {WRITES.get(column, column)} END"
        for column, value in ONE_AMONG_MANY[name].items()
    }
    with pytest.raises(REFUSED, match=r"k0700|other"):
        roles["writer"].execute(changed({**WRITES, **forged}, "true"), {"id": store.result_storage.id})
    assert said(admin, store) == {key: ["write"] for key in keys()}
    assert store.verify().intact


@pytest.mark.parametrize("changes", [{"expires_at": "NULL"}, {"tags": "'{a}'"}, CLEARED, {"key": "'x' || key"}])
def test_no_change_of_many_is_without_entries(store: ResultStore, roles: Any, changes: dict[str, str]) -> None:
    with pytest.raises(REFUSED):
        roles["writer"].execute(changed(changes, "true"), {"id": store.result_storage.id})
    assert store.verify().intact


def test_what_was_said_earlier_in_a_transaction_counts_no_more(store: ResultStore, roles: Any) -> None:
    """The rules are made ready once in a transaction; what they are asked about is another row, time and role."""
    writer, place = roles["writer"], {"id": store.result_storage.id}
    with writer.transaction():
        moment = writer.execute("SELECT statement_timestamp()").fetchone()
        writer.execute(changed(WRITES, "key < 'k0100'"), place)
        assert writer.execute(changed(WRITES, "key < 'k0100'"), place).rowcount == 100
        earlier = {**WRITES, "at": "%(then)s", "created_at": "%(then)s"}
        for forged in (earlier, {**WRITES, "db_user": "'ceo_db'"}, {**WRITES, "seq": "seq"}):
            with pytest.raises(REFUSED), writer.transaction():
                writer.execute(changed(forged, "key >= 'k0100'"), {**place, "then": moment and moment[0]})
        assert writer.execute(changed(NEXT, "key >= 'k0100'"), place).rowcount == MANY - 100


def test_a_role_that_was_changed_in_a_transaction_is_the_one_that_counts(
    store: ResultStore, urls: dict[str, URL], admin: psycopg.Connection[Any]
) -> None:
    place = {"id": store.result_storage.id}
    honest = {**WRITES, "db_user": "session_user"}
    with admin.transaction(force_rollback=True):
        for kind, allowed in (("writer", True), ("sweeper", False), ("writer", True)):
            admin.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(str(urls[kind].username))))
            if allowed:
                assert admin.execute(changed(honest, "key < 'k0100'"), place).rowcount == 100
            else:
                with pytest.raises(REFUSED), admin.transaction():
                    admin.execute(changed(honest, "key < 'k0100'"), place)


def test_copied_rows_have_their_entries_or_are_refused(
    store: ResultStore, roles: Any, admin: psycopg.Connection[Any]
) -> None:
    """A writer cannot know the time of the statement; an owner's rows are taken as they are."""
    copy = f"COPY pgresults.result ({', '.join(FIRST)}) FROM STDIN"
    moment = "2026-01-01 00:00:00+00"

    def copied(connection: psycopg.Connection[Any]) -> None:
        row = {
            **FIRST, "storage_id": store.result_storage.id, "action": "write", "actor": "me", "at": moment,
            "created_at": moment, "db_user": connection.info.user, "previous": b"", "digest": b"x",
        }  # fmt: skip
        with connection.cursor().copy(copy) as stream:
            for key in keys("c", 100):
                stream.write_row(list((row | {"key": key, "payload_id": uuid4()}).values()))

    with pytest.raises(REFUSED):
        copied(roles["writer"])
    assert "c0000" not in said(admin, store)
    copied(roles["owner"])
    found = said(admin, store)
    assert all(found[key] == ["write"] for key in keys("c", 100))


MERGE = """
MERGE INTO pgresults.result r
USING (SELECT %(id)s::uuid AS id, key FROM unnest(%(keys)s::text[]) AS key) given
ON r.storage_id = given.id AND r.key = given.key
WHEN MATCHED THEN UPDATE SET {changes}
WHEN NOT MATCHED THEN INSERT ({names}) VALUES ({values})
"""


def merged(first: dict[str, str], following: dict[str, str]) -> str:
    row = {**FIRST, "storage_id": "given.id", "key": "given.key", **first}
    return MERGE.format(
        changes=", ".join(f"{name} = {value}" for name, value in following.items()),
        names=", ".join(row),
        values=", ".join(row.values()),
    )


def test_what_is_merged_has_its_entries_or_is_refused(
    store: ResultStore, roles: Any, admin: psycopg.Connection[Any]
) -> None:
    given = {"id": store.result_storage.id, "keys": keys(count=100) + keys("m", 100)}
    following = {**WRITES, "at": "greatest(statement_timestamp(), r.at + interval '1 microsecond')"}
    following["created_at"] = following["at"]
    for first, further in (({"version": "2"}, following), ({}, {**following, "seq": "r.seq + 2"})):
        with pytest.raises(REFUSED):
            roles["writer"].execute(merged(first, further), given)
    assert roles["writer"].execute(merged({}, following), given).rowcount == 200
    found = said(admin, store)
    assert all(found[key] == ["write", "write"] for key in keys(count=100))
    assert all(found[key] == ["write"] for key in keys("m", 100))


@pytest.mark.parametrize("kind", ["reader", "writer", "sweeper"])
def test_nobody_but_a_superuser_does_without_the_trigger(store: ResultStore, roles: Any, kind: str) -> None:
    for statement in (
        "SET session_replication_role = replica",
        "ALTER TABLE pgresults.result DISABLE TRIGGER record_entry",
        "ALTER TABLE pgresults.result DISABLE TRIGGER USER",
    ):
        with pytest.raises(REFUSED):
            roles[kind].execute(statement)


@pytest.mark.parametrize("kind", ["reader", "sweeper"])
def test_who_may_not_write_writes_not_many_either(
    store: ResultStore, roles: Any, kind: str, admin: psycopg.Connection[Any]
) -> None:
    with pytest.raises(REFUSED):
        roles[kind].execute(changed(WRITES, "true"), {"id": store.result_storage.id})
    with pytest.raises(REFUSED):
        roles[kind].execute(
            f"INSERT INTO pgresults.result ({', '.join(FIRST)}) SELECT {', '.join(FIRST.values())}",
            {"id": store.result_storage.id},
        )
    assert said(admin, store) == {key: ["write"] for key in keys()}


LOOKING = """
CREATE FUNCTION pg_temp.look() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('plan_cache_mode') <> 'auto' THEN
        RAISE EXCEPTION 'what this row asks is planned for it alone';
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER look AFTER INSERT OR UPDATE ON pgresults.result FOR EACH ROW EXECUTE FUNCTION pg_temp.look()
"""


def test_no_row_of_many_has_its_entry_planned(store: ResultStore, admin: psycopg.Connection[Any]) -> None:
    """As it would be under a setting that has the statement for many planned for its values."""
    admin.execute(LOOKING)
    try:
        store.write_many((key, 2) for key in keys("p", 20))
        assert store.delete_many(keys("p", 20)) == 20
    finally:
        admin.execute("DROP TRIGGER look ON pgresults.result")
