"""What the server chained is what Python recomputes, and what was changed afterwards is noticed."""

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from psycopg.rows import dict_row

from pgresults.serializers import JSONSerializer
from pgresults.sql.digests import canonical_json, content_digest, payload_digest
from pgresults.store import ResultStore
from tests.support.chains import entries, is_intact, recomputed

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
NUMBERS = st.one_of(
    st.integers(), st.integers(-(10**400), 10**400), st.floats(allow_nan=False, allow_infinity=False), st.booleans()
)
JSON = st.recursive(
    st.one_of(st.none(), NUMBERS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=8,
)
PROPERTIES = settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])


async def test_server_and_python_agree_on_every_action(call: Any, store: ResultStore, connection: Any) -> None:
    expiration = datetime.now(UTC) + timedelta(days=1)
    await call(store, "write", 1, key="k")
    await call(store, "write", 2, key="k", expiration=expiration, tags=["a", "ä"], provenance={"n": 1.50, "π": [None]})
    await call(store, "write", bytes(2_000_000), key="k", holder="somebody")
    await call(store, "delete", "k", reason="wrong")
    await call(store, "delete", "k")
    await call(store.model_copy(update={"serializer": JSONSerializer()}), "write", {}, key="k", tags=[])
    await call(store.result_storage, "write_path", "k", b"bare")
    chain = entries(connection, store)
    assert [entry["action"] for entry in chain] == ["write", "write", "write", "delete", "write", "write"]
    assert [entry["version"] for entry in chain] == [1, 2, 3, 3, 4, 5]
    assert chain[1]["expires_at"] == expiration
    assert is_intact(chain)


async def test_the_head_is_the_last_entry(call: Any, store: ResultStore, connection: Any) -> None:
    await call(store, "write", 1, key="k", tags=["a"], provenance={"n": 1})
    await call(store, "write", 2, key="k")
    for last in ("write", "delete"):
        with connection.cursor(row_factory=dict_row) as cursor:
            head = cursor.execute(
                "SELECT * FROM pgresults.result WHERE storage_id = %s", [store.result_storage.id]
            ).fetchone()
        entry = entries(connection, store)[-1]
        assert entry["action"] == last
        assert {name: head[name] for name in entry} == entry
        await call(store, "delete", "k")


async def test_keys_have_chains_of_their_own(call: Any, store: ResultStore, connection: Any) -> None:
    for key in ("a", "b", "a", "b"):
        await call(store, "write", 1, key=key)
    chain = entries(connection, store)
    assert is_intact(chain[:2])
    assert is_intact(chain[2:])
    assert len({entry["digest"] for entry in chain}) == 4


@given(st.dictionaries(TEXTS, JSON, max_size=3), st.lists(TEXTS.filter(bool), max_size=3), TEXTS.filter(bool))
@example({"n": [0, -0.0, 1e16, 1e-7, 5e-324, 1.7976931348623157e308, 10**308, 2**64, 0.1, 100, 1e2]}, ["\ufeff"], "k")
@example({"number": {"number": "1"}, "": {"": ""}}, ["\u2028", "\U0010ffff"], "\u0301")
@PROPERTIES
def test_what_went_through_the_server_has_the_same_digest(
    store: ResultStore, connection: Any, provenance: dict[str, Any], tags: list[str], key: str
) -> None:
    provenance = {f"my {name}": value for name, value in provenance.items()}
    stored = store.write(1, key=key, tags=tags, provenance=provenance, holder=key)
    with connection.cursor(row_factory=dict_row) as cursor:
        entry = cursor.execute(
            "SELECT * FROM pgresults.history WHERE storage_id = %s AND key = %s AND version = %s",
            [store.result_storage.id, key, stored.version],
        ).fetchone()
    assert entry["digest"] == recomputed(entry)
    assert (entry["tags"], entry["holder"]) == (tags, key)
    # Not the same to Python: through `jsonb`, 1e300 comes back as an integer.
    assert canonical_json(entry["provenance"]) == canonical_json(stored.provenance)


