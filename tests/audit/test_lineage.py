"""What a version was computed from: said by writers, kept and found both ways, and what goes with it."""

import contextlib
import pickle
import random
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import URL

from pgresults.audit.lineage import Lineage
from pgresults.database.programs import call as call_program
from pgresults.database.programs import perform
from pgresults.errors import InvalidArgument, LockedError, MissingResult, OnHold
from pgresults.operations import distributed_lineage
from pgresults.operations.requests import Execute, Operation
from pgresults.records.records import ResultRecordMetadata
from pgresults.sql import lineage as statements
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from pgresults.transactions import CommitMode, Transaction, transaction
from tests.support import apart

shared_url = apart.shared_url


def names(found: Lineage) -> list[tuple[str, int, int]]:
    return [(one.key, one.version, one.distance) for one in found.versions]


def edges(found: Lineage) -> set[tuple[str, int, str, int]]:
    pairs = ((edge.version, edge.parent) for edge in found.edges)
    return {(one.key, one.version, parent.key, parent.version) for one, parent in pairs}


async def test_a_version_says_what_it_was_computed_from(call: Any, store: ResultStore) -> None:
    a = await call(store, "write", 1, key="a")
    await call(store, "write", 2, key="a")
    b = await call(store, "write", 3, key="b", derived_from=[a])
    record = await call(store, "read", "a")
    await call(store, "write", 4, key="c", derived_from=[record, ("b", 1), b, ("b", 1)])
    up = await call(store, "lineage", "c")
    assert names(up) == [("c", 1, 0), ("a", 2, 1), ("b", 1, 1), ("a", 1, 2)]
    assert edges(up) == {("c", 1, "a", 2), ("c", 1, "b", 1), ("b", 1, "a", 1)}
    assert up.complete
    assert [one.live for one in up.versions] == [True, True, True, False]
    down = await call(store, "lineage", "a", version=1, direction="down")
    assert names(down) == [("a", 1, 0), ("b", 1, 1), ("c", 1, 2)]
    assert names(await call(store, "lineage", "a", direction="down")) == [("a", 2, 0), ("c", 1, 1)]
    assert (await call(store, "verify")).intact


@pytest.mark.parametrize("depth", [0, 1, 2])
async def test_a_walk_ends_where_it_is_told_to(call: Any, store: ResultStore, depth: int) -> None:
    made = [await call(store, "write", 0, key="0")]
    for n in range(1, 5):
        made.append(await call(store, "write", n, key=str(n), derived_from=made))
    assert names(await call(store, "lineage", "4", depth=1)) == [("4", 1, 0), *((str(n), 1, 1) for n in range(4))]
    assert len((await call(store, "lineage", "4", depth=depth)).versions) == (1 if depth == 0 else 5)
    near = await call(store, "lineage", "0", direction="down", limit=3)
    assert (len(near.versions), near.complete) == (3, False)
    assert (await call(store, "lineage", "0", direction="down", limit=5)).complete


async def test_every_way_of_writing_takes_it(call: Any, store: ResultStore) -> None:
    a = store.write(1, key="a")
    many = [("m", 1), ("n", 2, {"derived_from": [("m", 1)]}), ("m", 3, {"derived_from": [("n", 1)]})]
    await call(store, "write_many", many, derived_from=[a])
    mapped = await call(store, "write_many", {"x": 1}, derived_from=[("m", 2)])
    writer = await call(store, "open_write", "file", derived_from=[mapped["x"]])
    done = writer.write(b"bytes")
    if done is not None and not isinstance(done, int):
        await done
    closed = writer.close()
    if closed is not None:
        await closed
    assert edges(store.lineage("file")) == {
        ("file", 1, "x", 1), ("x", 1, "m", 2), ("m", 2, "n", 1), ("n", 1, "m", 1), ("m", 1, "a", 1),
    }  # fmt: skip
    store.write(1, key="after", derived_from=[writer.metadata])
    assert edges(store.lineage("after", depth=1)) == {("after", 1, "file", 1)}
    assert store.verify().intact


