"""Tampering is found and located, on the spot or by a seal; what nobody touched is never reported."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import URL

from pgresults.audit import verifying
from pgresults.audit.seals import Seal
from pgresults.errors import IntegrityError, MissingResult
from pgresults.serializers import JSONSerializer
from pgresults.settings import Settings
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.chains import entries, recomputed
from tests.support.database import psycopg_url

TOMORROW = datetime.now(UTC) + timedelta(days=1)


@pytest.fixture
def storage(shared_url: URL, tmp_path: Path) -> Any:
    settings = Settings(seal_key=tmp_path / "keys" / "seal.pem")
    storage = PostgresStorage(shared_url, name=f"test-{uuid4().hex}", settings=settings)
    yield storage
    storage.close()


def seal_over(store: ResultStore, entries: int) -> Seal:
    """A seal over so many entries: it leaves out what is younger than any transaction of the server, whosever."""
    while (seal := store.seal()).entries < entries:
        pass
    return seal


@pytest.fixture
def sealed(store: ResultStore) -> Seal:
    """A storage of three keys with four entries each, and a seal over them."""
    for key in ("k1", "k2", "k3"):
        for n in range(3):
            store.write(f"{key} {n}", key=key, tags=["a"], provenance={"n": n})
        store.touch(key, TOMORROW)
    return seal_over(store, 12)


Sql = Callable[[str], None]


@pytest.fixture
def tamper(connection: Any, store: ResultStore) -> Sql:
    """Runs a statement on the history of ``k2``, as a superuser who gets all guards out of the way."""

    def run(statement: str, **parameters: Any) -> None:
        with connection.transaction():
            connection.execute("ALTER TABLE pgresults.history DISABLE TRIGGER append_only")
            for part in statement.split(";"):
                assert connection.execute(
                    part.replace("OF_K2", "storage_id = %(id)s AND key = 'k2'"),
                    {"id": store.result_storage.id, **parameters},
                ).rowcount
            connection.execute("ALTER TABLE pgresults.history ENABLE ALWAYS TRIGGER append_only")

    return run


HISTORY = "pgresults.history"
REWIND = """
DELETE FROM pgresults.history WHERE OF_K2 AND seq = 4;
UPDATE pgresults.result r SET seq = h.seq, action = h.action, at = h.at, digest = h.digest, previous = h.previous,
    expires_at = h.expires_at, holder = h.holder
FROM pgresults.history h WHERE r.storage_id = %(id)s AND r.key = 'k2' AND h.storage_id = %(id)s AND h.key = 'k2'
    AND h.seq = 3
