"""Moments and texts of results."""

from datetime import UTC, datetime, timedelta, timezone

import psycopg

from pgresults.store import ResultStore

SURROGATE = "\ud800"
TOKYO = timezone(timedelta(hours=9))


def soon() -> datetime:
    return datetime.now(UTC) + timedelta(hours=1)


def past() -> datetime:
    return datetime.now(UTC) - timedelta(seconds=1)


def set_expiration(connection: psycopg.Connection, store: ResultStore, moment: str) -> None:
    statement = f"UPDATE pgresults.result SET expires_at = {moment} WHERE storage_id = %s"
    connection.execute(statement, [store.result_storage.id])
