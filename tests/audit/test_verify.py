"""Tampering is found and located on the spot; what nobody touched is never reported."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL

from pgresults.audit import verifying
from pgresults.audit.seals import Seal
from pgresults.errors import MissingResult
from pgresults.serializers import JSONSerializer
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.database import psycopg_url
from tests.support.sealing import HISTORY, TOMORROW, Sql


@pytest.fixture
def storage(sealing_storage: PostgresStorage) -> PostgresStorage:
    return sealing_storage


SWAP = f"""
UPDATE {HISTORY} SET seq = -2 WHERE OF_K2 AND seq = 2; UPDATE {HISTORY} SET seq = 2 WHERE OF_K2 AND seq = 3;
UPDATE {HISTORY} SET seq = 3 WHERE OF_K2 AND seq = -2
"""
REPLACED = """
UPDATE pgresults.payload SET data = 'forged', sha256 = sha256('forged') WHERE OF_K2;
UPDATE pgresults.result SET sha256 = sha256('forged') WHERE OF_K2
"""

ON_THE_SPOT = {
    "payload altered": ("UPDATE pgresults.payload SET data = set_byte(data, 0, 7) WHERE OF_K2", "payload", None),
    "payload and digest altered": (REPLACED, "payload", None),
    "payload removed": ("DELETE FROM pgresults.payload WHERE OF_K2", "payload", None),
    "payload of another key": (
        "UPDATE pgresults.payload SET payload_id = gen_random_uuid() WHERE OF_K2",
        "payload",
        None,
    ),
    "metadata altered": (f"UPDATE {HISTORY} SET actor = 'nobody' WHERE OF_K2 AND seq = 2", "entry", 2),
    "provenance altered": (f"UPDATE {HISTORY} SET provenance = '7' WHERE OF_K2 AND seq = 3", "entry", 3),
    "digest altered": (f"UPDATE {HISTORY} SET digest = sha256('x') WHERE OF_K2 AND seq = 2", "entry", 2),
    "entry removed": (f"DELETE FROM {HISTORY} WHERE OF_K2 AND seq = 2", "chain", 3),
    "first entry removed": (f"DELETE FROM {HISTORY} WHERE OF_K2 AND seq = 1", "chain", 2),
    "tail removed": (f"DELETE FROM {HISTORY} WHERE OF_K2 AND seq = 4", "chain", 3),
    "history removed": (f"DELETE FROM {HISTORY} WHERE OF_K2", "chain", None),
    "pair reordered": (SWAP, "entry", 2),
    "expiry in the row altered": ("UPDATE pgresults.result SET expires_at = NULL WHERE OF_K2", "head", 4),
    "row removed": ("DELETE FROM pgresults.result WHERE OF_K2", "head", None),
    "time in the row altered": ("UPDATE pgresults.result SET created_at = now() WHERE OF_K2", "head", 4),
    "chunks numbered otherwise": ("UPDATE pgresults.payload SET chunk = chunk + 1 WHERE OF_K2", "payload", None),
    "salt altered": ("UPDATE pgresults.payload SET salt = 'x' WHERE OF_K2", "payload", None),
    "entry before the first": (
        f"INSERT INTO {HISTORY} SELECT * FROM {HISTORY} WHERE OF_K2 AND seq = 1".replace(
            "SELECT *", "SELECT (jsonb_populate_record(h, '{\"seq\": 0}')).*"
        ).replace(f"FROM {HISTORY}", f"FROM {HISTORY} h"),
        "chain",
        0,
    ),
    "time beyond all times": (f"UPDATE {HISTORY} SET at = 'infinity' WHERE OF_K2 AND seq = 2", "entry", 2),
    "number beyond all numbers": (
        f"UPDATE {HISTORY} SET provenance = repeat('9', 5000)::jsonb WHERE OF_K2 AND seq = 2",
        "entry",
        2,
    ),
    "size beyond all sizes": (f"UPDATE {HISTORY} SET size = 1::bigint << 62 WHERE OF_K2 AND seq = 1", "payload", 1),
    "transaction to come": (f"UPDATE {HISTORY} SET xid = 1::bigint << 60 WHERE OF_K2 AND seq = 2", "entry", 2),
    "digest in the row altered": ("UPDATE pgresults.result SET sha256 = sha256('x') WHERE OF_K2", "payload", None),
}


@pytest.fixture(params=[5000, 2])
def entries_a_page(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How much is read at once: keys with more entries are checked in several steps."""
    monkeypatch.setattr(verifying, "_ENTRIES_A_PAGE", request.param)
    return int(request.param)


@pytest.mark.parametrize("name", ON_THE_SPOT)
async def test_tampering_is_found_and_located(
    call: Any, store: ResultStore, sealed: Seal, tamper: Sql, entries_a_page: int, name: str
) -> None:
    assert (await call(store, "verify", against=sealed)).intact
    statement, kind, seq = ON_THE_SPOT[name]
    tamper(statement)
    report = await call(store, "verify")
    assert not report.intact
    assert {finding.keys for finding in report.findings} == {("k2",)}
    assert kind in {finding.kind for finding in report.findings}
    assert seq is None or seq in {finding.seq for finding in report.findings}
    assert (await call(store, "verify", key="k1")).intact
    assert not (await call(store, "verify", key="k2")).intact


