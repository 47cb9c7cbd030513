"""What tests of transactions share: short names, failures, and what is there afterwards."""

import threading
from collections.abc import Callable
from typing import Any

import psycopg

from pgresults.store import ResultStore
from pgresults.transactions import CommitMode, IsolationLevel

EAGER, LAZY, OFF = CommitMode
READ_COMMITTED, SERIALIZABLE = IsolationLevel
UNPICKLABLE = threading.Lock()


class Failure(Exception):  # noqa: N818 (not an error of the program)
    """What goes wrong in a test."""


Enter = Callable[..., Any]


def stored(store: ResultStore, *keys: str) -> dict[str, Any]:
    """The results that are there."""
    return {key: store.read(key).result for key in keys if store.exists(key)}


def held(connection: psycopg.Connection[Any], store: ResultStore) -> list[str]:
    """The keys whose locks are not released."""
    query = "SELECT key FROM pgresults.lock WHERE storage_id = %s AND NOT released ORDER BY key"
    return [key for (key,) in connection.execute(query, [store.result_storage.id])]
