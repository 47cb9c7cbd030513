"""What the roles may and may not do is decided by the server."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import URL
from typer.testing import CliRunner

from pgresults.cli.app import app
from pgresults.errors import ConfigurationError
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.database import psycopg_url

KINDS = ("writer", "reader", "auditor", "sweeper", "owner")


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
