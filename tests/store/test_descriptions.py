"""What goes with a result: tags, provenance, holders and reasons."""

import json
import math
from types import MappingProxyType
from typing import Any

import psycopg
import pytest

from pgresults.errors import InvalidArgument
from pgresults.store import ResultStore
from tests.support.values import SURROGATE


async def test_tags_and_provenance_are_kept(call: Any, store: ResultStore, connection: psycopg.Connection) -> None:
    provenance = {"input": {"rows": [1, 2.5, None, True]}, "π": "\\u0000 is no NUL"}
    stored = await call(store, "write", 1, key="k", tags=("nightly", "eu", "nightly"), provenance=provenance)
    record = await call(store, "read", "k")
    assert record.metadata.provenance == stored.provenance
    assert record.metadata.provenance.items() >= provenance.items()
    assert record.metadata.provenance["process"].keys() == {"host", "pid", "user"}
    rows = connection.execute(
        "SELECT tags FROM pgresults.live_results WHERE storage = %s", [store.result_storage.name]
    ).fetchall()
    assert rows == [(["nightly", "eu", "nightly"],)]


async def test_a_generator_of_tags_is_not_used_up(call: Any, store: ResultStore, connection: Any) -> None:
    await call(store, "write", 1, key="k", tags=(tag for tag in "ab"))
    row = connection.execute("SELECT tags FROM pgresults.result WHERE storage_id = %s", [store.result_storage.id])
    assert row.fetchone() == (["a", "b"],)


@pytest.mark.parametrize("tags", ["nightly", [""], ["a\0"], [SURROGATE], [1], [None], 7])
async def test_what_is_no_list_of_tags_is_refused(call: Any, store: ResultStore, tags: Any) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        await call(store, "write", 1, key="k", tags=tags)
    assert refusal.value.argument == "tags"
    assert not await call(store, "exists", "k")


NESTED: list[Any] = []
for _ in range(100_000):
    NESTED = [NESTED]


@pytest.mark.parametrize(
    "provenance",
    [
        pytest.param(value, id=name)
        for name, value in {
            "nan": {"a": math.nan},
            "infinity": {"a": [math.inf]},
            "no number": {"a": 10**5000},
            "nul": {"a": "b\0c"},
            "nul in a name": {"a\0": 1},
            "surrogate": {"a": SURROGATE},
            "numbers as names": {"a": {2: "a", 10: "b"}},
            "set": {"a": {1, 2}},
            "bytes": {"a": b"xy"},
            "generator": {"a": iter([1])},
            "object": {"a": object()},
            "too deep": {"a": NESTED},
            "deep": {"a": json.loads("[" * 400 + "]" * 400)},
            "mapping that is no dict": {"a": MappingProxyType({})},
            "taken": {"process": 1},
            "list": [1, 2],
            "text": "why",
        }.items()
    ],
)
async def test_what_is_no_json_object_is_no_provenance(call: Any, store: ResultStore, provenance: Any) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        await call(store, "write", 1, key="k", provenance=provenance)
    assert refusal.value.argument == "provenance"
    assert not await call(store, "exists", "k")


@pytest.mark.parametrize("text", ["a\0b", SURROGATE, 7])
async def test_holders_and_reasons_are_texts(call: Any, store: ResultStore, text: Any) -> None:
    await call(store, "write", 1, key="k")
    with pytest.raises(InvalidArgument) as refusal:
        await call(store, "write", 2, key="k", holder=text)
    assert refusal.value.argument == "holder"
    with pytest.raises(InvalidArgument) as refusal:
        await call(store, "delete", "k", reason=text)
    assert refusal.value.argument == "reason"
    assert (await call(store, "read", "k")).metadata.version == 1