CHANGES = {
    "action": "'touch'",
    "actor": "actor || 'x'",
    "db_user": "'somebody'",
    "holder": "NULL",
    "fence": "1",
    "reason": "''",
    "payload_id": "gen_random_uuid()",
    "payload_digest": "sha256('x')",
    "size": "size + 1",
    "serializer": """'{"type": "json"}'""",
    "tags": "array_remove(tags, 'b')",
    "provenance": """provenance || '{"n": {"number": "1"}}'""",
    "storage_key": "'other'",
    "storage_block_id": "gen_random_uuid()",
    "pgresults_version": "'0'",
    "prefect_version": "''",
    "signature": "'\\x'",
    "derived_from": "ARRAY['1:other']",
    "version": "version + 1",
    "seq": "seq + 1",
    "key": "key || 'x'",
    "storage_id": "gen_random_uuid()",
    "at": "at + interval '1 microsecond'",
    "expires_at": "NULL",
    "previous": "sha256('x')",
    "digest": "sha256('x')",
}


def test_every_column_of_the_history_is_covered(connection: Any) -> None:
    names = connection.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'pgresults.history'::regclass AND attnum > 0"
    ).fetchall()
    assert {name for (name,) in names} == CHANGES.keys() | {"xid"}


@pytest.mark.parametrize(("column", "value"), CHANGES.items(), ids=CHANGES)
def test_a_changed_column_is_noticed(store: ResultStore, connection: Any, column: str, value: str) -> None:
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    store.write(1, key="k", tags=["a", "b"], provenance={"n": 1}, expiration=tomorrow, holder="me")
    assert is_intact(entries(connection, store))
    with connection.transaction(force_rollback=True):
        connection.execute("ALTER TABLE pgresults.history DISABLE TRIGGER append_only")
        changed = connection.execute(
            f"UPDATE pgresults.history SET {column} = {value} WHERE storage_id = %s RETURNING *",
            [store.result_storage.id],
        )
        changed.row_factory = dict_row
        (entry,) = changed.fetchall()
    assert not is_intact([entry])


def test_a_removed_or_swapped_entry_is_noticed(store: ResultStore, connection: Any) -> None:
    for n in range(4):
        store.write(n, key="k")
    first, second, third, fourth = entries(connection, store)
    assert is_intact([first, second, third, fourth])
    assert not is_intact([second, third, fourth])
    assert not is_intact([first, third, fourth])
    assert not is_intact([first, third, second, fourth])
    forged = second | {"actor": "nobody"}
    assert not is_intact([first, forged | {"digest": recomputed(forged)}, third, fourth])


def test_the_payload_is_bound_to_its_entry(store: ResultStore, connection: Any) -> None:
    store.write(bytes(3_000_000), key="k")
    (entry,) = entries(connection, store)
    salt, sha256 = connection.execute(
        "SELECT salt, sha256 FROM pgresults.payload WHERE storage_id = %s AND chunk = 0", [store.result_storage.id]
    ).fetchone()
    assert payload_digest(salt, sha256) == entry["payload_digest"]
    assert sha256.hex() == store.read("k").metadata.sha256


@given(JSON)
def test_canonical_json_is_the_same_after_json(value: Any) -> None:
    assert canonical_json(json.loads(json.dumps(value))) == canonical_json(value)


@given(JSON, JSON)
@example(1, {"number": "1"})
@example(1, {"\\u0000": "1"})
@example("1", 1)
@example(True, 1)
@example(10**2500, 10**2500 + 1)
@example([1], {"0": 1})
def test_canonical_json_tells_values_apart(one: Any, other: Any) -> None:
    assert (canonical_json(one) == canonical_json(other)) == (_typed(one) == _typed(other))


def _typed(value: Any) -> Any:
    """The value in a form whose equality is that of ``jsonb``: numbers by size, True no number."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return (type(value), value)
    if isinstance(value, dict):
        return {name: _typed(item) for name, item in value.items()}
    return [_typed(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "\0", {"\0": 1}, {1: 2}, {1}, b"", object(), 1j])
def test_canonical_json_refuses_what_jsonb_cannot_keep(value: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        canonical_json([value])


@pytest.mark.parametrize("name", ["serializer", "tags", "provenance"])
def test_a_text_of_json_does_not_pass_for_what_it_spells(name: str) -> None:
    value = ["a"] if name == "tags" else {"a": "b"}
    assert content_digest({name: canonical_json(value)}) == content_digest({name: value})
    assert content_digest({name: canonical_json(value).decode()}) != content_digest({name: value})


def test_the_order_of_names_does_not_matter() -> None:
    assert canonical_json({"b": 1, "a": 2}) == canonical_json({"a": 2, "b": 1})
    assert canonical_json([1, 2]) != canonical_json([2, 1])
