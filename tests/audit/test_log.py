"""`log`: what happened under all keys, the newest first."""

from datetime import datetime
from typing import Any

import psycopg
import pytest

from pgresults.audit import log as module
from pgresults.errors import InvalidArgument
from pgresults.store import ResultStore
from tests.support import eventful as happened
from tests.support.calls import Call

eventful = happened.eventful


def _seen(log: list[Any]) -> list[tuple[str, str]]:
    return [(entry.action, entry.key) for entry in log]


EVERYTHING = [("write", "a/1"), ("delete", "b/1"), ("touch", "a/1"), ("write", "b/1"), ("write", "a/1")]


@pytest.mark.parametrize("page", [1, 2, 1000])
async def test_all_is_found_page_by_page(
    call: Call, eventful: ResultStore, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    monkeypatch.setattr(module, "PAGE", page)
    log = await call(eventful, "log")
    assert _seen(log) == EVERYTHING
    assert log[1].reason == "wrong"
    assert not any(entry.has_result for entry in log)
    assert _seen(await call(eventful, "log", prefix="a/", limit=2)) == [("write", "a/1"), ("touch", "a/1")]
    assert _seen(await call(eventful, "log", tags=["red"], action="write")) == [("write", "a/1")]
    assert _seen(await call(eventful, "log", until=log[2].at)) == EVERYTHING[3:]
    assert _seen(await call(eventful, "log", since=log[2].at, limit=100)) == EVERYTHING[:3]
    assert await call(eventful, "log", actor="nobody@nowhere") == []


@pytest.mark.parametrize("moment", ["same", "infinity", "-infinity"])
def test_pages_end_between_entries_of_one_moment(
    eventful: ResultStore, connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    monkeypatch.setattr(module, "PAGE", 2)
    storage = eventful.result_storage
    with connection.transaction():
        connection.execute("SET LOCAL session_replication_role = replica")
        at = {"same": "2026-01-01T00:00:00Z"}.get(moment, moment)
        connection.execute("ALTER TABLE pgresults.history DISABLE TRIGGER USER")
        connection.execute("UPDATE pgresults.history SET at = %s WHERE storage_id = %s", [at, storage.id])
        connection.execute("ALTER TABLE pgresults.history ENABLE ALWAYS TRIGGER append_only")
        connection.execute("ALTER TABLE pgresults.history ENABLE ALWAYS TRIGGER kept")
    assert [(entry.key, entry.seq) for entry in eventful.log()] == [
        ("a/1", 3), ("a/1", 2), ("a/1", 1), ("b/1", 2), ("b/1", 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "wrong", [{"limit": 0}, {"limit": True - 1}, {"since": datetime(2026, 1, 1)}, {"action": "wriet"}, {"tags": "red"}]
)
def test_what_is_asked_wrongly_is_refused(store: ResultStore, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        store.log(**wrong)


def test_it_can_be_taken_as_a_frame(eventful: ResultStore) -> None:
    pytest.importorskip("pandas")
    assert list(eventful.log().to_pandas()["key"]) == [key for _, key in EVERYTHING]
