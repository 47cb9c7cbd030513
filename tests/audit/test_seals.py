"""Seals: what only they notice, what they cover, and that they cannot be forged."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL
from typer.testing import CliRunner

from pgresults.audit.seals import Seal
from pgresults.cli.app import app
from pgresults.errors import IntegrityError, MissingResult
from pgresults.settings import Settings
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.chains import entries, recomputed
from tests.support.database import psycopg_url
from tests.support.sealing import HISTORY, Sql, seal_over


@pytest.fixture
def storage(sealing_storage: PostgresStorage) -> PostgresStorage:
    return sealing_storage


REWIND = """
DELETE FROM pgresults.history WHERE OF_K2 AND seq = 4;
UPDATE pgresults.result r SET seq = h.seq, action = h.action, at = h.at, digest = h.digest, previous = h.previous,
    expires_at = h.expires_at, holder = h.holder
FROM pgresults.history h WHERE r.storage_id = %(id)s AND r.key = 'k2' AND h.storage_id = %(id)s AND h.key = 'k2'
    AND h.seq = 3
"""


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


def test_a_seal_leaves_out_what_may_yet_be_undone(store: ResultStore, connection: Any) -> None:
    store.write(1, key="k")
    seal_over(store, 1)
    with connection.transaction():
        connection.execute("SELECT pg_current_xact_id()")
        store.write(2, key="k")
        assert store.seal().entries == 1
    assert seal_over(store, 2).entries == 2


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


async def test_a_key_without_new_entries_is_intact(call: Any, store: ResultStore, sealed: Seal) -> None:
    report = await call(store, "verify", key="k2", since=sealed)
    assert (report.keys, report.entries, report.findings) == (0, 0, ())
    with pytest.raises(MissingResult):
        await call(store, "verify", key="nothing", since=sealed)


@pytest.mark.parametrize("which", ["AND seq = 2", ""], ids=["one entry", "all of a restored key"])
async def test_a_seal_counts_what_it_cannot_cover(
    call: Any, store: ResultStore, sealed: Seal, tamper: Sql, caplog: pytest.LogCaptureFixture, which: str
) -> None:
    tamper(f"UPDATE {HISTORY} SET xid = 1::bigint << 60 WHERE OF_K2 {which}")
    ahead = sum(finding.kind == "entry" for finding in store.verify().findings)
    seal = await call(store, "seal")
    assert (seal.entries, seal.ahead) == (sealed.entries - ahead, ahead)
    assert "to come" in caplog.text
    assert [finding.keys for finding in store.verify(against=seal).findings] == [("k2",)] * ahead
    with pytest.raises(IntegrityError, match="seal was altered"):
        store.verify(against=seal.model_copy(update={"ahead": 0}))


def test_the_program_says_what_a_seal_cannot_cover(
    store: ResultStore, sealed: Seal, tamper: Sql, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tamper(f"UPDATE {HISTORY} SET xid = 1::bigint << 60 WHERE OF_K2")
    monkeypatch.setenv("PGRESULTS_SEAL_KEY", str(tmp_path / "keys" / "seal.pem"))
    storage = store.result_storage
    options = ["--database-url", psycopg_url(storage.database.url()), "--storage", storage.name]
    printed = CliRunner().invoke(app, [*options, "seal", "-o", str(tmp_path / "seal.json")])
    assert printed.exit_code == 1
    assert "name transactions to come" in printed.stderr
    assert Seal.load_bytes((tmp_path / "seal.json").read_bytes()).ahead > 0
