"""Several results at once: written together or not at all."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pgresults import ResultStore
from pgresults.errors import InvalidArgument, LockedError, SerializationError
from tests.support.calls import Call
from tests.support.listing import page


@pytest.mark.parametrize("metadata", ["beside", "apart"])
async def test_many_at_once(store: ResultStore, apart: ResultStore, call: Call, metadata: str) -> None:
    used = store if metadata == "beside" else apart
    large = b"x" * 2_500_000
    items = {f"k{number}": number for number in range(50)} | {"large": large}
    stored = await call(used, "write_many", items, tags=["t"])
    assert stored.keys() == items.keys()
    assert {metadata.version for metadata in stored.values()} == {1}
    found = await call(used, "read_many", [*items, "nosuch"])
    assert {key: record.result for key, record in found.items()} == items
    assert await call(used, "read_many", []) == await call(used, "write_many", {}) == {}


@pytest.mark.parametrize("items", ["ab", b"ab", 7, ["ab"], [("k",)], [("k", 1, {"tag": "a"})], [(1, "k")]])
async def test_what_are_no_items_is_refused(store: ResultStore, call: Call, items: Any) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        await call(store, "write_many", items)
    assert refusal.value.argument == "items"


async def test_many_are_written_together_or_not_at_all(store: ResultStore, call: Call) -> None:
    store.lock_manager = store.result_storage.lock_manager()
    store.acquire_lock("k5", "other")
    with pytest.raises(LockedError):
        await call(store, "write_many", {f"k{number}": number for number in range(9)})
    with pytest.raises(SerializationError):
        await call(store, "write_many", {"a": 1, "b": lambda: (yield), "c": (_ for _ in ())})
    assert page(store.result_storage) == []
    store.release_lock("k5", "other")


async def test_one_text_is_not_several_keys(call: Any, store: ResultStore) -> None:
    await call(store, "write_many", {"a": 1, "b": 2})
    with pytest.raises(InvalidArgument) as refusal:
        await call(store, "read_many", "ab")
    assert (refusal.value.argument, refusal.value.value) == ("keys", "ab")


async def test_of_several_results_all_are_stored_or_none(call: Any, store: ResultStore) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    stored = await call(store, "write_many", {"a": 1, "b": 2}, expiration=soon, tags=["t"])
    assert [(key, stored[key].version, stored[key].expiration) for key in "ab"] == [("a", 1, soon), ("b", 1, soon)]
    guarded = store.model_copy(update={"lock_manager": store.result_storage.lock_manager()})
    await call(guarded, "acquire_lock", "c", holder="another")
    with pytest.raises(LockedError) as refusal:
        await call(guarded, "write_many", {"a": 10, "c": 30, "d": 40})
    assert (refusal.value.key, refusal.value.holder) == ("c", "another")
    found = await call(store, "read_many", ["d", "c", "b", "a"])
    assert {key: (one.result, one.metadata.version) for key, one in found.items()} == {"a": (1, 1), "b": (2, 1)}
    await call(guarded, "release_lock", "c", holder="another")
