"""Databases on a running Citus cluster, which whoever tests has brought."""

import psycopg
from psycopg import sql
from sqlalchemy import URL

from pgresults.database import distribution, migrations
from tests.support.database import psycopg_url

VARIABLE = "PGRESULTS_TEST_CITUS_URL"
"""Names a database with the extension on the cluster's coordinator, as a superuser."""

_SHARDS = 4


def servers(url: URL) -> list[URL]:
    """The servers of a cluster, its coordinator first."""
    with psycopg.connect(psycopg_url(url), autocommit=True) as connection:
        rows = connection.execute(
            "SELECT nodename, nodeport FROM pg_dist_node WHERE noderole = 'primary' ORDER BY groupid"
        ).fetchall()
    return [url.set(host=host, port=port) for host, port in rows]


def create(url: URL, name: str) -> URL:
    """A new database on all servers of a cluster, with the extension."""
    with psycopg.connect(psycopg_url(url), autocommit=True) as one_at_a_time:
        one_at_a_time.execute("SELECT pg_advisory_lock(hashtext('pgresults tests'))")  # they share their roles
        return _create(url, name)


def _create(url: URL, name: str) -> URL:
    for server in servers(url):
        _execute(server, "SET citus.enable_create_database_propagation = off", "CREATE DATABASE {}", name=name)
        _execute(server.set(database=name), "CREATE EXTENSION citus")
    coordinator, *workers = servers(url)
    with psycopg.connect(psycopg_url(coordinator.set(database=name)), autocommit=True) as connection:
        connection.execute("SELECT citus_set_coordinator_host(%s, %s)", (coordinator.host, coordinator.port))
        for worker in workers:
            connection.execute("SELECT citus_add_node(%s, %s)", (worker.host, worker.port))
        # So that tests can tamper with what keeps the history.
        connection.execute(
            sql.SQL("ALTER DATABASE {} SET citus.enable_unsafe_triggers = on").format(sql.Identifier(name))
        )
    return coordinator.set(database=name)


def create_spread(url: URL, name: str) -> URL:
    """A new database with a schema that is spread."""
    made = create(url, name)
    migrations.upgrade(made.set(drivername="postgresql+psycopg"))
    distribution.distribute(made.set(drivername="postgresql+psycopg"), shards=_SHARDS)
    return made


def drop(url: URL, name: str) -> None:
    """Take a database away from all servers."""
    for server in servers(url):
        _execute(
            server, "SET citus.enable_create_database_propagation = off", "DROP DATABASE {} WITH (FORCE)", name=name
        )


def _execute(url: URL, *statements: str, name: str = "") -> None:
    with psycopg.connect(psycopg_url(url), autocommit=True) as connection:
        for statement in statements:
            connection.execute(sql.SQL(statement).format(sql.Identifier(name)) if "{" in statement else statement)
