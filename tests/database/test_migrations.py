"""The schema: made by migrations, safe to upgrade from anywhere, and refused where the code does not know it."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from psycopg import sql
from sqlalchemy import URL, create_engine
from sqlalchemy.pool import NullPool

from pgresults.database import migrations
from pgresults.errors import ConfigurationError, SchemaVersionError, StorageUnavailable
from pgresults.sql.schema import REVISION, SCHEMA, VERSION_TABLE, metadata
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.database import psycopg_url

ODD = """Odd "schema's" 100% %s %(x)s :name \\:x {0} $1 [x] Ä"""
_TABLES = "SELECT relname, relkind FROM pg_class WHERE relnamespace = %s::regnamespace AND relkind <> 'i' ORDER BY 1"


@pytest.fixture
def admin(empty_url: URL) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(psycopg_url(empty_url), autocommit=True) as connection:
        yield connection


@pytest.fixture
def user(admin: psycopg.Connection[Any], empty_url: URL) -> Iterator[URL]:
    """Somebody who may connect to the empty database, and no more; granted by the test."""
    name, password = f"pgresults_{uuid4().hex[:8]}", "pass:w/o@rd %"
    admin.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(name), sql.Literal(password)))
    yield empty_url.set(username=name, password=password)
    admin.execute(sql.SQL("DROP OWNED BY {0} CASCADE; DROP ROLE {0}").format(sql.Identifier(name)))


def grant(admin: psycopg.Connection[Any], statement: str, user: URL) -> None:
    admin.execute(sql.SQL(statement).format(user=sql.Identifier(user.username or "")))


def relations(connection: psycopg.Connection[Any], schema: str) -> list[tuple[str, str]]:
    return connection.execute(_TABLES, [sql.Identifier(schema).as_string(None)]).fetchall()


def differences(url: URL, schema: str) -> list[Any]:
    """What alembic would change to make the schema what `schema.py` says."""
    engine = create_engine(url.set(drivername="postgresql+psycopg"), poolclass=NullPool)
    with engine.connect() as connection:
        # The tables are described under the default name: look at the others in its place.
        translated = connection.execution_options(schema_translate_map={SCHEMA: schema})
        described = metadata
        if schema != SCHEMA:
            described = type(metadata)(schema=schema, naming_convention=metadata.naming_convention)
            for table in metadata.tables.values():
                table.to_metadata(described, schema=schema)
        context = MigrationContext.configure(
            translated,
            opts={
                "include_schemas": True,
                "include_name": lambda name, kind, _: kind != "schema" or name == schema,
                "include_object": lambda _, name, kind, __, ___: (kind, name) != ("table", VERSION_TABLE),
                "compare_type": True,
                "compare_server_default": True,
            },
        )
        return compare_metadata(context, described)


@pytest.mark.parametrize("schema", [SCHEMA, ODD, "MixedCase", "ü" * 31])
def test_the_migrated_schema_is_the_described_one(empty_url: URL, schema: str) -> None:
    assert migrations.current(empty_url, schema) is None
    assert migrations.upgrade(empty_url, schema) == REVISION
    assert migrations.current(empty_url, schema) == REVISION
    assert differences(empty_url, schema) == []


def test_a_difference_would_be_seen(empty_url: URL, admin: psycopg.Connection[Any]) -> None:
    migrations.upgrade(empty_url)
    admin.execute("ALTER TABLE pgresults.result ALTER COLUMN fence SET NOT NULL")
    admin.execute("DROP INDEX pgresults.result_expires_at_idx")
    assert len(differences(empty_url, SCHEMA)) == 2


async def test_a_store_works_in_a_schema_of_any_name(call: Any, empty_url: URL, admin: Any) -> None:
    migrations.upgrade(empty_url, ODD)
    storage = PostgresStorage(empty_url, schema=ODD)
    store = ResultStore(result_storage=storage)
    for size in (10, 3_000_000):
        await call(store, "write", bytes(size), key="100% 'k'")
        assert (await call(store, "read", "100% 'k'")).result == bytes(size)
    assert [listed.key for listed in await call(store, "find", "100%")] == ["100% 'k'"]
    assert await call(store, "delete", "100% 'k'")
    assert ("result", "r") in relations(admin, ODD)
    assert relations(admin, "public") == []
    await storage.aclose()


@pytest.mark.parametrize("schema", ["", "a\0b", "\ud800", "x" * 64, "ü" * 32, "pg_mine", 7])
def test_what_cannot_name_a_schema_is_refused(empty_url: URL, schema: Any) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        PostgresStorage(empty_url, schema=schema)
    assert refusal.value.setting == "database_schema"
    with pytest.raises(ConfigurationError):
        migrations.upgrade(empty_url, schema)


def test_upgrading_twice_changes_nothing(empty_url: URL, admin: psycopg.Connection[Any]) -> None:
    migrations.upgrade(empty_url)
    before = relations(admin, SCHEMA)
    with admin.transaction():
        admin.execute("LOCK TABLE pgresults.result IN ROW EXCLUSIVE MODE")  # as a writer does all day
        assert migrations.upgrade(empty_url, lock_timeout=0.1) == REVISION
    assert relations(admin, SCHEMA) == before


UPGRADE = """
import sys
from sqlalchemy import make_url
from pgresults.database import migrations
print("ready", flush=True)
sys.stdin.readline()
print(migrations.upgrade(make_url(sys.argv[1])))
"""


def test_processes_may_upgrade_at_once(empty_url: URL) -> None:
    command = [sys.executable, "-W", "error", "-c", UPGRADE, psycopg_url(empty_url)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    processes = [subprocess.Popen(command, text=True, **pipes) for _ in range(4)]
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * 4
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    assert [process.communicate(timeout=60) for process in processes] == [(f"{REVISION}\n", "")] * 4
    assert differences(empty_url, SCHEMA) == []


def test_processes_may_upgrade_at_once_where_snapshots_last(empty_url: URL, admin: Any) -> None:
    """As above, in a database whose default isolation keeps the snapshot of a transaction's first statement."""
    database = sql.Identifier(empty_url.database)
    admin.execute(sql.SQL("ALTER DATABASE {} SET default_transaction_isolation = serializable").format(database))
    test_processes_may_upgrade_at_once(empty_url)


