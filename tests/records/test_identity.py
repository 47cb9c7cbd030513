"""What one database signed counts in no other, though the key and the storage's name are the same."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import URL

from pgresults.database import migrations
from pgresults.errors import IntegrityError
from pgresults.settings import Settings
from pgresults.sql.grants import Kind, granting
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.calls import Call
from tests.support.database import psycopg_url

SIGNING = Settings(signing_key=SecretStr("the key of staging and production"))
TABLES = ("payload", "history", "result")


def store_in(url: URL, name: str = "default") -> ResultStore:
    return ResultStore(result_storage=PostgresStorage(url, name, settings=SIGNING), cache_result_in_memory=False)


def rows_of(url: URL, table: str) -> bytes:
    copied = f"COPY pgresults.{table} TO STDOUT (FORMAT binary)"
    with psycopg.connect(psycopg_url(url)) as connection, connection.cursor().copy(copied) as copy:
        return b"".join(bytes(part) for part in copy)


def put_rows(url: URL, table: str, rows: bytes) -> None:
    with psycopg.connect(psycopg_url(url)) as connection, connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE pgresults.{table} DISABLE TRIGGER USER")
        cursor.execute(f"DELETE FROM pgresults.{table}")
        with cursor.copy(f"COPY pgresults.{table} FROM STDIN (FORMAT binary)") as copy:
            copy.write(rows)
        cursor.execute(f"ALTER TABLE pgresults.{table} ENABLE TRIGGER USER")


WAYS: dict[str, Callable[[Call, ResultStore], Any]] = {
    "read": lambda call, store: call(store, "read", "k"),
    "read a version": lambda call, store: call(store, "read", "k", version=1),
    "read many": lambda call, store: call(store, "read_many", ["k"]),
    "read the bytes": lambda call, store: call(store.result_storage, "read_path", "k"),
    "history with results": lambda call, store: call(store, "history", "k", with_results=True),
}


@pytest.mark.parametrize("known", [False, True], ids=["unknown there", "known there"])
async def test_what_staging_signed_is_refused_in_production(
    call: Call, create_database: Callable[[], URL], known: bool
) -> None:
    staging, production = (store_in(create_database()) for _ in range(2))
    await call(staging, "write", "of staging", key="k")
    if known:
        await call(production, "write", "of production", key="other")
    for table in TABLES:
        put_rows(production.result_storage.database.url(), table, rows_of(staging.result_storage.database.url(), table))
    for name, way in WAYS.items():
        assert await way(call, staging), name
        with pytest.raises(IntegrityError, match="signature does not fit" if known else "not registered"):
            await way(call, production)
    assert (await call(production, "verify")).entries == 1


async def test_the_identity_is_read_once(call: Call, fresh_url: URL) -> None:
    store = store_in(fresh_url)
    await call(store, "write", 1, key="k")
    with psycopg.connect(psycopg_url(fresh_url), autocommit=True) as connection:
        connection.execute("UPDATE pgresults.storage SET identity = gen_random_uuid()")
    assert (await call(store, "read", "k")).result == 1
    with pytest.raises(IntegrityError):
        await call(store_in(fresh_url), "read", "k")


def test_storages_from_before_keep_their_signatures(empty_url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(migrations, "REVISION", "0007")
        migrations.upgrade(empty_url)
    storage = PostgresStorage(empty_url)
    with psycopg.connect(psycopg_url(empty_url), autocommit=True) as connection:
        connection.execute(
            "INSERT INTO pgresults.storage (id, name, created_at) VALUES (%s, 'default', now())", [storage.id]
        )
        migrations.upgrade(empty_url)
        assert connection.execute("SELECT identity FROM pgresults.storage").fetchall() == [(storage.id,)]
        store_in(empty_url, "later").write(1, key="k")
        assert connection.execute("SELECT count(*) FROM pgresults.storage WHERE id <> identity").fetchone() == (1,)


def test_a_restored_dump_is_the_same_database(fresh_url: URL, create_database: Callable[[], URL]) -> None:
    store = store_in(fresh_url)
    store.write("kept", key="k")
    restored = create_database()
    for table in ("storage", *TABLES):
        put_rows(restored, table, rows_of(fresh_url, table))
    assert store_in(restored).read("k").result == "kept"


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO pgresults.storage (id, name, created_at, identity) VALUES (gen_random_uuid(), 'n', now(), %(id)s)",
        "UPDATE pgresults.storage SET identity = %(id)s",
        "DELETE FROM pgresults.storage",
    ],
)
def test_a_writer_says_no_identity(fresh_url: URL, statement: str) -> None:
    store = store_in(fresh_url)
    store.write(1, key="k")
    with psycopg.connect(psycopg_url(fresh_url), autocommit=True) as connection:
        connection.execute("CREATE ROLE pgresults_namer LOGIN PASSWORD 'x'")
        connection.execute(granting("pgresults", "pgresults_namer", Kind.WRITER))
        try:
            writer = fresh_url.set(username="pgresults_namer", password="x")
            with psycopg.connect(psycopg_url(writer)) as attacker, pytest.raises(psycopg.errors.InsufficientPrivilege):
                attacker.execute(statement, {"id": store.result_storage.id})
            mine = store_in(writer, "the writer's own")
            mine.write(1, key="k")
            assert mine.read("k").result == 1
            mine.result_storage.close()
        finally:
            connection.execute("DROP OWNED BY pgresults_namer CASCADE; DROP ROLE pgresults_namer")
