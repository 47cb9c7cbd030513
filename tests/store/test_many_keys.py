"""Asking for, reading and deleting the results of many keys."""

from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest

from pgresults import ResultStore
from pgresults.errors import InvalidArgument, InvalidKey, LockedError, LockLostError
from pgresults.operations import history
from pgresults.store import batches, bulk_methods
from tests.support.calls import Call


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "_KEYS_A_STATEMENT", 10)
    monkeypatch.setattr(history, "_KEYS_A_STATEMENT", 10)
    monkeypatch.setattr(bulk_methods, "_KEYS_AT_A_TIME", 10)


@pytest.fixture(params=["beside", "apart"])
def used(request: pytest.FixtureRequest, store: ResultStore, apart: ResultStore) -> ResultStore:
    """A store that keeps metadata beside payloads, or apart."""
    used = store if request.param == "beside" else apart
    used.write_many({f"k{number:02}": number for number in range(35)})
    return used


async def all_of(items: Any) -> list[Any]:
    return [item async for item in items] if isinstance(items, AsyncIterator) else list(items)


@pytest.mark.parametrize("way", ["iter_many", "aiter_many"])
async def test_records_come_one_after_the_other(used: ResultStore, way: str) -> None:
    used.delete("k07")
    keys = [f"k{number:02}" for number in (34, *range(30), 99)]
    found = await all_of(getattr(used, way)(iter(keys)))
    assert [(key, record.result) for key, record in found] == [
        (key, int(key[1:])) for key in keys if key not in ("k07", "k99")
    ]


async def test_which_keys_have_a_result(used: ResultStore, call: Call) -> None:
    await call(used, "delete", "k03")
    asked = (f"k{number:02}" for number in range(0, 60, 3))
    assert await call(used, "exists_many", asked) == {f"k{number:02}" for number in range(6, 35, 3)} | {"k00"}
    assert await call(used, "exists_many", []) == set()


async def test_many_are_deleted(used: ResultStore, call: Call) -> None:
    await call(used, "delete", "k03")
    keys = [f"k{number:02}" for number in range(40)]
    assert await call(used, "delete_many", iter([*keys[:30], *keys[:30]]), reason="stale") == 29
    assert await call(used, "exists_many", keys) == set(keys[30:35])
    entries = await call(used, "history", "k11")
    assert [(entry.action, entry.reason) for entry in entries] == [("write", None), ("delete", "stale")]
    assert await call(used, "delete_many", keys[:30]) == await call(used, "delete_many", []) == 0
    assert (await call(used, "verify")).intact


@pytest.mark.parametrize("method", ["exists_many", "delete_many", "read_many"])
async def test_what_are_no_keys_is_refused(store: ResultStore, call: Call, method: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        await call(store, method, "ab")
    assert refusal.value.argument == "keys"
    with pytest.raises(InvalidKey) as bad:
        await call(store, method, ["a", ""])
    assert bad.value.key == ""


async def test_locks_hold_for_all_deletions(guarded: ResultStore, call: Call) -> None:
    keys = [f"k{number:02}" for number in range(15)]
    await call(guarded, "write_many", dict.fromkeys(keys, 1))
    await call(guarded, "acquire_lock", "k11", holder="another")
    with pytest.raises(LockedError) as refusal:
        await call(guarded, "delete_many", keys)
    assert (refusal.value.key, refusal.value.holder) == ("k11", "another")
    assert await call(guarded, "exists_many", keys) == set(keys)
    await call(guarded, "release_lock", "k11", holder="another")
    await call(guarded, "acquire_lock", "k04")
    assert await call(guarded, "delete_many", keys) == 15
    assert (await call(guarded, "history", "k04"))[-1].fence is not None


async def test_a_lost_lock_is_noticed(guarded: ResultStore, call: Call, connection: psycopg.Connection[Any]) -> None:
    await call(guarded, "write_many", {"a": 1, "b": 2})
    await call(guarded, "acquire_lock", "b")
    connection.execute("UPDATE pgresults.lock SET fence = fence + 1 WHERE key = 'b'")
    with pytest.raises(LockLostError):
        await call(guarded, "delete_many", ["a", "b"])
    assert await call(guarded, "exists_many", ["a", "b"]) == {"a", "b"}
