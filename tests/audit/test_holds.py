"""What is on hold is not taken away, whoever asks and however, and who held it is history."""

import copy
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import URL

from pgresults.audit.sweeping import Taken
from pgresults.errors import ConfigurationError, InvalidArgument, OnHold, StorageUnavailable
from pgresults.sql.grants import Kind
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support import apart
from tests.support.database import psycopg_url
from tests.support.roles import logged_in

HOUR = timedelta(hours=1)
COVERS: list[dict[str, Any]] = [{"key": "a/1"}, {"prefix": "a/"}, {"tags": ["legal"]}, {"prefix": ""}]
REMOVALS: dict[str, Callable[[ResultStore], Any]] = {
    "delete": lambda store: store.delete("a/1"),
    "delete_many": lambda store: store.delete_many(["b/1", "a/1"]),
    "invalidate": lambda store: store.invalidate(prefix="a"),
    "redact": lambda store: store.redact("a/1", "asked to"),
}
HELD = "storage_id = %(id)s AND key = 'a/1'"


shared_url = apart.shared_url


def fill(store: ResultStore) -> None:
    for number in range(3):
        store.write(number, key="a/1", tags=["legal", "monthly"])
    store.write("other", key="b/1")


def waits_for_gate(connection: Any) -> bool:
    query = "SELECT count(*) FROM pg_locks WHERE relation = 'pgresults.hold_gate'::regclass AND NOT granted"
    return bool(connection.execute(query).fetchone()[0])


def await_gate(connection: Any) -> None:
    for _ in range(10_000):
        if waits_for_gate(connection):
            return
    raise AssertionError("nobody waits")


@pytest.mark.parametrize("removal", REMOVALS)
@pytest.mark.parametrize("covers", COVERS, ids=str)
def test_what_is_on_hold_is_not_taken_away(store: ResultStore, covers: dict[str, Any], removal: str) -> None:
    fill(store)
    until = datetime.now(UTC) + HOUR
    store.hold(**covers, reason="case 7", until=until)
    with pytest.raises(OnHold, match=r"'[ab]/1' is on hold: case 7") as refused:
        REMOVALS[removal](store)
    assert refused.value.key in ("a/1", "b/1")
    assert (refused.value.reason, refused.value.until) == ("case 7", until)
    assert refused.value.by
    assert store.read("a/1").result == 2
    assert store.exists("b/1")  # all or nothing
    assert [store.read("a/1", version=n).result for n in (1, 2, 3)] == [0, 1, 2]
    assert store.release_hold(**covers, reason="closed") == 1
    assert REMOVALS[removal](store)
    assert not store.exists("a/1")
    assert store.verify().findings == ()


async def test_the_twins_do_the_same(call: Any, store: ResultStore) -> None:
    fill(store)
    placed = await call(store, "hold", key="a/1", reason="case 7")
    (hold,) = await call(store, "holds")
    assert (hold.id, hold.key, hold.prefix, hold.tags, hold.reason, hold.until) == (
        placed, "a/1", None, None, "case 7", None,
    )  # fmt: skip
    assert hold.since.tzinfo is UTC
    with pytest.raises(OnHold):
        await call(store, "delete", "a/1")
    assert await call(store, "release_hold", id=placed, reason="closed") == 1
    assert await call(store, "release_hold", id=placed, reason="closed") == 0
    assert await call(store, "holds") == []


def test_what_no_hold_covers_goes(store: ResultStore) -> None:
    fill(store)
    store.write(1, key="a0")
    store.hold(prefix="a/", reason="case 7")
    store.hold(tags=["legal", "yearly"], reason="case 8")
    store.hold(key="b", reason="case 9")
    assert store.delete("b/1")
    assert store.delete("a0")


def test_a_hold_keeps_to_its_storage(store: ResultStore, shared_url: URL) -> None:
    other = ResultStore(result_storage=PostgresStorage(shared_url, name=f"{store.result_storage.name} 2"))
    other.hold(prefix="", reason="all of the other")
    fill(store)
    assert store.holds() == []
    assert store.redact("a/1", "asked to") == 3
    other.result_storage.close()


