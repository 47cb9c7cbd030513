"""What the roles may and may not do is decided by the server."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import URL
from typer.testing import CliRunner

from pgresults.cli.app import app
from pgresults.errors import ConfigurationError, LockedError
from pgresults.settings import Settings
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.calls import Call
from tests.support.database import psycopg_url
from tests.support.sealing import seal_over

KINDS = ("writer", "reader", "auditor", "historian", "sweeper", "owner")


@pytest.fixture(scope="module")
def database(create_database: Any) -> Any:
    return create_database()


@pytest.fixture(scope="module")
def admin(database: URL) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(psycopg_url(database), autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="module")
def urls(database: URL, admin: psycopg.Connection[Any]) -> Iterator[dict[str, URL]]:
    """A user of every kind, made by the command."""
    names = {kind: f"pgresults_{kind}_{uuid4().hex[:8]}" for kind in KINDS}
    for kind, name in names.items():
        admin.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'x'").format(sql.Identifier(name)))
        options = ["--database-url", psycopg_url(database), "db", "grant", name, "--as", kind]
        granted = CliRunner().invoke(app, options)
        assert granted.exit_code == 0, granted.output
    yield {kind: database.set(username=name, password="x") for kind, name in names.items()}
    for name in names.values():
        admin.execute(sql.SQL("DROP OWNED BY {0} CASCADE; DROP ROLE {0}").format(sql.Identifier(name)))


@pytest.fixture
def stores(urls: dict[str, URL], database: URL) -> Iterator[dict[str, ResultStore]]:
    """A store of every kind of user, and the superuser's, over one new storage."""
    name = f"test-{uuid4().hex}"
    made = {
        kind: ResultStore(result_storage=PostgresStorage(url, name))
        for kind, url in {**urls, "super": database}.items()
    }
    made["super"].write(1, key="k")
    yield made
    for store in made.values():
        store.result_storage.close()


CHANGES = (
    "UPDATE pgresults.history SET actor = 'nobody'",
    "DELETE FROM pgresults.history",
    "TRUNCATE pgresults.history",
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", CHANGES)
def test_nobody_changes_history(urls: dict[str, URL], stores: Any, kind: str, change: str) -> None:
    with psycopg.connect(psycopg_url(urls[kind])) as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege) as refusal:
            connection.execute(change)
        assert ("append-only" in str(refusal.value)) is (kind == "owner")


@pytest.mark.parametrize("kind", ["writer", "reader", "auditor", "sweeper"])
def test_only_owners_may_open_history_for_maintenance(urls: dict[str, URL], stores: Any, kind: str) -> None:
    with psycopg.connect(psycopg_url(urls[kind])) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("SELECT pgresults.maintenance('mine')")


def test_owners_may(urls: dict[str, URL], stores: Any) -> None:
    with psycopg.connect(psycopg_url(urls["owner"])) as connection:
        connection.execute("SELECT pgresults.maintenance('mine')")
        connection.execute("UPDATE pgresults.history SET xid = xid")
    assert stores["auditor"].verify().intact


TEMPORARY_HISTORY = """
CREATE TEMPORARY TABLE history AS SELECT * FROM pgresults.history LIMIT 0;
INSERT INTO pg_temp.history (storage_id, key, xid)
VALUES ('00000000-0000-0000-0000-000000000000', 'maintenance', pg_current_xact_id()::text::bigint)
"""


def test_a_temporary_table_does_not_pass_for_the_history(urls: dict[str, URL], stores: Any) -> None:
    with psycopg.connect(psycopg_url(urls["owner"])) as connection:
        connection.execute(TEMPORARY_HISTORY)
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
            connection.execute(CHANGES[0])


TEMPORARY_DOCUMENT = """
CREATE TEMPORARY TABLE document (storage_id uuid, key text, document jsonb);
INSERT INTO pg_temp.document SELECT storage_id, key FROM pgresults.result;
CREATE FUNCTION pg_temp.as_whom() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE pgresults.result SET reason = current_user;
    RETURN OLD;
END
$$;
CREATE TRIGGER as_whom BEFORE DELETE ON pg_temp.document FOR EACH ROW EXECUTE FUNCTION pg_temp.as_whom();
UPDATE pgresults.result
SET payload_id = payload_id, action = 'break', seq = seq + 1, previous = digest, db_user = session_user,
    at = greatest(statement_timestamp(), at + interval '1 microsecond')
WHERE storage_id <> '00000000-0000-0000-0000-000000000000'
"""


def test_a_temporary_table_makes_nobody_an_owner(urls: dict[str, URL], stores: Any, admin: Any) -> None:
    admin.execute("SELECT pgresults.project_documents()")
    with psycopg.connect(psycopg_url(urls["writer"])) as connection:
        connection.execute(TEMPORARY_DOCUMENT)
        reasons = "SELECT FROM pgresults.result WHERE reason = session_user OR reason = %s"
        assert connection.execute(reasons, [admin.info.user]).fetchall() == []
        connection.rollback()
    admin.execute("SELECT pgresults.project_documents(false)")


