"""A schema is as it should be however it came to be so: no set-up of an honest operator is a finding."""

from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from alembic import command
from psycopg import sql
from sqlalchemy import URL

from pgresults.audit.house import compare, inspect
from pgresults.database import migrations
from pgresults.database.programs import perform
from pgresults.operations.house import House
from pgresults.sql.grants import Kind, granting
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.setups.test_partitions import partition
from tests.support.database import psycopg_url
from tests.support.house import looked_at
from tests.support.roles import logged_in

EARLIER = {
    "0005": """
        GRANT USAGE ON SCHEMA pgresults TO {role};
        GRANT SELECT ON ALL TABLES IN SCHEMA pgresults TO {role};
        GRANT INSERT ON pgresults.storage, pgresults.payload, pgresults.history TO {role};
        GRANT INSERT, UPDATE ON pgresults.result TO {role};
        GRANT INSERT, UPDATE, DELETE ON pgresults.lock TO {role};
        GRANT DELETE ON pgresults.payload TO {role};
        GRANT USAGE, SELECT ON SEQUENCE pgresults.fence TO {role}
    """,
    "0006": "GRANT INSERT, UPDATE, DELETE ON pgresults.lock, pgresults.waiting TO {role}",
    "0010": "GRANT EXECUTE ON FUNCTION pgresults.sweep(integer, uuid, text, text, regclass) TO {role}",
}
"""What was granted to those who write and sweep while the schema was at a revision."""


@pytest.fixture
def role(server_url: URL) -> Iterator[sql.Identifier]:
    """A role that may nothing yet."""
    name = sql.Identifier(f"pgresults_{uuid4().hex[:8]}")
    with psycopg.connect(psycopg_url(server_url), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {}").format(name))
        yield name
        connection.execute(sql.SQL("DROP ROLE {}").format(name))


@pytest.fixture
def admin(empty_url: URL, role: sql.Identifier) -> Iterator[psycopg.Connection[Any]]:
    """A superuser in an empty database; what the role was granted there goes with the database's objects."""
    with psycopg.connect(psycopg_url(empty_url), autocommit=True) as connection:
        yield connection
        connection.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(role))


def test_a_schema_that_came_from_the_first_revision(empty_url: URL, admin: Any, role: sql.Identifier) -> None:
    for revision in migrations.revisions():
        with migrations.connected(empty_url) as connection:
            command.upgrade(migrations._config("pgresults", 30.0, connection), revision)
        if revision in EARLIER:
            admin.execute(sql.SQL(EARLIER[revision]).format(role=role))
    assert compare(looked_at(empty_url), "pgresults") == []


@pytest.mark.parametrize(
    "defaults",
    [
        "GRANT SELECT ON TABLES TO {}",
        "GRANT ALL ON TABLES TO {0}; ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO {0}",
        "GRANT USAGE, SELECT ON SEQUENCES TO {}",
        "REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC",
    ],
)
def test_default_privileges(empty_url: URL, admin: Any, role: sql.Identifier, defaults: str) -> None:
    admin.execute(sql.SQL(f"ALTER DEFAULT PRIVILEGES {defaults}").format(role))
    migrations.upgrade(empty_url)
    assert compare(looked_at(empty_url), "pgresults") == []


def test_default_privileges_that_give_too_much_are_told(empty_url: URL, admin: Any) -> None:
    admin.execute("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC")
    migrations.upgrade(empty_url)
    findings = compare(looked_at(empty_url), "pgresults")
    assert {one.kind for one in findings} == {"grant"}
    assert all("everybody may SELECT on" in one.message for one in findings)
    assert "live_results" not in " ".join(one.message for one in findings)


def test_partitioned_tables(empty_url: URL, admin: Any) -> None:
    partition(admin)
    migrations.upgrade(empty_url)
    assert compare(looked_at(empty_url), "pgresults") == []


def test_an_extension_in_the_schema(fresh_url: URL) -> None:
    with psycopg.connect(psycopg_url(fresh_url), autocommit=True) as connection:
        there = "SELECT name FROM pg_available_extensions WHERE name IN ('vector', 'citext') ORDER BY 1 LIMIT 1"
        (name,) = connection.execute(there).fetchone() or pytest.skip("the server has no extension to bring")
        connection.execute(sql.SQL("CREATE EXTENSION {} SCHEMA pgresults").format(sql.Identifier(name)))
    assert compare(looked_at(fresh_url), "pgresults") == []


def test_what_stands_on_our_tables(fresh_url: URL) -> None:
    with psycopg.connect(psycopg_url(fresh_url), autocommit=True) as connection:
        connection.execute(
            "CREATE VIEW pgresults.of_mine AS SELECT * FROM pgresults.result_history WHERE actor = 'me';"
            "CREATE MATERIALIZED VIEW public.counts AS SELECT storage_id, count(*) FROM pgresults.result GROUP BY 1;"
            "CREATE UNIQUE INDEX of_mine_idx ON pgresults.result (storage_id, key, version);"
            "CREATE STATISTICS pgresults.of_mine_stats ON storage_id, actor FROM pgresults.history;"
            "CREATE TABLE public.noted (storage_id uuid, key text, note text,"
            " FOREIGN KEY (storage_id, key) REFERENCES pgresults.result)"
        )
    assert compare(looked_at(fresh_url), "pgresults") == []


def test_tables_on_several_servers_are_not_compared(shared_url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    def spread(_: str) -> Any:
        yield from ()
        return House(is_spread=True)

    storage = PostgresStorage(shared_url)
    monkeypatch.setattr("pgresults.audit.house.look", spread)
    findings, (unseen,) = perform(inspect(storage))
    assert findings == []
    assert "several servers" in unseen
    storage.close()


def test_what_a_role_may_not_see_is_said(create_database: Callable[[], URL]) -> None:
    url = create_database()
    ResultStore(result_storage=PostgresStorage(url)).write(1, key="k")
    with logged_in(url, Kind.AUDITOR) as theirs, psycopg.connect(psycopg_url(url), autocommit=True) as connection:
        store = ResultStore(result_storage=PostgresStorage(theirs))
        assert store.verify().unseen == ()
        connection.execute("REVOKE SELECT ON pg_catalog.pg_rewrite, pg_catalog.pg_policy FROM PUBLIC")
        report = store.verify()
        assert report.intact
        assert len(report.unseen) == 3
        assert "without SELECT on pg_policy" in " ".join(report.unseen)
        connection.execute("REVOKE SELECT ON pg_catalog.pg_proc FROM PUBLIC")
        connection.execute("GRANT SELECT ON pg_catalog.pg_proc TO CURRENT_USER")
        assert all("pg_proc" in one for one in store.verify().unseen)
        store.result_storage.close()


def test_a_role_of_each_kind(create_database: Callable[[], URL]) -> None:
    url = create_database()
    for kind in Kind:
        with logged_in(url, kind) as theirs, psycopg.connect(psycopg_url(url), autocommit=True) as connection:
            assert compare(looked_at(url), "pgresults") == []
            connection.execute(granting("pgresults", str(theirs.username), Kind.READER))
            assert compare(looked_at(url), "pgresults") == []
