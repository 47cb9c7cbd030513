"""The tests' databases: their URLs, and the sessions in them."""

from typing import Any

import psycopg
from sqlalchemy import URL


def psycopg_url(url: URL) -> str:
    """The URL as psycopg takes it."""
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def backends(connection: psycopg.Connection[Any]) -> list[int]:
    rows = connection.execute(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() ORDER BY 1"
    )
    return [pid for (pid,) in rows.fetchall()]


def terminate_all(connection: psycopg.Connection[Any]) -> int:
    """End all other sessions in the database, and wait until they are gone."""
    ended = connection.execute(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    return len(ended.fetchall())


def guard_again(connection: psycopg.Connection[Any]) -> None:
    """Have what keeps the history keep it again after a test has tampered with it."""
    rows = connection.execute(
        "SELECT tgname FROM pg_trigger"
        " WHERE tgrelid = 'pgresults.history'::regclass AND tgname IN ('append_only', 'kept')"
    ).fetchall()
    for (name,) in rows:
        connection.execute(f"ALTER TABLE pgresults.history ENABLE ALWAYS TRIGGER {name}")
