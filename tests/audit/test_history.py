"""What a key's history says, and what was there before."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL

from pgresults.errors import IntegrityError, InvalidArgument, InvalidKey, LockedError, LockLostError, MissingResult
from pgresults.records.provenance import RUN, actor, default_holder
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.database import psycopg_url
from tests.support.listing import page

LARGE = bytes(range(256)) * 10_000


def tomorrow() -> datetime:
    return datetime.now(UTC) + timedelta(days=1)


async def test_a_history_tells_every_step(call: Any, store: ResultStore) -> None:
    expiration = tomorrow()
    first = await call(store, "write", 1, key="k", tags=["a"], provenance={"n": 1})
    await call(store, "write", LARGE, key="k", holder="somebody")
    await call(store, "touch", "k", expiration)
    await call(store, "delete", "k", reason="wrong")
    steps = await call(store, "history", "k")
    assert [(s.seq, s.version, s.action) for s in steps] == [
        (1, 1, "write"),
        (2, 2, "write"),
        (3, 2, "touch"),
        (4, 2, "delete"),
    ]
    assert (steps[0].at, steps[0].sha256, steps[0].size) == (first.created_at, first.sha256, first.size)
    assert (steps[0].tags, steps[0].provenance["n"]) == (("a",), 1)
    assert steps[1].holder == "somebody"
    assert [s.expiration for s in steps] == [None, None, expiration, None]
    assert (steps[3].reason, steps[3].actor, steps[3].holder) == ("wrong", actor(), default_holder())
    assert {s.db_user for s in steps} != {None}
    assert all(re.fullmatch("[0-9a-f]{64}", s.digest) for s in steps)
    assert not any(s.has_result for s in steps)


async def test_a_history_may_bring_its_results(call: Any, store: ResultStore) -> None:
    await call(store, "write", None, key="k")
    await call(store, "write", LARGE, key="k")
    await call(store, "touch", "k", tomorrow())
    await call(store, "delete", "k")
    steps = await call(store, "history", "k", with_results=True)
    assert [(s.has_result, s.result) for s in steps] == [(True, None), (True, LARGE), (True, LARGE), (False, None)]


async def test_a_key_that_never_was_has_no_history(call: Any, store: ResultStore) -> None:
    assert await call(store, "history", "k") == []
    with pytest.raises(InvalidKey):
        await call(store, "history", "")


async def test_earlier_versions_stay_readable(call: Any, store: ResultStore) -> None:
    written = [await call(store, "write", result, key="k") for result in ("one", LARGE, "three")]
    for version, result in enumerate(("one", LARGE, "three"), 1):
        record = await call(store, "read", "k", version=version)
        assert record.result == result
        assert record.metadata.version == version
        assert record.metadata == written[version - 1]
        assert record.metadata.created_at == written[version - 1].created_at
        assert record.metadata.sha256 == written[version - 1].sha256
    await call(store, "delete", "k")
    assert (await call(store, "read", "k", version=2)).result == LARGE


async def test_a_version_has_the_expiration_that_it_had_last(call: Any, store: ResultStore) -> None:
    await call(store, "write", 1, key="k")
    expiration = tomorrow()
    await call(store, "touch", "k", expiration)
    await call(store, "write", 2, key="k")
    assert (await call(store, "read", "k", version=1)).expiration == expiration


async def test_the_past_is_as_it_was(call: Any, store: ResultStore) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    await call(store, "write", "first", key="k")
    await call(store, "write", "second", key="k", expiration=tomorrow())
    await call(store, "delete", "k")
    first, second, gone = [step.at for step in await call(store, "history", "k")]
    tick = timedelta(microseconds=1)
    for moment, result in ((first, "first"), (second - tick, "first"), (second, "second"), (gone - tick, "second")):
        assert (await call(store, "read", "k", as_of=moment)).result == result
        assert await call(store, "exists", "k", as_of=moment)
    for moment, reason in ((before, "never written"), (gone, "deleted"), (tomorrow(), "deleted")):
        with pytest.raises(MissingResult) as miss:
            await call(store, "read", "k", as_of=moment)
        assert miss.value.reason == reason
        assert not await call(store, "exists", "k", as_of=moment)


async def test_what_had_expired_by_then_was_not_live(call: Any, store: ResultStore) -> None:
    expiration = tomorrow()
    await call(store, "write", "x", key="k", expiration=expiration)
    assert await call(store, "exists", "k", as_of=expiration - timedelta(seconds=1))
    assert not await call(store, "exists", "k", as_of=expiration)
    with pytest.raises(MissingResult) as miss:
        await call(store, "read", "k", as_of=expiration)
    assert (miss.value.reason, miss.value.at) == ("expired", expiration)


@pytest.mark.parametrize(
    "wrong",
    [
        {"version": 0},
        {"version": "1"},
        {"version": 2**63},
        {"as_of": datetime(2026, 1, 1)},
        {"as_of": 7},
        {"version": 1, "as_of": datetime(2026, 1, 1, tzinfo=UTC)},
    ],
)
async def test_a_past_that_cannot_be_is_refused(call: Any, store: ResultStore, wrong: dict[str, Any]) -> None:
    await call(store, "write", 1, key="k")
    with pytest.raises(InvalidArgument):
        await call(store, "read", "k", **wrong)


async def test_a_version_that_never_was_is_missing(call: Any, store: ResultStore) -> None:
    await call(store, "write", 1, key="k")
    with pytest.raises(MissingResult) as miss:
        await call(store, "read", "k", version=2)
    assert miss.value.reason == "no such version"


async def test_an_earlier_version_is_checked_before_it_is_read(call: Any, store: ResultStore, connection: Any) -> None:
    await call(store, "write", 1, key="k")
    await call(store, "write", 2, key="k")
    forged = "UPDATE pgresults.payload SET data = 'x', sha256 = sha256('x') WHERE storage_id = %s"
    connection.execute(forged, [store.result_storage.id])
    with pytest.raises(IntegrityError):
        await call(store, "read", "k", version=1)


@pytest.mark.parametrize("size", [2**62, -1])
async def test_a_forged_size_takes_no_memory(call: Any, store: ResultStore, fresh_url: URL, size: int) -> None:
    storage = PostgresStorage(fresh_url)
    store = ResultStore(result_storage=storage)
    await call(store, "write", LARGE, key="k")
    with psycopg.connect(psycopg_url(fresh_url)) as connection:
        connection.execute("SELECT pgresults.maintenance('forgery')")
        connection.execute("UPDATE pgresults.history SET size = %s WHERE key = 'k'", [size])
    with pytest.raises(IntegrityError):
        await call(store, "read", "k", version=1)
    assert not (await call(store, "verify")).intact
    await storage.aclose()


# Touching


async def test_touching_moves_the_expiry_and_nothing_else(call: Any, store: ResultStore, connection: Any) -> None:
    expiration = tomorrow()
    await call(store, "write", {"x": 1.5}, key="k", tags=["a"], provenance={"n": [1e300]})
    before = await call(store, "read", "k")
    await call(store, "touch", "k", expiration)
    after = await call(store, "read", "k")
    assert after.expiration == expiration
    assert after.metadata.model_copy(update={"expiration": None}) == before.metadata
    assert after.metadata.created_at == before.metadata.created_at
    await call(store, "touch", "k", None)
    assert (await call(store, "read", "k")).expiration is None
    query = "SELECT count(*) FROM pgresults.payload WHERE storage_id = %s"
    assert connection.execute(query, [store.result_storage.id]).fetchone() == (1,)
    assert (await call(store, "verify")).intact


async def test_only_what_is_live_can_be_touched(call: Any, store: ResultStore) -> None:
    await call(store, "write", 1, key="expired", expiration=tomorrow() - timedelta(days=2))
    await call(store, "write", 1, key="deleted")
    await call(store, "delete", "deleted")
    for key, reason in (("never", "never written"), ("expired", "expired"), ("deleted", "deleted")):
        with pytest.raises(MissingResult) as miss:
            await call(store, "touch", key, tomorrow())
        assert miss.value.reason == reason
    with pytest.raises(InvalidArgument):
        await call(store, "touch", "deleted", datetime(2026, 1, 1))


@pytest.fixture
def locking(storage: PostgresStorage) -> ResultStore:
    return ResultStore(result_storage=storage, lock_manager=storage.lock_manager())


@pytest.mark.parametrize(("name", "arguments"), [("touch", (None,)), ("redact", ("law",))])
async def test_a_change_respects_the_lock(call: Any, locking: ResultStore, name: str, arguments: Any) -> None:
    await call(locking, "write", 1, key="k")
    await call(locking, "acquire_lock", "k", holder="another")
    with pytest.raises(LockedError):
        await call(locking, name, "k", *arguments)
    assert [step.action for step in await call(locking, "history", "k")] == ["write"]
    await call(locking, "release_lock", "k", holder="another")
    await call(locking, "acquire_lock", "k")
    await call(locking, name, "k", *arguments)
    last = (await call(locking, "history", "k"))[-1]
    assert last.action == name
    assert last.fence is not None


@pytest.mark.parametrize(("name", "arguments"), [("touch", (None,)), ("redact", ("law",))])
async def test_a_change_under_a_lost_lock_is_refused(
    call: Any, locking: ResultStore, connection: Any, name: str, arguments: Any
) -> None:
    await call(locking, "write", 1, key="k")
    await call(locking, "acquire_lock", "k")
    connection.execute("UPDATE pgresults.lock SET released = true WHERE storage_id = %s", [locking.result_storage.id])
    with pytest.raises(LockLostError):
        await call(locking, name, "k", *arguments)
    assert (await call(locking, "read", "k", version=1)).result == 1


# Invalidating


async def test_results_are_invalidated_by_what_they_share(call: Any, store: ResultStore) -> None:
    for key, tags in (("a/1", ["x"]), ("a/2", ["x", "y"]), ("b/1", ["y"]), ("b/2", None)):
        await call(store, "write", key, key=key, tags=tags)
    assert await call(store, "invalidate", prefix="a/", tags=["y"]) == 1
    assert [row.key for row in page(store.result_storage)] == ["a/1", "b/1", "b/2"]
    assert await call(store, "invalidate", tags=["y", "x"]) == 0
    assert await call(store, "invalidate", tags=["y"]) == 1
    assert await call(store, "invalidate", prefix="b") == 1
    last = (await call(store, "history", "b/2"))[-1]
    assert (last.action, last.reason) == ("delete", "invalidated by prefix")
    assert (await call(store, "read", "b/2", version=1)).result == "b/2"
    assert (await call(store, "verify")).intact


async def test_results_are_invalidated_by_their_task_and_flow(call: Any, store: ResultStore) -> None:
    for key, (task, flow) in {"k1": ("t", "f"), "k2": ("t", "g"), "k3": ("u", "f")}.items():
        run = RUN.set({"task": {"name": task}, "flow": {"name": flow}})
        await call(store, "write", key, key=key)
        RUN.reset(run)
    assert await call(store, "invalidate", task="t", flow="f") == 1
    assert await call(store, "invalidate", flow="f") == 1
    assert await call(store, "invalidate", task="t") == 1


@pytest.mark.parametrize(
    "wrong", [{}, {"tags": "x"}, {"tags": [""]}, {"prefix": ""}, {"task": ""}, {"flow": "a\0"}, {"prefix": 7}]
)
async def test_invalidating_needs_a_condition(call: Any, store: ResultStore, wrong: dict[str, Any]) -> None:
    await call(store, "write", 1, key="k")
    with pytest.raises(InvalidArgument):
        await call(store, "invalidate", **wrong)
    assert await call(store, "exists", "k")


# The history cannot be changed


CHANGES = [
    "UPDATE pgresults.history SET actor = 'nobody'",
    "DELETE FROM pgresults.history",
    "DELETE FROM pgresults.history WHERE false",
    "TRUNCATE pgresults.history",
]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("role", ["origin", "replica"])
def test_the_owner_cannot_change_history(store: ResultStore, connection: Any, change: str, role: str) -> None:
    store.write(1, key="k")
    with connection.transaction(force_rollback=True):
        connection.execute(f"SET LOCAL session_replication_role = {role}")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only") as refusal:
            connection.execute(change)
    assert "maintenance" in refusal.value.diag.message_hint
    assert len(store.history("k")) == 1


def test_maintenance_changes_history_and_leaves_an_entry(fresh_url: URL) -> None:
    storage = PostgresStorage(fresh_url)
    store = ResultStore(result_storage=storage)
    store.write(1, key="k")
    with psycopg.connect(psycopg_url(fresh_url)) as connection:
        for reason in ("a partition moves", "it moves back"):
            connection.execute("SELECT pgresults.maintenance(%s)", [reason])
            connection.execute("UPDATE pgresults.history SET xid = 0 WHERE key = 'k'")
            connection.commit()
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("UPDATE pgresults.history SET xid = 0 WHERE key = 'k'")
            connection.rollback()
        with pytest.raises(psycopg.errors.RaiseException, match="say why"):
            connection.execute("SELECT pgresults.maintenance('')")
    with psycopg.connect(psycopg_url(fresh_url)) as connection:
        query = "SELECT reason FROM pgresults.result_history WHERE storage = 'pgresults/maintenance' ORDER BY seq"
        assert connection.execute(query).fetchall() == [("a partition moves",), ("it moves back",)]
    report = store.verify()
    assert (report.keys, report.entries, report.findings) == (2, 3, ())
    storage.close()
