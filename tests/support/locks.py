"""What is locked and who waits, as the server sees it."""

import asyncio
from typing import Any

import psycopg


async def watched(connection: psycopg.Connection[Any], query: str) -> None:
    """Return when a query gives a row."""
    while connection.execute(query).fetchone() is None:
        await asyncio.sleep(0)


ADVISORY = """pg_locks WHERE locktype = 'advisory'
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""
WAITING = f"SELECT FROM {ADVISORY} AND NOT granted AND pid <> pg_backend_pid()"


WAITERS = f"SELECT count(*) FROM {ADVISORY} AND NOT granted"
"""How many wait on the server."""
