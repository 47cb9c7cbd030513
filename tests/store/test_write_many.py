"""Any number of items are written in bounded memory: together or not at all, or batch by batch."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import psycopg
import pytest

from pgresults import PostgresStorage, ResultStore
from pgresults.errors import InvalidKey, LockedError, LockLostError, PayloadTooLarge, SerializationError
from pgresults.operations import bulk as operations
from pgresults.settings import Settings
from pgresults.store import bulk_writing, spool
from tests.support.calls import Call
from tests.support.listing import page


@pytest.fixture
def small_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten items fill a run, and two runs what is kept in memory."""
    monkeypatch.setattr(bulk_writing, "_MOST_ITEMS", 10)
    monkeypatch.setattr(spool, "_IN_MEMORY", 2_000)


def numbered(count: int) -> Iterator[tuple[str, Any]]:
    return ((f"k{number:03}", {"n": number, "bytes": bytes(64)}) for number in range(count))


@pytest.mark.parametrize("metadata", ["beside", "apart"])
@pytest.mark.parametrize("atomic", [True, False])
async def test_an_iterable_is_written(
    store: ResultStore, apart: ResultStore, call: Call, metadata: str, atomic: bool, small_runs: None
) -> None:
    used = store if metadata == "beside" else apart
    for version in (1, 2):
        assert await call(used, "write_many", numbered(57), tags=["t"], atomic=atomic) == 57
        found = await call(used, "read_many", [f"k{number:03}" for number in range(57)])
        assert {key: record.result for key, record in found.items()} == dict(numbered(57))
        assert {record.metadata.version for record in found.values()} == {version if metadata == "beside" else 1}
        assert len(await call(used, "find", tags=["t"])) == 57
    assert (await call(used, "verify")).intact


async def test_a_written_item_is_as_one_written_alone(store: ResultStore, call: Call) -> None:
    later = datetime.now(UTC) + timedelta(hours=3)
    options: dict[str, Any] = {"tags": ['a "b"', "c\\\\d", "{}, e"], "provenance": {"run": 1.5}, "expiration": later}
    alone = await call(store, "write", {"a": 1}, "alone", **options)
    many = (await call(store, "write_many", {"many": {"a": 1}}, **options))["many"]
    left_out = {"storage_key", "created_at"}
    assert many.model_dump(exclude=left_out) == alone.model_dump(exclude=left_out)
    found = {one.key: one for one in await call(store, "find", tags=options["tags"])}
    assert found.keys() == {"alone", "many"}
    first, second = [await call(store, "history", key) for key in ("alone", "many")]
    assert first[0].tags == second[0].tags == tuple(options["tags"])
    assert first[0].provenance == second[0].provenance
    assert (await call(store, "verify")).intact


async def test_items_have_options_of_their_own(store: ResultStore, call: Call) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    items = [
        ("plain", 1),
        ("tagged", 2, {"tags": ["own"], "provenance": {"row": 2}}),
        ("lasting", 3, {"expires_in": timedelta(days=2)}),
        ("dated", 4, {"expiration": soon}),
    ]
    assert await call(store, "write_many", items, tags=["all"], expires_in=timedelta(days=1)) == 4
    found = await call(store, "read_many", [key for key, *_ in items])
    lasts = {key: one.expiration - one.metadata.created_at for key, one in found.items()}
    assert (lasts["plain"], lasts["lasting"]) == (timedelta(days=1), timedelta(days=2))
    assert found["dated"].expiration == soon
    assert {one.key for one in await call(store, "find", tags=["all"])} == {"plain", "lasting", "dated"}
    assert [one.key for one in await call(store, "find", tags=["own"])] == ["tagged"]
    assert found["tagged"].metadata.provenance["row"] == 2
    assert "row" not in found["plain"].metadata.provenance


async def test_tags_that_can_be_gone_through_once_are_those_of_all(store: ResultStore, call: Call) -> None:
    items = [("usual", 1), ("lasting", 2, {"expires_in": timedelta(days=2)}), ("told", 3, {"provenance": {"row": 3}})]
    assert await call(store, "write_many", items, tags=(tag for tag in ["a", "b"])) == 3
    assert {one.key for one in await call(store, "find", tags=["a", "b"])} == {key for key, *_ in items}


async def test_a_key_that_comes_again_is_a_further_version(store: ResultStore, call: Call) -> None:
    items = [("a", 1), ("b", 2), ("a", 3), ("a", 4)]
    assert await call(store, "write_many", items) == 4
    assert [entry.result for entry in await call(store, "history", "a", with_results=True)] == [1, 3, 4]
    assert (await call(store, "verify")).intact


@pytest.mark.parametrize("bad", [("bad", (_ for _ in ())), ("", 1), ("bad\0", 1)])
async def test_of_a_failure_nothing_is_stored_and_the_item_is_named(
    store: ResultStore, call: Call, bad: tuple[str, Any], small_runs: None
) -> None:
    items = [*numbered(25), bad]
    with pytest.raises((SerializationError, InvalidKey)) as failure:
        await call(store, "write_many", iter(items))
    assert f"item 25, {bad[0]!r}" in "".join(failure.value.__notes__)
    assert failure.value.key == bad[0]  # type: ignore[union-attr]
    assert page(store.result_storage) == []  # type: ignore[arg-type]