async def test_every_ordinary_action_leaves_what_verifies(call: Any, store: ResultStore, entries_a_page: int) -> None:
    past = datetime.now(UTC) - timedelta(days=1)
    await call(store, "write", bytes(2_500_000), key="large")
    for key in ("a", "b", "c", "d", "ä"):
        for n in range(4):
            await call(store, "write", n, key=key, tags=["t"], provenance={"x": [1e300, 0.1, None, "é"]})
    await call(store.model_copy(update={"serializer": JSONSerializer()}), "write", {"x": 1}, key="c")
    seal = await call(store, "seal")
    await call(store, "delete", "a", reason="r")
    await call(store, "touch", "b", past)
    await call(store, "sweep")
    await call(store, "redact", "c", "law")
    await call(store, "invalidate", prefix="d")
    await call(store, "retain", versions=2)
    await call(store, "write", "again", key="c")
    await call(store, "retain", age=timedelta(0))
    report = await call(store, "verify", against=seal)
    assert report.findings == ()
    assert (report.keys, report.entries) == (6, 36)
    assert (await call(store, "verify", since=seal)).findings == ()


async def test_erased_payloads_that_are_there_again_are_reported(
    call: Any, store: ResultStore, connection: Any
) -> None:
    store.write(1, key="k2")
    row = connection.execute(
        "SELECT storage_id, key, payload_id, chunk, data, salt, sha256 FROM pgresults.payload WHERE storage_id = %s",
        [store.result_storage.id],
    ).fetchone()
    store.redact("k2", "law")
    connection.execute("INSERT INTO pgresults.payload VALUES (%s, %s, %s, %s, %s, %s, %s)", row)
    (finding,) = (await call(store, "verify")).findings
    assert "erased" in finding.message


def test_nothing_is_reported_while_others_write(store: ResultStore) -> None:
    done = threading.Event()
    keys = [f"k{n}" for n in range(7)]

    def work(number: int) -> None:
        mine = store.model_copy()
        for n in range(60):
            key = keys[(n * (number + 1)) % len(keys)]
            mine.write([number, n], key=key, expiration=TOMORROW if n % 3 else TOMORROW - timedelta(days=2))
            with suppress(MissingResult):
                (mine.touch, mine.redact, lambda *_: mine.sweep(), lambda key, _: mine.delete(key))[n % 4](
                    key, TOMORROW if n % 4 == 0 else "law"
                )
            if n % 10 == 0:
                mine.retain(versions=1)

    def watch() -> int:
        seal, rounds = store.seal(), 0
        while not done.is_set() or not rounds:
            assert store.verify(against=seal).findings == ()
            assert store.verify(since=seal).findings == ()
            seal, rounds = store.seal(), rounds + 1
        return rounds

    with ThreadPoolExecutor(5) as pool:
        watcher = pool.submit(watch)
        try:
            list(pool.map(work, range(4)))
        finally:
            done.set()
        assert watcher.result() > 0
    assert store.verify().findings == ()


async def test_a_key_that_never_was_cannot_be_verified(call: Any, store: ResultStore) -> None:
    with pytest.raises(MissingResult):
        await call(store, "verify", key="nothing")


def test_what_is_erased_while_a_key_is_checked_is_not_reported(
    store: ResultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifying, "_ENTRIES_A_PAGE", 2)
    for n in range(5):
        store.write(n, key="k")
    steps = [lambda: store.retain(versions=3), lambda: store.redact("k", "law"), lambda: store.write(6, key="k")]
    seen: list[int] = []

    def disturb(keys: int) -> None:
        if len(seen) < len(steps):
            steps[len(seen)]()
        seen.append(keys)

    report = store.verify(progress=disturb)
    assert (report.findings, report.entries, sum(seen)) == ((), 8, 1)
    assert len(seen) > 3


def test_a_payload_that_belongs_to_nothing_is_reported(store: ResultStore, sealed: Seal, tamper: Sql) -> None:
    tamper(
        "INSERT INTO pgresults.payload SELECT storage_id, key, gen_random_uuid(), 0, 'x', NULL, NULL"
        " FROM pgresults.result WHERE OF_K2"
    )
    (finding,) = store.verify().findings
    assert (finding.kind, finding.keys) == ("payload", ("k2",))
    assert "belongs to no entry" in finding.message


async def test_a_storage_that_lost_its_name_is_reported(
    call: Any, store: ResultStore, sealed: Seal, connection: Any
) -> None:
    connection.execute("DELETE FROM pgresults.storage WHERE id = %s", [store.result_storage.id])
    (finding,) = (await call(store, "verify")).findings
    assert (finding.kind, store.result_storage.name in finding.message) == ("storage", True)


@pytest.mark.parametrize("how", ["DISABLE", "ENABLE", "ENABLE REPLICA"])
def test_a_history_without_its_guard_is_reported(fresh_url: URL, how: str) -> None:
    storage = PostgresStorage(fresh_url)
    store = ResultStore(result_storage=storage)
    assert store.verify().empty
    store.write(1, key="k")
    assert store.verify().intact
    with psycopg.connect(psycopg_url(fresh_url)) as connection:
        connection.execute(f"ALTER TABLE pgresults.history {how} TRIGGER append_only")
    (finding,) = store.verify().findings
    assert (finding.kind, "append_only" in finding.message) == ("storage", True)
    storage.close()