def test_threads_may_upgrade_at_once(empty_url: URL) -> None:
    barrier = threading.Barrier(4)

    def upgrade(schema: str) -> str:
        barrier.wait()
        return migrations.upgrade(empty_url, schema)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(upgrade, ["one", "two", "one", "two"])) == [REVISION] * 4
    assert differences(empty_url, "one") == differences(empty_url, "two") == []


def test_a_held_lock_ends_the_wait_with_advice(empty_url: URL, admin: psycopg.Connection[Any]) -> None:
    with admin.transaction():
        admin.execute("SELECT pg_advisory_xact_lock(hashtextextended('pgresults.migrations.pgresults', 0))")
        with pytest.raises(SchemaVersionError, match="another process") as refusal:
            migrations.upgrade(empty_url, lock_timeout=0.05)
        assert refusal.value.command == "pgresults db upgrade"
        assert migrations.upgrade(empty_url, "other", lock_timeout=0.05) == REVISION
    assert migrations.upgrade(empty_url, lock_timeout=0.05) == REVISION


@pytest.fixture
def database_at(empty_url: URL, admin: psycopg.Connection[Any]) -> Any:
    """Puts the empty database's schema at a revision; None: no schema."""

    def put(revision: str | None) -> URL:
        if revision is not None:
            migrations.upgrade(empty_url)
            admin.execute("UPDATE pgresults.schema_version SET version_num = %s", [revision])
        return empty_url

    return put


@pytest.mark.parametrize(
    ("revision", "command"),
    [(None, "pgresults db upgrade"), ("0000", "pgresults db upgrade"), ("9999", "pip install --upgrade pgresults")],
)
@pytest.mark.parametrize("method", ["exists", "read", "write", "delete"])
async def test_another_schema_is_refused_with_the_command(
    call: Any, database_at: Any, revision: str | None, command: str, method: str
) -> None:
    storage = PostgresStorage(database_at(revision))
    store = ResultStore(result_storage=storage)
    for _ in range(2):
        with pytest.raises(SchemaVersionError) as refusal:
            await call(store, method, *(["result", "k"] if method == "write" else ["k"]))
        assert refusal.value.command == command
        assert command in str(refusal.value)
    assert (refusal.value.schema, refusal.value.found, refusal.value.expected) == (SCHEMA, revision, REVISION)
    await storage.aclose()