def test_many_written_at_once_have_lineages_of_their_own(store: ResultStore) -> None:
    store.write_many({f"parent/{n}": n for n in range(50)})
    items = [(f"child/{n}", n, {"derived_from": [(f"parent/{n}", 1)]} if n % 3 else {}) for n in range(50)]
    store.write_many(items)
    for n in range(50):
        found = edges(store.lineage(f"child/{n}"))
        assert found == ({(f"child/{n}", 1, f"parent/{n}", 1)} if n % 3 else set())
    assert store.verify().intact


@pytest.mark.parametrize(
    "given_",
    ["a", ("a", 1), ["a"], [("a", 0)], [("a", True)], [("a", "1")], [("a", 1, 1)], [("", 1)], [7], 7,
     [ResultRecordMetadata()], [Transaction()], [("a", 10**18)]],
)  # fmt: skip
async def test_what_names_no_version_is_refused(call: Any, store: ResultStore, given_: Any) -> None:
    store.write(1, key="a")
    with pytest.raises(InvalidArgument):
        await call(store, "write", 1, key="b", derived_from=given_)
    with pytest.raises(InvalidArgument):
        await call(store, "write_many", [("b", 1)], derived_from=given_)
    assert not store.exists("b")


@pytest.mark.parametrize("parent", [("a", 2), ("nothing", 1), ("b", 1), ("b", 2)])
async def test_what_is_no_version_yet_is_refused(call: Any, store: ResultStore, parent: Any) -> None:
    store.write(1, key="a")
    with pytest.raises(InvalidArgument) as refused:
        await call(store, "write", 1, key="b", derived_from=[("a", 1), parent])
    assert refused.value.argument == "derived_from"
    assert parent[0] in str(refused.value)
    assert not store.exists("b")
    with pytest.raises(InvalidArgument):
        await call(store, "write_many", [("b", 1), ("c", 2)], derived_from=[parent])
    assert not store.exists_many(["b", "c"])


def test_parents_may_come_one_by_one(store: ResultStore) -> None:
    a, b = store.write(1, key="a"), store.write(2, key="b")
    store.write(3, key="c", derived_from=(one for one in (a, b)))
    items = [("d", 1), ("e", 2, {"tags": ["t"]}), ("f", 3, {"derived_from": iter([a])}), ("g", 4, {"tags": []})]
    store.write_many(items, derived_from=iter([a, b]))
    found = {key: {parent for *_, parent, _ in edges(store.lineage(key))} for key in "cdefg"}
    assert found == {key: {"a", "b"} for key in "cdeg"} | {"f": {"a"}}


def test_no_two_items_are_derived_from_each_other(store: ResultStore) -> None:
    both = [("a", 1, {"derived_from": [("b", 1)]}), ("b", 1, {"derived_from": [("a", 1)]})]
    for atomic in (True, False):
        with pytest.raises(InvalidArgument):
            store.write_many(both, atomic=atomic)
    assert not store.exists("a")


def test_a_key_may_be_derived_from_what_it_had_before(store: ResultStore) -> None:
    for n in range(3):
        store.write(n, key="k", derived_from=[("k", n)] if n else None)
    assert names(store.lineage("k")) == [("k", 3, 0), ("k", 2, 1), ("k", 1, 2)]
    assert names(store.lineage("k", 1, direction="down", depth=1)) == [("k", 1, 0), ("k", 2, 1)]


def test_what_is_gone_still_is_a_parent(store: ResultStore) -> None:
    a, b = store.write(1, key="a"), store.write(2, key="b", derived_from=[("a", 1)] if store.exists("a") else None)
    store.delete("a")
    store.write(3, key="c", derived_from=[a, b])
    store.redact("b", reason="law")
    store.touch("c", None)
    assert edges(store.lineage("c")) == {("c", 1, "a", 1), ("c", 1, "b", 1), ("b", 1, "a", 1)}
    assert names(store.lineage("a", direction="down")) == [("a", 1, 0), ("b", 1, 1), ("c", 1, 1)]
    assert store.verify().intact