"""
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


async def test_a_removed_tail_whose_traces_are_gone_is_found_by_the_seal(
    call: Any, store: ResultStore, sealed: Seal, tamper: Sql
) -> None:
    tamper(REWIND)
    assert (await call(store, "verify")).intact
    (finding,) = (await call(store, "verify", against=sealed)).findings
    assert finding.kind == "seal"
    assert "k2" in finding.keys
    assert "1 entries that were sealed are gone" in finding.message


async def test_a_rewritten_chain_is_found_by_the_seal(
    call: Any, store: ResultStore, sealed: Seal, tamper: Any, connection: Any
) -> None:
    previous = b""
    for entry in entries(connection, store):
        if entry["key"] == "k2":
            forged = entry | {"actor": "nobody", "previous": previous}
            previous = recomputed(forged)
            tamper(
                "UPDATE pgresults.history SET actor = 'nobody', previous = %(previous)s, digest = %(digest)s"
                " WHERE OF_K2 AND seq = %(seq)s",
                previous=forged["previous"],
                digest=previous,
                seq=entry["seq"],
            )
    tamper(
        "UPDATE pgresults.result SET actor = 'nobody', previous = %(previous)s, digest = %(digest)s WHERE OF_K2",
        previous=forged["previous"],
        digest=previous,
    )
    assert (await call(store, "verify")).intact
    (finding,) = (await call(store, "verify", against=sealed)).findings
    assert (finding.kind, "k2" in finding.keys) == ("seal", True)
    assert "rewritten" in finding.message


async def test_a_key_that_vanished_is_found_by_the_seal(
    call: Any, store: ResultStore, sealed: Seal, tamper: Sql
) -> None:
    tamper("; ".join(f"DELETE FROM pgresults.{table} WHERE OF_K2" for table in ("history", "result", "payload")))
    assert (await call(store, "verify")).intact
    (finding,) = (await call(store, "verify", against=sealed)).findings
    assert "4 entries that were sealed are gone" in finding.message


async def test_an_entry_slipped_in_is_found_by_the_seal(
    call: Any, store: ResultStore, sealed: Seal, tamper: Any
) -> None:
    store.write("later", key="k2")
    tamper("UPDATE pgresults.history SET xid = 3, at = %(until)s WHERE OF_K2 AND seq = 5", until=sealed.until)
    report = await call(store, "verify", against=sealed)
    assert {finding.kind for finding in report.findings} >= {"seal", "entry"}


async def test_what_came_after_a_seal_is_verified_without_what_came_before(
    call: Any, store: ResultStore, sealed: Seal, tamper: Sql
) -> None:
    before = datetime.now(UTC)
    store.write("new", key="k2")
    for since in (sealed, before):
        report = await call(store, "verify", since=since)
        assert (report.keys, report.entries, report.payloads, report.intact) == (1, 1, 1, True)
    tamper("UPDATE pgresults.history SET actor = 'nobody' WHERE OF_K2 AND seq = 2")
    assert (await call(store, "verify", since=sealed)).intact
    assert not (await call(store, "verify")).intact
    tamper("UPDATE pgresults.history SET actor = 'nobody' WHERE OF_K2 AND seq = 5")
    report = await call(store, "verify", since=sealed)
    assert next((finding.kind, finding.seq) for finding in report.findings) == ("entry", 5)


def test_a_removed_link_to_what_was_sealed_is_found(store: ResultStore, sealed: Seal, tamper: Sql) -> None:
    store.write("5", key="k2")
    store.write("6", key="k2")
    tamper("DELETE FROM pgresults.history WHERE OF_K2 AND seq = 5")
    (finding,) = [one for one in store.verify(since=sealed).findings if one.kind == "chain"]
    assert finding.seq == 6


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


def test_a_seal_leaves_out_what_may_yet_be_undone(store: ResultStore, connection: Any) -> None:
    store.write(1, key="k")
    seal_over(store, 1)
    with connection.transaction():
        connection.execute("SELECT pg_current_xact_id()")
        store.write(2, key="k")
        assert store.seal().entries == 1
    assert seal_over(store, 2).entries == 2


async def test_nothing_is_sealed_whose_transaction_is_yet_to_come(
    call: Any, store: ResultStore, sealed: Seal, tamper: Sql
) -> None:
    tamper(f"UPDATE {HISTORY} SET xid = 1::bigint << 60 WHERE OF_K2 AND seq = 3")
    with pytest.raises(IntegrityError, match="1 entries"):
        await call(store, "seal")


def test_a_seal_is_kept_as_json(store: ResultStore, sealed: Seal) -> None:
    assert Seal.load_bytes(sealed.dump_bytes()) == sealed
    with pytest.raises(IntegrityError):
        Seal.load_bytes(b"{}")


FORGERIES = {
    "root": {"root": "00" * 32},
    "entries": {"entries": 7},
    "bound": {"bound": 1},
    "buckets": {"buckets": {}},
    "signature": {"signature": "00" * 64},
    "no signature": {"signature": ""},
    "depth": {"depth": 40},
}


@pytest.mark.parametrize("name", FORGERIES)
def test_an_altered_seal_is_refused(store: ResultStore, sealed: Seal, name: str) -> None:
    with pytest.raises(IntegrityError, match="seal was altered"):
        store.verify(against=sealed.model_copy(update=FORGERIES[name]))


def test_a_seal_of_somebody_else_is_refused(store: ResultStore, sealed: Seal, tmp_path: Path, shared_url: URL) -> None:
    forger = PostgresStorage(
        shared_url, name=store.result_storage.name, settings=Settings(seal_key=tmp_path / "forger.pem")
    )
    with pytest.raises(IntegrityError, match="another key"):
        store.verify(against=ResultStore(result_storage=forger).seal())
    other = PostgresStorage(shared_url, name="another", settings=Settings(seal_key=tmp_path / "keys" / "seal.pem"))
    with pytest.raises(IntegrityError, match="of the storage"):
        store.verify(against=ResultStore(result_storage=other).seal())
    forger.close()
    other.close()


def test_the_key_is_kept_from_others(sealed: Seal, tmp_path: Path) -> None:
    assert (tmp_path / "keys" / "seal.pem").stat().st_mode & 0o777 == 0o600


async def test_a_key_that_never_was_cannot_be_verified(call: Any, store: ResultStore) -> None:
    with pytest.raises(MissingResult):
        await call(store, "verify", key="nothing")


async def test_a_key_without_new_entries_is_intact(call: Any, store: ResultStore, sealed: Seal) -> None:
    report = await call(store, "verify", key="k2", since=sealed)
    assert (report.keys, report.entries, report.findings) == (0, 0, ())
    with pytest.raises(MissingResult):
        await call(store, "verify", key="nothing", since=sealed)


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
    assert store.verify().intact
    store.write(1, key="k")
    assert store.verify().intact
    with psycopg.connect(psycopg_url(fresh_url)) as connection:
        connection.execute(f"ALTER TABLE pgresults.history {how} TRIGGER append_only")
    (finding,) = store.verify().findings
    assert (finding.kind, "append_only" in finding.message) == ("storage", True)
    storage.close()