def refused(store: ResultStore, name: str, *arguments: Any, **options: Any) -> None:
    with pytest.raises(ConfigurationError, match="permission denied"):
        getattr(store, name)(*arguments, **options)


def test_a_writer_writes_and_erases_nothing(stores: dict[str, ResultStore]) -> None:
    writer = stores["writer"]
    assert writer.write(2, key="k").version == 2
    writer.write(bytes(2_000_000), key="large", expiration=datetime.now(UTC) - timedelta(hours=1))
    writer.touch("k", datetime.now(UTC) + timedelta(hours=1))
    assert writer.delete("k")
    assert len(writer.history("k")) == 4
    refused(writer, "redact", "k", "law")
    refused(writer, "sweep")
    refused(writer, "retain", versions=1)
    assert stores["auditor"].verify().intact


def test_a_writer_locks(stores: dict[str, ResultStore]) -> None:
    storage = stores["writer"].result_storage
    store = ResultStore(result_storage=storage, lock_manager=storage.lock_manager())
    assert store.acquire_lock("k")
    store.write(2, key="k")
    store.release_lock("k")


def test_a_reader_reads_what_is_there(stores: dict[str, ResultStore]) -> None:
    reader = stores["reader"]
    assert (reader.read("k").result, reader.exists("k")) == (1, True)
    assert [row.key for row in reader.find()] == ["k"]
    refused(reader, "write", 2, key="k")
    refused(reader, "delete", "k")
    refused(reader, "history", "k")


def test_an_auditor_reads_everything(stores: dict[str, ResultStore]) -> None:
    auditor = stores["auditor"]
    assert auditor.verify().intact
    assert len(auditor.history("k", with_results=True)) == 1
    refused(auditor, "touch", "k", None)
    refused(auditor, "redact", "k", "law")


def test_a_sweeper_takes_away(stores: dict[str, ResultStore]) -> None:
    stores["writer"].write(1, key="old", expiration=datetime.now(UTC) - timedelta(hours=1))
    stores["writer"].write(2, key="k")
    sweeper = stores["sweeper"]
    assert (sweeper.sweep(), sweeper.retain(versions=1), sweeper.redact("k", "law")) == (1, 1, 1)
    refused(sweeper, "write", 2, key="k")
    assert stores["auditor"].verify().intact


def test_a_role_that_is_not_there_is_refused(database: URL) -> None:
    granted = CliRunner().invoke(
        app, ["--database-url", psycopg_url(database), "db", "grant", "no-one", "--as", "writer"]
    )
    assert granted.exit_code == 1
    assert "no-one" in granted.output


def test_who_does_not_own_the_tables_grants_nothing(urls: dict[str, URL], admin: Any) -> None:
    options = ["--database-url", psycopg_url(urls["reader"]), "db", "grant", urls["reader"].username, "--as", "owner"]
    assert CliRunner().invoke(app, options).exit_code == 1


def test_a_historian_sees_what_happened_and_no_payload(
    stores: dict[str, ResultStore], urls: dict[str, URL], tmp_path: Path
) -> None:
    settings = Settings(seal_key=tmp_path / "seal.pem")
    storage = PostgresStorage(urls["historian"], stores["super"].result_storage.name, settings=settings)
    historian = ResultStore(result_storage=storage)
    (entry,) = historian.history("k")
    assert (entry.action, entry.sha256 is not None, historian.exists("k")) == ("write", True, True)
    assert seal_over(historian, 1).entries > 0
    refused(historian, "read", "k")
    refused(historian, "verify")
    refused(historian, "touch", "k", None)
    storage.close()


TOKENS = "SELECT token FROM pgresults.lock"


@pytest.mark.parametrize("kind", ["reader", "auditor", "historian"])
def test_tokens_are_for_those_who_take_locks(urls: dict[str, URL], stores: Any, kind: str) -> None:
    with psycopg.connect(psycopg_url(urls[kind])) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(TOKENS)


def test_who_reads_waits_for_the_locks_of_others(stores: dict[str, ResultStore], urls: dict[str, URL]) -> None:
    """For which nobody needs a token."""
    holder = stores["writer"].result_storage.lock_manager()
    settings = Settings(read_lock_timeout=0.05)
    storage = PostgresStorage(urls["reader"], stores["super"].result_storage.name, settings=settings)
    reader = ResultStore(result_storage=storage, lock_manager=storage.lock_manager())
    assert reader.read("k").result == 1
    assert holder.acquire_lock("k", "somebody")
    assert reader.is_locked("k")
    with pytest.raises(LockedError):
        reader.read("k")
    holder.release_lock("k", "somebody")
    assert reader.read("k").result == 1
    storage.close()