def test_what_is_on_hold_may_be_written_again_and_no_version_goes(store: ResultStore) -> None:
    fill(store)
    store.hold(tags=["legal"], reason="case 7")
    store.write("untagged", key="a/1")  # the tags are those of earlier versions now
    for refused in (lambda: store.delete("a/1"), lambda: store.redact("a/1", "asked to")):
        with pytest.raises(OnHold):
            refused()
    dry, gone = store.retain(versions=1, dry_run=True), store.retain(versions=1)
    assert (dry, dry.held, gone, gone.held) == (0, 3, 0, 3)
    assert [store.read("a/1", version=n).result for n in (1, 2, 3, 4)] == [0, 1, 2, "untagged"]
    store.release_hold(tags=["legal"], reason="closed")
    assert store.retain(versions=1) == 3


def test_sweeps_pass_over_and_count_it(store: ResultStore) -> None:
    past = datetime.now(UTC) - HOUR
    for number in range(7):
        store.write(number, key=f"{'a' if number < 5 else 'b'}/{number}", expiration=past)
    store.hold(prefix="a/", reason="case 7")
    dry, swept = store.sweep(dry_run=True), store.sweep(batch_size=1)
    assert (dry, dry.held, swept, swept.held) == (2, 5, 2, 5)
    assert store.read("a/1", version=1).result == 1
    store.release_hold(prefix="a/", reason="closed")
    assert (store.sweep(), store.sweep().held) == (5, 0)


