"""Databases on a running Citus cluster, which whoever tests has brought."""

import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import URL

from pgresults.database import distribution, migrations
from tests.support.database import psycopg_url

VARIABLE = "PGRESULTS_TEST_CITUS_URL"
"""Names a database with the extension on the cluster's coordinator, as a superuser."""

_SHARDS = 4

PATIENCE = 60.0
"""Seconds in which whatever is awaited comes."""

PREPARED = "SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()"
"""How many transactions of a database a server has prepared."""


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
        until(lambda server=server: _is_dropped(server, name))


def _is_dropped(server: URL, name: str) -> bool:
    setting = "SET citus.enable_create_database_propagation = off"
    try:
        _execute(server, setting, "DROP DATABASE IF EXISTS {} WITH (FORCE)", name=name)
    except psycopg.errors.ObjectInUse:  # a daemon of the cluster that came again meanwhile
        return False
    return True


def _execute(url: URL, *statements: str, name: str = "") -> None:
    with psycopg.connect(psycopg_url(url), autocommit=True) as connection:
        for statement in statements:
            connection.execute(sql.SQL(statement).format(sql.Identifier(name)) if "{" in statement else statement)


def until(condition: Callable[[], Any]) -> Any:
    """What a condition says once it says anything."""
    end = time.monotonic() + PATIENCE
    while not (said := condition()):
        assert time.monotonic() < end
    return said


class Server:
    """A server of the cluster, which may die and come again."""

    def __init__(self, url: URL) -> None:
        self.url = url

    def ask(self, query: str, *values: Any) -> list[Any]:
        with psycopg.connect(psycopg_url(self.url), autocommit=True) as connection:
            return connection.execute(query, values).fetchall()

    def count(self, query: str) -> int:
        return int(self.ask(query)[0][0])

    def is_up(self) -> bool:
        try:
            return self.count("SELECT 1") == 1
        except psycopg.OperationalError:
            return False

    def is_here(self) -> bool:
        """Whether its processes can be killed from here."""
        with psycopg.connect(psycopg_url(self.url)) as connection, suppress(OSError):
            pid = connection.info.backend_pid
            os.kill(pid, 0)
            return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"postgres: ")
        return False

    def kill(self, pid: int) -> None:
        """Have a process of it die, by which it starts anew with what is on its disk."""
        os.kill(pid, signal.SIGKILL)

    def crash(self) -> None:
        """Have any process of it die."""
        with psycopg.connect(psycopg_url(self.url)) as connection:
            self.kill(connection.info.backend_pid)


def settle(cluster: Sequence[Server]) -> None:
    """Have what is prepared be ended, as a cluster does itself once a minute; its coordinator comes first."""
    for server in cluster:
        until(server.is_up)

    def settled() -> bool:
        cluster[0].ask("SELECT recover_prepared_transactions()")
        return not any(server.count(PREPARED) for server in cluster)

    until(settled)