@pytest.mark.parametrize("kind", ["writer", "sweeper"])
def test_nobody_deletes_a_lock_that_is_held(stores: dict[str, ResultStore], urls: dict[str, URL], kind: str) -> None:
    holder = stores["super"].result_storage.lock_manager()
    assert holder.acquire_lock("k", "somebody")
    with psycopg.connect(psycopg_url(urls[kind]), autocommit=True) as connection:
        connection.execute("SELECT pgresults.forget_released()")
        for change in ("DELETE FROM pgresults.lock", "SELECT setval('pgresults.forgotten', 1000000)"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(change)
    assert holder.is_lock_holder("k", "somebody")
    holder.release_lock("k", "somebody")


@pytest.mark.parametrize("kind", KINDS)
def test_payloads_are_read_where_a_role_may_see_them(stores: dict[str, ResultStore], kind: str) -> None:
    storage = stores[kind].result_storage
    stores[kind].exists("k")
    assert storage.database.sees_payloads is (kind in ("writer", "auditor", "sweeper", "owner"))
    if kind != "historian":
        assert stores[kind].read("k").result == 1


async def test_who_may_no_longer_see_the_payloads_reads_what_is_current(
    call: Call, stores: dict[str, ResultStore], urls: dict[str, URL], admin: Any
) -> None:
    auditor, right = stores["auditor"], ("ON pgresults.payload", urls["auditor"].username)
    assert (await call(auditor, "read", "k")).result == 1
    admin.execute("REVOKE SELECT {} FROM {}".format(*right))
    try:
        with pytest.raises(ConfigurationError, match="permission denied"):
            await call(auditor, "read", "k")
        assert (await call(auditor, "read", "k")).result == 1
        assert [record.result for record in (await call(auditor, "read_many", ["k"])).values()] == [1]
    finally:
        admin.execute("GRANT SELECT {} TO {}".format(*right))


CONFINED = """
ALTER TABLE pgresults.result ENABLE ROW LEVEL SECURITY;
CREATE POLICY everybody ON pgresults.result USING (true);
CREATE POLICY confined ON pgresults.result AS RESTRICTIVE TO {role} USING (storage_id = {storage});
"""


def test_a_writer_may_be_confined_to_one_storage(
    stores: dict[str, ResultStore], urls: dict[str, URL], admin: Any
) -> None:
    mine = stores["writer"].result_storage
    other = ResultStore(result_storage=PostgresStorage(urls["writer"], f"test-{uuid4().hex}"))
    role = sql.Identifier(urls["writer"].username or "")
    admin.execute(sql.SQL(CONFINED).format(role=role, storage=sql.Literal(mine.id)))
    try:
        for size in (10, 3_000_000):
            assert stores["writer"].write(bytes(size), key="k").version
            assert len(stores["reader"].read("k").result) == size
            with pytest.raises(ConfigurationError, match="row-level security"):
                other.write(bytes(size), key="k")
        assert stores["auditor"].verify().intact
    finally:
        admin.execute("DROP POLICY confined ON pgresults.result; DROP POLICY everybody ON pgresults.result")
        admin.execute("ALTER TABLE pgresults.result DISABLE ROW LEVEL SECURITY")
        other.result_storage.close()


LEAK = """
CREATE FUNCTION pg_temp.seen(data bytea) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS $$
BEGIN
    RAISE NOTICE 'seen %', octet_length(data);
    RETURN true;
END
$$
"""


def test_a_reader_sees_no_payload_that_is_not_current(stores: dict[str, ResultStore], urls: dict[str, URL]) -> None:
    writer, reader = stores["writer"], stores["reader"]
    for size in (1_234_567, 2_345_678, 3_456_789):
        writer.write(bytes(size), key="large")
        assert len(reader.read("large").result) == size
    writer.write(1, key="old", expiration=datetime.now(UTC) - timedelta(hours=1))
    with pytest.raises(ConfigurationError, match="permission denied"):
        reader.read("large", version=1)
    seen: list[str] = []
    with psycopg.connect(psycopg_url(urls["reader"]), autocommit=True) as connection:
        connection.add_notice_handler(lambda notice: seen.append(notice.message_primary or ""))
        for table in ("payload", "document"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(f"SELECT * FROM pgresults.{table}")
        connection.execute(LEAK)
        place = "storage_id = %s AND key IN ('large', 'old') AND pg_temp.seen(data)"
        rows = connection.execute(
            f"SELECT sum(octet_length(data)) FROM pgresults.current_payloads WHERE {place}", [writer.result_storage.id]
        ).fetchall()
    assert rows[0][0] == sum(int(message.split()[1]) for message in seen)
    assert 3_456_789 <= rows[0][0] < 3_457_000