def test_a_hold_ends_by_its_time(store: ResultStore, connection: Any) -> None:
    fill(store)
    store.hold(key="a/1", reason="case 7", until=datetime.now(UTC) + timedelta(milliseconds=300))
    with pytest.raises(OnHold):
        store.delete("a/1")
    connection.execute("SELECT pg_sleep(0.35)")  # by the server's clock
    assert store.holds() == []
    assert store.delete("a/1")


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"key": "k", "prefix": "k"},
        {"tags": []},
        {"tags": "word"},
        {"key": ""},
        {"key": "k", "reason": ""},
        {"key": "k", "until": datetime(2030, 1, 1)},
        {"key": "k", "until": datetime(2020, 1, 1, tzinfo=UTC)},
    ],
    ids=str,
)
async def test_a_hold_that_would_hold_nothing_is_refused(call: Any, store: ResultStore, given: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        await call(store, "hold", **{"reason": "why", **given})
    assert store.holds() == []


def test_holds_of_one_scope_are_released_together_or_by_id(store: ResultStore) -> None:
    first, second = (store.hold(tags=["b", "a"], reason=why) for why in ("case 7", "case 8"))
    wider = store.hold(tags=["a"], reason="case 9")
    assert [hold.id for hold in store.holds()] == [first, second, wider]
    assert store.release_hold(id=first, reason="closed") == 1
    assert store.release_hold(prefix="a", reason="closed") == 0
    assert store.release_hold(tags=["a", "b", "a"], reason="closed") == 1
    assert [hold.id for hold in store.holds()] == [wider]


def test_where_metadata_lies_apart_each_storage_has_its_own(shared_url: URL, store: ResultStore) -> None:
    apart = ResultStore(
        result_storage=store.result_storage,
        metadata_storage=PostgresStorage(shared_url, name=f"{store.result_storage.name} m"),
    )
    with pytest.raises(ConfigurationError, match="by a store for each"):
        apart.hold(prefix="", reason="case 7")
    apart.write(1, key="k")
    store.hold(prefix="", reason="case 7")
    with pytest.raises(OnHold):
        apart.delete("k")
    assert apart.read("k").result == 1  # neither part went
    apart.metadata_storage.close()


def test_the_number_of_what_was_taken_goes_anywhere() -> None:
    for taken in (pickle.loads(pickle.dumps(Taken(3, 4))), copy.deepcopy(Taken(3, 4))):
        assert (taken, taken.held) == (3, 4)


# What is said of it


def entries_of(connection: Any, hold: UUID) -> list[Any]:
    query = "SELECT action, reason::jsonb ->> 'released', db_user FROM pgresults.history WHERE key = %s ORDER BY seq"
    return list(connection.execute(query, [f"hold/{hold}"]))


def test_who_held_and_released_is_history_that_verifies(fresh_url: URL) -> None:
    storage = PostgresStorage(fresh_url)
    store = ResultStore(result_storage=storage)
    store.write(1, key="k")
    placed = store.hold(key="k", reason="case 7")
    store.release_hold(key="k", reason="closed")
    store.hold(prefix="k", reason="case 8")
    with psycopg.connect(psycopg_url(fresh_url), autocommit=True) as admin:
        user = admin.info.user
        assert entries_of(admin, placed) == [("hold", None, user), ("release", "closed", user)]
        assert store.verify().findings == ()
        admin.execute("DELETE FROM pgresults.result WHERE key LIKE 'hold/%' AND action = 'hold'")
        (finding,) = store.verify().findings
        assert finding.kind == "head"
        admin.execute("BEGIN; SELECT pgresults.maintenance('why')")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            admin.execute("DELETE FROM pgresults.history WHERE key LIKE 'hold/%'")
        admin.execute("ROLLBACK")
    storage.close()


# From each role


@pytest.fixture(scope="module")
def database(create_database: Callable[[], URL]) -> URL:
    return create_database()


@pytest.fixture(params=list(Kind))
def role(request: pytest.FixtureRequest, database: URL) -> Iterator[tuple[Kind, URL]]:
    with logged_in(database, request.param) as url:
        yield request.param, url


WORKAROUNDS = (
    f"DELETE FROM pgresults.payload WHERE {HELD}",
    "TRUNCATE pgresults.payload, pgresults.result",
    f"DELETE FROM pgresults.result WHERE {HELD}",
    f"UPDATE pgresults.payload SET data = '' WHERE {HELD}",
    f"UPDATE pgresults.payload SET key = 'z' WHERE {HELD}",
    f"UPDATE pgresults.payload SET salt = '' WHERE {HELD}",
    f"UPDATE pgresults.payload SET sha256 = '' WHERE {HELD}",
    f"UPDATE pgresults.payload SET xid = 0 WHERE {HELD}",
    """MERGE INTO pgresults.payload p USING pgresults.result r ON r.storage_id = p.storage_id AND r.key = p.key
        AND r.storage_id = %(id)s AND r.key = 'a/1' WHEN MATCHED THEN DELETE""",
    f"""INSERT INTO pgresults.payload SELECT * FROM pgresults.payload WHERE {HELD}
        ON CONFLICT (storage_id, key, payload_id, chunk) DO UPDATE SET data = ''""",
    "TRUNCATE pgresults.payload CASCADE",
    f"SELECT pgresults.keep_held() FROM pgresults.result WHERE {HELD}",
    f"UPDATE pgresults.result SET payload_id = NULL WHERE {HELD}",
    f"UPDATE pgresults.result SET key = 'z' WHERE {HELD}",
    f"""UPDATE pgresults.result SET action = 'delete', seq = seq + 1, previous = digest, payload_id = NULL, tags = NULL,
        expires_at = NULL, at = greatest(statement_timestamp(), at + interval '1 microsecond'), db_user = session_user,
        payload_digest = NULL, size = NULL, serializer = NULL, provenance = NULL, storage_key = NULL, sha256 = NULL,
        storage_block_id = NULL, pgresults_version = NULL, prefect_version = NULL, signature = NULL WHERE {HELD}""",
    "UPDATE pgresults.result SET action = 'release', seq = seq + 1 WHERE key LIKE 'hold/%%'",
    "UPDATE pgresults.result SET reason = '{}' WHERE key LIKE 'hold/%%'",
    "DELETE FROM pgresults.history WHERE key LIKE 'hold/%%'",
    "SELECT pgresults.note_hold('hold/x', 'hold', '{}', 'me')",
    "SELECT pgresults.sweep()",
)
OWNERS_ONLY = tuple(one for one in WORKAROUNDS if "key LIKE 'hold" in one and one.startswith("UPDATE"))
"""What an owner may do, by design, and `verify` finds."""


def test_each_role_does_what_is_its_own_and_gets_round_no_hold(role: tuple[Kind, URL], database: URL) -> None:
    kind, url = role
    owned = ResultStore(result_storage=PostgresStorage(database, name=f"of {kind}"))
    fill(owned)
    owned.write(1, key="a/old", expiration=datetime.now(UTC) - HOUR)
    owned.hold(prefix="a/", reason="case 7")
    theirs = ResultStore(result_storage=PostgresStorage(url, name=f"of {kind}"))
    for removal in ("delete", "redact"):
        with pytest.raises((OnHold, ConfigurationError)):
            REMOVALS[removal](theirs)
    for workaround in WORKAROUNDS:
        if kind is Kind.OWNER and workaround in OWNERS_ONLY:
            continue
        with psycopg.connect(psycopg_url(url)) as connection:
            try:
                connection.execute(workaround, {"id": owned.result_storage.id})
            except psycopg.Error as error:
                allowed = ("42501", "PH001", *(("0A000",) if "keep_held()" in workaround else ()))
                assert error.sqlstate in allowed, (workaround, error)
    assert [owned.read("a/1", version=n).result for n in (1, 2, 3)] == [0, 1, 2]
    assert owned.read("a/old", version=1).result == 1
    assert may(lambda: theirs.hold(key="b/1", reason="mine")) == (kind in (Kind.WRITER, Kind.AUDITOR, Kind.OWNER))
    assert may(theirs.holds) == (kind is not Kind.READER)
    assert may(lambda: theirs.release_hold(prefix="a/", reason="over")) == (kind in (Kind.AUDITOR, Kind.OWNER))
    assert owned.verify().findings == ()
    for store in (owned, theirs):
        store.result_storage.close()


def may(act: Callable[[], Any]) -> bool:
    try:
        act()
    except ConfigurationError:
        return False
    return True


def test_no_writer_makes_a_hold_of_what_it_placed_itself_anything_else(database: URL) -> None:
    with logged_in(database, Kind.WRITER) as url, psycopg.connect(psycopg_url(url)) as connection:
        storage = PostgresStorage(database, name="rewritten")
        connection.execute("SELECT pgresults.place_hold(%s, '{\"key\": \"k\"}', 'why')", [storage.id])
        rewriting = "UPDATE pgresults.result SET reason = '{}' WHERE action = 'hold' AND reason LIKE '%why%'"
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(rewriting)
        storage.close()


def test_an_expiration_and_a_sweep_take_nothing(store: ResultStore) -> None:
    fill(store)
    store.hold(prefix="a/", reason="case 7")
    store.touch("a/1", datetime.now(UTC) - HOUR)
    swept = store.sweep()
    assert (swept, swept.held) == (0, 1)
    assert [store.read("a/1", version=n).result for n in (1, 2, 3)] == [0, 1, 2]


def test_no_trigger_of_an_owners_changes_what_is_on_hold(database: URL) -> None:
    owned = ResultStore(result_storage=PostgresStorage(database, name="triggered"))
    fill(owned)
    owned.hold(prefix="a/", reason="case 7")
    with psycopg.connect(psycopg_url(database)) as connection:
        connection.execute(
            "CREATE FUNCTION public.empty() RETURNS trigger LANGUAGE plpgsql"
            " AS $$ BEGIN NEW.data := ''; RETURN NEW; END $$;"
            "CREATE TRIGGER z_empty BEFORE UPDATE ON pgresults.payload FOR EACH ROW EXECUTE FUNCTION public.empty()"
        )
        with pytest.raises(psycopg.Error) as refused:
            connection.execute(f"UPDATE pgresults.payload SET xid = xid WHERE {HELD}", {"id": owned.result_storage.id})
        assert refused.value.sqlstate == "PH001"
    owned.result_storage.close()


def test_where_the_gate_is_gone_an_older_snapshot_takes_nothing(fresh_url: URL) -> None:
    store = ResultStore(result_storage=PostgresStorage(fresh_url))
    fill(store)
    with psycopg.connect(psycopg_url(fresh_url)) as deleting:
        with psycopg.connect(psycopg_url(fresh_url), autocommit=True) as admin:
            admin.execute("DELETE FROM pgresults.hold_gate")
        deleting.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pgresults.result")
        store.hold(key="a/1", reason="case 7")
        with pytest.raises(psycopg.errors.SerializationFailure):
            deleting.execute(f"DELETE FROM pgresults.payload WHERE {HELD}", {"id": store.result_storage.id})
    store.result_storage.close()


# At once


@pytest.mark.parametrize("isolation", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
def test_a_hold_waits_for_a_delete_under_way(store: ResultStore, connection: Any, isolation: str) -> None:
    fill(store)
    gone = f"SELECT pgresults.refuse_held(storage_id, key) FROM pgresults.result WHERE {HELD}"
    with ThreadPoolExecutor(1) as pool, psycopg.connect(psycopg_url(store.result_storage.database.url())) as deleting:
        deleting.execute(f"SET TRANSACTION ISOLATION LEVEL {isolation}")
        deleting.execute(gone, {"id": store.result_storage.id})
        placing = pool.submit(store.hold, key="a/1", reason="case 7")
        await_gate(connection)
        assert not placing.done()
        deleting.execute(f"DELETE FROM pgresults.payload WHERE {HELD}", {"id": store.result_storage.id})
        deleting.commit()
        placing.result(30)
    assert len(store.holds()) == 1


@pytest.mark.parametrize("isolation", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
def test_a_delete_that_began_before_a_hold_sees_it(store: ResultStore, isolation: str) -> None:
    fill(store)
    with psycopg.connect(psycopg_url(store.result_storage.database.url())) as deleting:
        deleting.execute(f"SET TRANSACTION ISOLATION LEVEL {isolation}")
        deleting.execute("SELECT count(*) FROM pgresults.result")  # has its snapshot now
        store.hold(key="a/1", reason="case 7")
        with pytest.raises(psycopg.Error) as refused:
            deleting.execute(f"DELETE FROM pgresults.payload WHERE {HELD}", {"id": store.result_storage.id})
        assert refused.value.sqlstate == ("PH001" if isolation == "READ COMMITTED" else "40001")


def test_of_a_hold_and_a_removal_at_once_one_comes_first(store: ResultStore) -> None:
    removals: list[Callable[[str], Any]] = [
        lambda key: store.delete(key),
        lambda key: store.redact(key, "asked to"),
        lambda key: store.invalidate(prefix=key),
    ]
    start = threading.Barrier(4)

    def remove(act: Callable[[str], Any], key: str) -> str:
        start.wait()
        try:
            act(key)
        except OnHold:
            return "held"
        except StorageUnavailable as error:
            assert error.sqlstate == "40P01"
            return "held"
        return "gone"

    def hold(key: str) -> str:
        start.wait()
        store.hold(prefix=key, reason="case 7")
        return "live" if all(store.exists(f"{key}{n}") for n in range(3)) else "not all"

    with ThreadPoolExecutor(4) as pool:
        for turn in range(8):
            key = f"t{turn}/"
            for number in range(3):
                store.write(number, key=f"{key}{number}")
            placed = pool.submit(hold, key)
            names = (f"{key}0", f"{key}1", key)
            done = [pool.submit(remove, act, name) for act, name in zip(removals, names, strict=True)]
            outcome = {future.result(30) for future in done}
            # What was live once the hold was placed stays so, and nothing that was said to be held went.
            assert (placed.result(30) == "live") == (outcome == {"held"})
            store.release_hold(prefix=key, reason="closed")
    assert store.verify().findings == ()


def test_where_nothing_would_keep_it_a_hold_is_refused(fresh_url: URL) -> None:
    storage = PostgresStorage(fresh_url)
    store = ResultStore(result_storage=storage)
    store.write(1, key="k")
    with psycopg.connect(psycopg_url(fresh_url), autocommit=True) as admin:
        admin.execute("ALTER TABLE pgresults.payload DISABLE TRIGGER keep_held")
    with pytest.raises(ConfigurationError, match="nothing keeps here"):
        store.hold(key="k", reason="case 7")
    assert store.holds() == []
    storage.close()