def test_odd_keys_are_told_apart(store: ResultStore) -> None:
    odd = ["1:a", "a@b", "1@x:y", "ä\n{}", '"\\', ":", "@", f"1@{uuid4()}:a", "k" * 2048]
    for key in odd:
        store.write(1, key=key)
    store.write(2, key="all", derived_from=[(key, 1) for key in odd])
    assert {parent for *_, parent, _ in edges(store.lineage("all"))} == set(odd)
    for key in odd:
        assert names(store.lineage(key, direction="down")) == [(key, 1, 0), ("all", 1, 1)]


def test_lineages_lead_from_one_storage_to_another(shared_url: URL) -> None:
    here, there = (
        ResultStore(result_storage=PostgresStorage(shared_url, name=f"test-{uuid4().hex}")) for _ in range(2)
    )
    here.write(0, key="k")
    a = there.write(1, key="k")
    here.write(2, key="k", derived_from=[a])
    there.write(3, key="last", derived_from=[here.read("k")])
    up = there.lineage("last")
    storages = [here.result_storage.name, there.result_storage.name]  # type: ignore[union-attr]
    assert [(one.storage, one.key, one.version) for one in up.versions] == [
        (storages[1], "last", 1), (storages[0], "k", 2), (storages[1], "k", 1),
    ]  # fmt: skip
    assert [one.storage for one in there.lineage("k", direction="down").versions] == [storages[1], *storages]
    assert len(here.lineage("k", 1, direction="down").versions) == 1
    assert there.invalidate(prefix="k", downstream=True) == 3
    assert not here.exists("k")
    assert not there.exists("last")
    assert here.verify().intact
    assert there.verify().intact


def test_what_is_in_another_database_is_refused(store: ResultStore, fresh_url: URL) -> None:
    with contextlib.closing(PostgresStorage(fresh_url, name=store.result_storage.name)) as storage:  # type: ignore[union-attr]
        other = ResultStore(result_storage=storage)
        a = other.write(1, key="a")
        store.write(1, key="a")
        with pytest.raises(InvalidArgument, match="another database"):
            store.write(2, key="b", derived_from=[a])


async def test_metadata_that_is_kept_apart_has_the_lineage(call: Any, shared_url: URL) -> None:
    payloads, keys = (PostgresStorage(shared_url, name=f"test-{uuid4().hex}") for _ in range(2))
    store = ResultStore(result_storage=payloads, metadata_storage=keys)
    a = await call(store, "write", 1, key="a")
    await call(store, "write", 2, key="b", derived_from=[a, await call(store, "read", "a")])
    await call(store, "write", 3, key="c", derived_from=list((await call(store, "read_many", ["b"])).values()))
    await call(store, "write", 4, key="d", derived_from=[await call(store, "read", "c", version=1)])
    assert names(await call(store, "lineage", "d")) == [("d", 1, 0), ("c", 1, 1), ("b", 1, 2), ("a", 1, 3)]


def test_a_record_that_was_sent_elsewhere_still_knows_its_version(store: ResultStore) -> None:
    record = pickle.loads(pickle.dumps(store.write(1, key="a")))
    store.write(2, key="b", derived_from=[record, record.model_copy()])
    assert edges(store.lineage("b")) == {("b", 1, "a", 1)}
    assert b"secret" not in pickle.dumps(PostgresStorage("postgresql://u:secret@h/d").database.place)
    with pytest.raises(InvalidArgument):
        store.write(3, key="c", derived_from=[ResultRecordMetadata.load_bytes(record.dump_bytes())])


# What is stored together


async def test_a_tree_names_what_it_stores_itself(call: Any, store: ResultStore) -> None:
    a = store.write(1, key="a")
    store.write(1, key="z")
    with transaction("z", store=store, overwrite=True) as root:
        with transaction("y", store=store) as first:
            first.stage(1, derived_from=[a])
        with transaction("b", store=store) as second:
            second.stage(2, derived_from=[first, ("z", 1)])
        root.stage(3, derived_from=[second, first])
    found = {("z", 2, "b", 1), ("z", 2, "y", 1), ("b", 1, "y", 1), ("b", 1, "z", 1), ("y", 1, "a", 1)}
    assert edges(await call(store, "lineage", "z")) == found
    assert store.verify().intact


