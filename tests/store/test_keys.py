"""Keys: any text is one, itself alone, and what is none is refused everywhere."""

from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pgresults.errors import InvalidKey
from pgresults.records.keys import MAX_KEY_BYTES
from pgresults.store import ResultStore
from tests.support.listing import page
from tests.support.values import SURROGATE, soon


@pytest.mark.parametrize(
    "key",
    [
        "%s",
        "a'b\"c\\",
        "k%(key)s",
        ":key",
        "日本/🎈",
        " ",
        "\n",
        "a" * MAX_KEY_BYTES,
        "\u0301",
        "../x",
        "$1",
        "NULL",
        "{}",
    ],
)
async def test_any_text_is_a_key(call: Any, store: ResultStore, key: str) -> None:
    assert not await call(store, "exists", key)
    await call(store, "write", key, key=key)
    assert await call(store, "exists", key)
    assert (await call(store, "read", key)).result == key
    assert await call(store, "delete", key)


@given(st.text(min_size=1, max_size=700))
@example("ä" * (MAX_KEY_BYTES // 2))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_key_is_itself_alone_or_refused(store: ResultStore, key: str) -> None:
    try:
        encoded = key.encode()
        storable = b"\0" not in encoded and len(encoded) <= MAX_KEY_BYTES
    except UnicodeEncodeError:
        storable = False
    if not storable:
        with pytest.raises(InvalidKey):
            store.write(1, key=key)
        return
    store.write(key, key=key)
    assert store.read(key).result == key
    assert [listed.key for listed in page(store.result_storage, prefix=key, limit=1)] == [key]


@pytest.mark.parametrize("key", ["", "a\0b", "\0", SURROGATE, "x" * (MAX_KEY_BYTES + 1), "ä" * 1025, 3, b"k", ()])
async def test_what_cannot_be_a_key_is_refused_everywhere(call: Any, store: ResultStore, key: Any) -> None:
    with pytest.raises(InvalidKey) as refusal:
        await call(store, "write", 1, key=key)
    assert refusal.value.reason in str(refusal.value)
    for method in ("read", "exists", "delete"):
        with pytest.raises(InvalidKey):
            await call(store, method, key)
    assert page(store.result_storage) == []


def test_the_longest_keys_fit_every_index(store: ResultStore, connection: psycopg.Connection) -> None:
    key = "".join(chr(0x10000 + (n * n * 7919 + n * 104729) % 0xF0000) for n in range(MAX_KEY_BYTES // 4))
    for _ in range(2):
        store.write(b"x" * 1_100_000, key=key, expiration=soon())
    assert store.read(key).metadata.version == 2
    assert store.delete(key)
    for table in ("result", "payload", "history"):
        (size,) = connection.execute(
            f"SELECT max(octet_length(key)) FROM pgresults.{table} WHERE storage_id = %s", [store.result_storage.id]
        ).fetchone()
        assert size == len(key.encode()) == MAX_KEY_BYTES