async def test_a_store_works_as_soon_as_the_schema_is_there(call: Any, empty_url: URL) -> None:
    storage = PostgresStorage(empty_url)
    store = ResultStore(result_storage=storage)
    with pytest.raises(SchemaVersionError):
        await call(store, "exists", "k")
    migrations.upgrade(empty_url)
    assert not await call(store, "exists", "k")
    await storage.aclose()


def test_a_newer_schema_is_not_touched(database_at: Any) -> None:
    url = database_at("9999")
    with pytest.raises(SchemaVersionError, match="9999"):
        migrations.upgrade(url)
    assert migrations.current(url) == "9999"


async def test_a_user_needs_no_more_than_grants_on_the_tables(call: Any, empty_url: URL, admin: Any, user: URL) -> None:
    migrations.upgrade(empty_url)
    storage = PostgresStorage(user)
    store = ResultStore(result_storage=storage)
    with pytest.raises(ConfigurationError, match="refuses this user"):
        await call(store, "exists", "k")
    grant(admin, "GRANT USAGE ON SCHEMA pgresults TO {user}", user)
    grant(admin, "GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA pgresults TO {user}", user)
    for size in (10, 3_000_000):
        await call(store, "write", bytes(size), key="k")
        assert len((await call(store, "read", "k")).result) == size
    assert await call(store, "delete", "k")
    assert migrations.upgrade(user) == REVISION
    await storage.aclose()


def test_a_reader_may_read_and_is_told_that_it_may_not_write(empty_url: URL, admin: Any, user: URL) -> None:
    migrations.upgrade(empty_url)
    owned, storage = PostgresStorage(empty_url), PostgresStorage(user)
    ResultStore(result_storage=owned).write(1, key="k")
    grant(admin, "GRANT USAGE ON SCHEMA pgresults TO {user}", user)
    grant(admin, "GRANT SELECT ON ALL TABLES IN SCHEMA pgresults TO {user}", user)
    store = ResultStore(result_storage=storage)
    assert store.read("k").result == 1
    with pytest.raises(ConfigurationError, match="permission denied"):
        store.write(2, key="k")
    owned.close()
    storage.close()


def test_whoever_may_not_create_a_schema_can_fill_one(admin: Any, user: URL) -> None:
    with pytest.raises(ConfigurationError, match="permission denied"):
        migrations.upgrade(user)
    grant(admin, "CREATE SCHEMA pgresults AUTHORIZATION {user}", user)
    assert migrations.upgrade(user) == REVISION
    assert differences(user, SCHEMA) == []


def test_whoever_may_not_change_the_schema_is_told(database_at: Any, admin: Any, user: URL) -> None:
    database_at("0001")
    grant(admin, "GRANT USAGE ON SCHEMA pgresults TO {user}", user)
    grant(admin, "GRANT SELECT ON ALL TABLES IN SCHEMA pgresults TO {user}", user)
    with pytest.raises(ConfigurationError, match=r"permission denied|must be owner"):
        migrations.upgrade(user)
    assert migrations.current(user) == "0001"


@pytest.mark.parametrize("schema", [SCHEMA, ODD])
def test_the_printed_statements_do_the_same(empty_url: URL, admin: Any, schema: str) -> None:
    admin.execute(migrations.ddl(schema))
    assert migrations.current(empty_url, schema) == REVISION
    assert differences(empty_url, schema) == []
    printed = relations(admin, schema)
    admin.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(schema)))
    migrations.upgrade(empty_url, schema)
    assert relations(admin, schema) == printed


def test_a_failed_upgrade_leaves_nothing_behind(empty_url: URL, admin: Any) -> None:
    admin.execute("CREATE SCHEMA pgresults; CREATE VIEW pgresults.held_locks AS SELECT 1")
    with pytest.raises((StorageUnavailable, SchemaVersionError, ConfigurationError)):
        migrations.upgrade(empty_url)
    assert relations(admin, SCHEMA) == [("held_locks", "v")]
    assert migrations.current(empty_url) is None


def test_the_last_revision_is_the_one_the_code_names() -> None:
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(migrations._scripts()))
    assert scripts.get_heads() == [REVISION]
    assert sorted(revision.revision for revision in scripts.walk_revisions()) == [
        f"{number:04}" for number in range(1, int(REVISION) + 1)
    ]
