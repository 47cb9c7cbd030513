"""Schemas that were renamed, swapped, or restored under another name: no function works on a schema it is not in."""

import os
import subprocess
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL
from typer.testing import CliRunner

from pgresults import PostgresStorage, ResultStore
from pgresults.cli.app import app
from pgresults.database import migrations
from pgresults.errors import SchemaVersionError
from pgresults.serializers import JSONSerializer
from tests.setups.test_settings import workout
from tests.support.database import psycopg_url
from tests.support.documents import client_programs

CALLS = [
    "SELECT {}.sweep()",
    "SELECT {}.maintenance('why')",
    "SELECT {}.forget_released()",
    "SELECT {}.project_documents()",
    "UPDATE {}.result SET seq = seq + 1",
    "DELETE FROM {}.history",
]
COUNTS = (
    "SELECT (SELECT count(*) FROM {0}.history), (SELECT count(*) FROM {0}.payload), (SELECT count(*) FROM {0}.lock)"
)


def fill(url: URL, schema: str) -> None:
    """One result that is there, one that has expired, and a lock that was released."""
    storage = PostgresStorage(url, schema=schema)
    store = ResultStore(result_storage=storage, serializer=JSONSerializer())
    store.write({"in": schema}, key="k")
    store.write(1, key="expired", expiration=datetime.now(UTC) - timedelta(hours=1))
    locks = storage.lock_manager()
    locks.acquire_lock("k", "me")
    locks.release_lock("k", "me")
    storage.close()


def rename(admin: psycopg.Connection[Any], url: URL) -> str:
    admin.execute("ALTER SCHEMA pgresults RENAME TO archive")
    return "archive"


def renamed_and_made_anew(admin: psycopg.Connection[Any], url: URL) -> str:
    rename(admin, url)
    migrations.upgrade(url)
    fill(url, "pgresults")
    return "archive"


def swapped(admin: psycopg.Connection[Any], url: URL) -> str:
    migrations.upgrade(url, "blue")
    fill(url, "blue")
    admin.execute(
        "ALTER SCHEMA pgresults RENAME TO t; ALTER SCHEMA blue RENAME TO pgresults; ALTER SCHEMA t RENAME TO blue"
    )
    return "blue"


def renamed_beside_one_of_anybodys(admin: psycopg.Connection[Any], url: URL) -> str:
    rename(admin, url)
    admin.execute(
        "CREATE SCHEMA pgresults; CREATE TABLE pgresults.result (a int); CREATE TABLE pgresults.history (a int)"
    )
    admin.execute(
        "CREATE FUNCTION pgresults.bare_content(text, text, text, text) RETURNS bytea LANGUAGE plpgsql AS"
        " 'BEGIN RAISE EXCEPTION ''bitten''; END'"
    )
    return "archive"


def restored_under_another_name(admin: psycopg.Connection[Any], url: URL) -> str:
    """By way of a scratch schema: what is in the production schema must not be swept by the copy's function."""
    dump = subprocess.run(
        [client_programs(url) / "pg_dump", "--schema=pgresults", psycopg_url(url)], capture_output=True, check=True
    )
    admin.execute("ALTER SCHEMA pgresults RENAME TO kept")
    subprocess.run(
        [client_programs(url) / "psql", "-v", "ON_ERROR_STOP=1", "-q", psycopg_url(url)],
        input=dump.stdout,
        capture_output=True,
        check=True,
    )
    admin.execute("ALTER SCHEMA pgresults RENAME TO copy; ALTER SCHEMA kept RENAME TO pgresults")
    return "copy"


