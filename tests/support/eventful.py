"""A store in which something happened."""

from datetime import UTC, datetime, timedelta

import pytest

from pgresults.store import ResultStore


@pytest.fixture
def eventful(store: ResultStore) -> ResultStore:
    """Five entries under two keys."""
    return events(store)


def events(store: ResultStore) -> ResultStore:
    """Five entries under two keys of a store."""
    store.write(1, key="a/1", tags=["red"])
    store.write(2, key="b/1")
    store.touch("a/1", datetime.now(UTC) + timedelta(days=1))
    store.delete("b/1", reason="wrong")
    store.write(3, key="a/1", tags=["blue"])
    return store