async def test_what_is_computed_from_a_stored_transaction_names_its_version(store: ResultStore) -> None:
    async with transaction("t", store=store, commit_mode=CommitMode.EAGER) as txn:
        txn.stage(1)
    async with transaction("u", store=store) as other:
        other.stage(2, derived_from=[txn])
    assert edges(store.lineage("u")) == {("u", 1, "t", 1)}


def test_what_was_taken_back_is_no_parent(store: ResultStore) -> None:
    with transaction("a", store=store, commit_mode=CommitMode.OFF) as given_up:
        given_up.stage(1)
    with pytest.raises(InvalidArgument), transaction("b", store=store) as txn:
        txn.stage(2, derived_from=[given_up])
    with pytest.raises(InvalidArgument):
        store.write(3, key="c", derived_from=[given_up])
    assert not store.exists_many(["a", "b", "c"])


def test_what_a_callers_transaction_may_yet_undo_is_no_parent(
    store: ResultStore, connection: psycopg.Connection[Any]
) -> None:
    with connection.transaction(force_rollback=True):
        with transaction("a", store=store, connection=connection) as root:
            with transaction("b", store=store) as inner:
                inner.stage(1)
            root.stage(2, derived_from=[inner])
        (parents,) = connection.execute(
            "SELECT derived_from FROM pgresults.history WHERE key = 'a' AND storage_id = %s",
            [store.result_storage.id],  # type: ignore[union-attr]
        ).fetchone() or [None]
        assert parents == ["1:b"]
    with pytest.raises(InvalidArgument):
        store.write(3, key="c", derived_from=[root])
    assert not store.exists_many(["a", "b", "c"])


# Going along it


async def test_what_never_was_has_no_lineage(call: Any, store: ResultStore) -> None:
    store.write(1, key="a")
    for key, version, reason in (("b", None, "never written"), ("b", 1, "never written"), ("a", 2, "no such version")):
        with pytest.raises(MissingResult) as missing:
            await call(store, "lineage", key, version=version)
        assert missing.value.reason == reason
    for options in (
        {"direction": "left"},
        {"depth": -1},
        {"depth": True},
        {"version": 0},
        {"limit": 0},
        {"limit": None},
    ):
        with pytest.raises(InvalidArgument):
            await call(store, "lineage", "a", **options)


# Models


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_random_lineages_are_found_as_a_model_says(storage: PostgresStorage, data: st.DataObject) -> None:
    store, run = ResultStore(result_storage=storage), uuid4().hex
    keys = [f"{run}/{name}" for name in "abcde"]
    versions: list[tuple[str, int]] = []
    parents: dict[tuple[str, int], set[tuple[str, int]]] = {}
    for _ in range(data.draw(st.integers(1, 12))):
        key = data.draw(st.sampled_from(keys))
        chosen = data.draw(st.sets(st.sampled_from(versions), max_size=4)) if versions else set()
        made = store.write(0, key=key, derived_from=chosen or None)
        versions.append((key, made.version or 0))
        parents[versions[-1]] = chosen
    children = {one: {child for child, of in parents.items() if one in of} for one in versions}
    start = data.draw(st.sampled_from(versions))
    depth = data.draw(st.none() | st.integers(0, 3))
    for direction, ways in (("up", parents), ("down", children)):
        found = store.lineage(*start, direction=direction, depth=depth)  # type: ignore[arg-type]
        expected = modelled(start, ways, depth)
        assert {(one.key, one.version): one.distance for one in found.versions} == expected
        within = {(*one, *parent) for one in expected for parent in parents[one] if parent in expected}
        assert edges(found) == within
    current = dict(versions)
    gone = modelled((start[0], current[start[0]]), children, None, set(current.items()))
    assert store.invalidate(prefix=start[0], downstream=True) == len(gone)
    assert store.exists_many(keys) == {key for key in current if (key, current[key]) not in gone}