async def test_a_failure_of_the_iterable_itself_comes_through(store: ResultStore, call: Call, small_runs: None) -> None:
    def items() -> Iterator[tuple[str, Any]]:
        yield from numbered(25)
        raise ZeroDivisionError("the source ended")

    with pytest.raises(ZeroDivisionError):
        await call(store, "write_many", items())
    assert page(store.result_storage) == []  # type: ignore[arg-type]
    with pytest.raises(ZeroDivisionError) as failure:
        await call(store, "write_many", items(), atomic=False)
    assert failure.value.__notes__ == ["The first 20 items are stored."]


async def test_batches_go_on_where_they_ended(store: ResultStore, call: Call, small_runs: None) -> None:
    told: list[Any] = []
    broken = [*numbered(34), ("k034", (_ for _ in ()))]
    with pytest.raises(SerializationError):
        await call(store, "write_many", iter(broken), atomic=False, progress=told.append)
    assert [one.stored for one in told] == [10, 20, 30]
    assert len(page(store.result_storage)) == 30  # type: ignore[arg-type]
    rest = islice(numbered(50), told[-1].stored, None)
    assert await call(store, "write_many", rest, atomic=False, progress=told.append) == 20
    found = await call(store, "read_many", dict(numbered(50)))
    assert {record.metadata.version for record in found.values()} == {1}
    assert len(found) == 50


async def test_the_source_may_use_the_keys_it_gives(store: ResultStore, call: Call, small_runs: None) -> None:
    def items() -> Iterator[tuple[str, Any]]:
        for key, value in numbered(25):
            yield key, value
            store.write("meanwhile", key)  # would wait for ever if the transaction was open

    assert await call(store, "write_many", items()) == 25
    assert {entry.version for entry in await call(store, "history", "k003")} == {1, 2}


async def test_locks_hold_as_for_single_writes(guarded: ResultStore, call: Call, small_runs: None) -> None:
    await call(guarded, "acquire_lock", "k003", holder="me")
    assert await call(guarded, "write_many", numbered(25), holder="me") == 25
    assert (await call(guarded, "history", "k003"))[0].fence is not None
    assert (await call(guarded, "history", "k004"))[0].fence is None
    with pytest.raises(LockedError) as refusal:
        await call(guarded, "write_many", numbered(25), holder="you")
    assert (refusal.value.key, refusal.value.holder) == ("k003", "me")
    assert len(await call(guarded, "history", "k002")) == 1
    await call(guarded, "release_lock", "k003", holder="me")
    assert await call(guarded, "write_many", numbered(25), holder="you") == 25


async def test_a_lost_lock_is_noticed(guarded: ResultStore, call: Call, connection: psycopg.Connection[Any]) -> None:
    await call(guarded, "acquire_lock", "k003", holder="me")
    connection.execute("UPDATE pgresults.lock SET fence = fence + 1 WHERE key = 'k003'")
    with pytest.raises(LockLostError):
        await call(guarded, "write_many", numbered(5), holder="me")
    assert page(guarded.result_storage) == []  # type: ignore[arg-type]


async def test_what_came_in_between_is_written_after_it(
    store: ResultStore, call: Call, connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that another transaction inserts while the statement runs is no row of its snapshot."""
    together, others = operations._write_together, ResultStore(result_storage=store.result_storage)

    def overtaken(numbers: Any, run: Any) -> Any:
        del numbers["k001"]
        others.write("first", "k001")
        return together(numbers, run)

    monkeypatch.setattr(operations, "_write_together", overtaken)
    assert await call(store, "write_many", numbered(3)) == 3
    assert [entry.version for entry in await call(store, "history", "k001")] == [1, 2]


async def test_after_a_lost_answer_nothing_is_stored_twice(
    store: ResultStore, call: Call, monkeypatch: pytest.MonkeyPatch, small_runs: None
) -> None:
    operation, tries = operations.write_runs, []

    def answer_lost(runs: Any, take: Any, *, repeated: bool) -> Any:
        tries.append(repeated)
        if len(tries) == 1:  # carried out by a connection of its own, as if only its answer was lost
            database = store.result_storage.database  # type: ignore[union-attr]
            database.run(lambda _: operation(runs, take, repeated=False), atomic=True)
            raise psycopg.OperationalError("server closed the connection unexpectedly")
        return (yield from operation(runs, take, repeated=repeated))

    monkeypatch.setattr(bulk_writing, "write_runs", answer_lost)
    stored = await call(store, "write_many", dict(numbered(25)))
    assert tries == [False, True]
    assert {metadata.version for metadata in stored.values()} == {1}
    assert len(stored) == 25
    assert [entry.version for entry in await call(store, "history", "k020")] == [1]


async def test_signed_and_bounded_as_single_writes(storage: PostgresStorage, call: Call) -> None:
    settings = Settings(signing_key="a" * 32, max_payload_bytes=5_000)
    signed = PostgresStorage(storage.database.url(), storage.name, settings=settings)
    store = ResultStore(result_storage=signed, cache_result_in_memory=False)
    assert await call(store, "write_many", numbered(12), tags=["t"]) == 12
    assert (await call(store, "read", "k007")).result["n"] == 7
    with pytest.raises(PayloadTooLarge) as refusal:
        await call(store, "write_many", [("small", 1), ("large", bytes(6_000))])
    assert refusal.value.key == "large"
    assert not await call(store, "exists", "small")
    await call(signed, "close")