WAYS = [rename, renamed_and_made_anew, swapped, renamed_beside_one_of_anybodys, restored_under_another_name]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_function_refuses_to_work_elsewhere_until_it_is_told_where_it_is(
    fresh_url: URL, admin: Any, way: Any
) -> None:
    fill(fresh_url, "pgresults")
    # A session that has compiled all of them where they were.
    for call in CALLS[:3]:
        admin.execute("BEGIN; " + call.format("pgresults") + "; ROLLBACK")
    schema = way(admin, fresh_url)
    whole = [
        one for one in ("pgresults", schema) if admin.execute("SELECT to_regclass(%s)", [f"{one}.lock"]).fetchone()[0]
    ]
    before = {one: admin.execute(COUNTS.format(one)).fetchone() for one in whole}
    for call in CALLS:
        with pytest.raises(psycopg.errors.InvalidSchemaName, match="would work on another one"):
            admin.execute(call.format(schema))
    assert {one: admin.execute(COUNTS.format(one)).fetchone() for one in whole} == before
    storage = PostgresStorage(fresh_url, schema=schema)
    for work in (
        lambda: ResultStore(result_storage=storage).write(2, key="k"),
        ResultStore(result_storage=storage).sweep,
    ):
        with pytest.raises(SchemaVersionError) as refusal:
            work()
        assert refusal.value.command == "pgresults db upgrade"
    storage.close()


@pytest.mark.parametrize("way", [rename, swapped, restored_under_another_name], ids=lambda way: way.__name__)
def test_an_upgrade_tells_functions_where_they_are(fresh_url: URL, admin: Any, way: Any) -> None:
    fill(fresh_url, "pgresults")
    schema = way(admin, fresh_url)
    environment = {"PGRESULTS_DATABASE_URL": psycopg_url(fresh_url), "PGRESULTS_DATABASE_SCHEMA": schema}
    run = CliRunner(env=os.environ | environment).invoke
    refused = run(app, ["db", "check"])
    assert refused.exit_code == 1
    assert "sweep" in refused.output
    assert "pgresults db upgrade" in refused.output
    assert run(app, ["db", "upgrade"]).exit_code == 0
    assert run(app, ["db", "check"]).exit_code == 0
    storage = PostgresStorage(fresh_url, schema=schema)
    store = ResultStore(result_storage=storage, lock_manager=storage.lock_manager())
    assert store.sweep() == 1
    assert store.lock_manager.forget_released() == 0
    workout(store)
    with admin.transaction():
        admin.execute(f"SELECT {schema}.maintenance('it was renamed')")
        admin.execute(f"DELETE FROM {schema}.history WHERE key = 'many/1'")
    storage.close()


def test_what_opens_one_history_opens_no_other(fresh_url: URL, admin: Any) -> None:
    fill(fresh_url, "pgresults")
    schema = renamed_and_made_anew(admin, fresh_url)
    for opened, other in (("pgresults", schema), (schema, "pgresults")):
        if opened == schema:
            migrations.upgrade(fresh_url, schema)
        with admin.transaction(force_rollback=True):
            admin.execute(f"SELECT {opened}.maintenance('why')")
            with pytest.raises((psycopg.errors.InvalidSchemaName, psycopg.errors.InsufficientPrivilege)):
                admin.execute(f"DELETE FROM {other}.history")


def test_a_dump_restored_as_it_was_needs_nothing(fresh_url: URL, admin: Any) -> None:
    fill(fresh_url, "pgresults")
    restored_under_another_name(admin, fresh_url)
    admin.execute("ALTER SCHEMA pgresults RENAME TO other; ALTER SCHEMA copy RENAME TO pgresults")
    storage = PostgresStorage(fresh_url)
    store = ResultStore(result_storage=storage)
    assert migrations.require_sound(fresh_url) == []
    assert store.sweep() == 1
    assert store.verify().intact
    storage.close()


def test_an_upgrade_of_what_is_right_changes_nothing_and_asks_for_no_rights(fresh_url: URL, admin: Any) -> None:
    admin.execute("CREATE FUNCTION pgresults.mine() RETURNS int LANGUAGE sql SET search_path = public AS 'SELECT 1'")
    before = admin.execute("SELECT oid, xmin, proconfig FROM pg_proc WHERE proconfig IS NOT NULL ORDER BY 1").fetchall()
    migrations.upgrade(fresh_url)
    assert migrations.require_sound(fresh_url) == []
    assert (
        admin.execute("SELECT oid, xmin, proconfig FROM pg_proc WHERE proconfig IS NOT NULL ORDER BY 1").fetchall()
        == before
    )