def modelled(start: Any, ways: Any, depth: int | None, among: set[Any] | None = None) -> dict[Any, int]:
    distances, frontier = {start: 0}, [start]
    for distance in range(1, 100 if depth is None else depth + 1):
        reached = {there for here in frontier for there in ways[here] if among is None or there in among}
        frontier = [there for there in reached if there not in distances]
        distances.update(dict.fromkeys(frontier, distance))
    return distances


def test_asked_step_by_step_it_is_the_same(storage: PostgresStorage) -> None:
    """As where a schema is spread over several servers."""
    store, rng = ResultStore(result_storage=storage), random.Random(7)
    versions: list[tuple[str, int]] = []
    for n in range(25):
        made = store.write(n, key=f"k{rng.randrange(6)}", derived_from=rng.sample(versions, min(n, rng.randrange(4))))
        versions.append((made.storage_key or "", made.version or 0))

    def rows(operation: Operation[Any]) -> list[str]:
        return sorted(map(str, perform(call_program(storage.database, lambda _: operation))))

    for key, version in versions:
        for depth in (None, 0, 1, 2):
            for direction, walk in statements.WALKS.items():
                place = {"storage_id": storage.id, "key": key, "version": version, "depth": depth, "limit": 1000}
                asked = Execute(walk, place)
                assert rows(carried_out(asked)) == rows(distributed_lineage.walked(asked, direction))
        asked = Execute(statements.DOWNSTREAM, {"storage_id": storage.id, "keys": [key], "versions": [version]})
        assert rows(carried_out(asked)) == rows(distributed_lineage.downstream(asked))


def carried_out(request: Execute) -> Operation[Any]:
    return (yield request)


# Invalidation


async def test_what_was_computed_from_it_goes_as_well(call: Any, store: ResultStore) -> None:
    for key, parents in (("a", []), ("b", ["a"]), ("c", ["b"]), ("d", ["c"]), ("old", ["a"]), ("other", [])):
        store.write(1, key=key, tags=["t"] if key == "a" else None, derived_from=[(parent, 1) for parent in parents])
    store.write(2, key="old")
    assert await call(store, "invalidate", tags=["t"], reason="it was wrong", downstream=True) == 4
    assert store.exists_many(["a", "b", "c", "d", "old", "other"]) == {"old", "other"}
    reasons = {key: store.history(key)[-1].reason for key in "abcd"}
    assert reasons["a"] == "it was wrong"
    assert reasons["d"] == "computed from 'c' version 1, from 'b' version 1, from 'a' version 1: it was wrong"
    assert store.verify().intact
    assert await call(store, "invalidate", tags=["t"], downstream=True) == 0


def test_a_long_chain_is_named_in_short(store: ResultStore) -> None:
    for n in range(40):
        store.write(n, key=f"k/{n:02}", derived_from=[(f"k/{n - 1:02}", 1)] if n else None)
    assert store.invalidate(prefix="k/00", downstream=True, reason="why") == 40
    reason = store.history("k/39")[-1].reason or ""
    assert reason.startswith("computed from 'k/38' version 1, from 'k/37'")
    assert "from … 29 more …" in reason
    assert reason.endswith(", from 'k/00' version 1: why")


def test_a_lock_or_a_hold_of_one_keeps_all(guarded: ResultStore) -> None:
    for key, parents in (("a", []), ("b", [("a", 1)]), ("c", [("b", 1)])):
        guarded.write(1, key=key, derived_from=parents)
    guarded.acquire_lock("c", holder="somebody")
    with pytest.raises(LockedError):
        guarded.invalidate(prefix="a", downstream=True)
    guarded.release_lock("c", holder="somebody")
    guarded.hold(key="b", reason="court")
    with pytest.raises(OnHold):
        guarded.invalidate(prefix="a", downstream=True)
    assert guarded.exists_many(["a", "b", "c"]) == {"a", "b", "c"}
    guarded.release_hold(key="b", reason="over")
    assert guarded.invalidate(prefix="a", downstream=True) == 3
