"""What is redacted is gone for good; that it was there, and who erased it, stays."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import URL

from pgresults.errors import InvalidArgument, MissingResult
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.database import psycopg_url

SECRET = "the secret of K. Ennedy "
LONG = SECRET * 100_000  # several chunks, each in TOAST


def counted(connection: Any, store: ResultStore) -> int:
    query = "SELECT count(*) FROM pgresults.payload WHERE storage_id = %s"
    return int(connection.execute(query, [store.result_storage.id]).fetchone()[0])


async def test_a_redacted_result_is_gone_and_its_entries_stay(call: Any, store: ResultStore, connection: Any) -> None:
    await call(store, "write", SECRET, key="k")
    await call(store, "write", LONG, key="k", expiration=datetime.now(UTC) + timedelta(days=1))
    await call(store, "write", SECRET, key="other")
    assert await call(store, "redact", "k", "asked to by its subject") == 2
    for arguments in ({}, {"version": 1}, {"version": 2}):
        with pytest.raises(MissingResult) as miss:
            await call(store, "read", "k", **arguments)
        assert miss.value.reason == "redacted"
        assert miss.value.by
    assert not await call(store, "exists", "k")
    steps = await call(store, "history", "k", with_results=True)
    assert [(s.action, s.reason, s.sha256, s.has_result) for s in steps] == [
        ("write", None, None, False),
        ("write", None, None, False),
        ("redact", "asked to by its subject", None, False),
    ]
    assert (await call(store, "verify")).intact
    assert (await call(store, "read", "other")).result == SECRET
    assert counted(connection, store) == 1


async def test_what_was_redacted_leaves_nothing_in_the_tables(call: Any, fresh_url: URL) -> None:
    """Once the server has rewritten the table, the bytes are in no file of it or of its TOAST."""
    import psycopg

    storage = PostgresStorage(fresh_url)
    store = ResultStore(result_storage=storage)
    for result in (SECRET, LONG):
        await call(store, "write", result, key="k")
    with psycopg.connect(psycopg_url(fresh_url), autocommit=True) as connection:
        tables = [
            row[0]
            for row in connection.execute(
                "SELECT c.oid::regclass::text FROM pg_class c WHERE c.relkind IN ('r', 't') AND (c.relnamespace ="
                " 'pgresults'::regnamespace OR c.oid IN (SELECT reltoastrelid FROM pg_class WHERE relnamespace ="
                " 'pgresults'::regnamespace))"
            ).fetchall()
        ]
        assert any(table.startswith("pg_toast") for table in tables)

        def places() -> list[str]:
            connection.execute("CHECKPOINT")
            return [table for table in tables if _is_in_file(connection, table)]

        def _is_in_file(connection: Any, table: str) -> bool:
            found = connection.execute(
                "SELECT position(%s::bytea IN pg_read_binary_file(pg_relation_filepath(%s::regclass))) > 0",
                [SECRET.encode(), table],
            ).fetchone()
            return bool(found[0])

        assert len(places()) == 2
        assert await call(store, "redact", "k", "law") == 2
        connection.execute("VACUUM FULL pgresults.payload")
        while places():  # whoever looked before the erasure, be it autovacuum, may see it until his transaction ends
            connection.execute("VACUUM FULL pgresults.payload")
    assert (await call(store, "verify")).intact
    await storage.aclose()


async def test_redacting_again_adds_nothing(call: Any, store: ResultStore) -> None:
    await call(store, "write", 1, key="k")
    assert await call(store, "redact", "k", "law") == 1
    assert await call(store, "redact", "k", "law") == 0
    assert [step.action for step in await call(store, "history", "k")] == ["write", "redact"]
    await call(store, "write", 2, key="k")
    assert (await call(store, "read", "k")).metadata.version == 2
    assert await call(store, "redact", "k", "law") == 1


async def test_what_is_deleted_can_still_be_redacted(call: Any, store: ResultStore) -> None:
    await call(store, "write", SECRET, key="k")
    await call(store, "delete", "k")
    assert await call(store, "redact", "k", "law") == 1
    with pytest.raises(MissingResult) as miss:
        await call(store, "read", "k", version=1)
    assert miss.value.reason == "redacted"


async def test_a_redaction_needs_a_key_and_a_reason(call: Any, store: ResultStore) -> None:
    with pytest.raises(MissingResult):
        await call(store, "redact", "never", "law")
    await call(store, "write", 1, key="k")
    for reason in ("", None, "a\0b"):
        with pytest.raises(InvalidArgument):
            await call(store, "redact", "k", reason)
    assert await call(store, "exists", "k")


async def test_a_memory_forgets_what_is_redacted(call: Any, storage: PostgresStorage) -> None:
    reader, eraser = (ResultStore(result_storage=storage) for _ in range(2))
    await call(reader, "write", SECRET, key="k")
    await call(reader, "read", "k")
    await call(eraser, "redact", "k", "law")
    with pytest.raises(MissingResult):
        await call(reader, "read", "k")


def test_no_payload_survives_writers_that_meet_a_redaction(store: ResultStore, connection: Any) -> None:
    """Whatever the order, each payload that is left belongs to a version after the last redaction."""
    start = threading.Barrier(3)

    def write(_: int) -> None:
        start.wait()
        for n in range(40):
            store.write(n, key="k", expiration=datetime.now(UTC) - timedelta(seconds=1))

    def erase() -> None:
        start.wait()
        for _ in range(40):
            try:
                store.redact("k", "law")
            except MissingResult:
                continue
            store.sweep()

    with ThreadPoolExecutor(3) as pool:
        eraser = pool.submit(erase)
        list(pool.map(write, range(2)))
        eraser.result()
    assert store.verify().findings == ()
    store.redact("k", "the rest")
    assert counted(connection, store) == 0


async def test_what_retention_took_says_so(call: Any, store: ResultStore) -> None:
    for number in range(3):
        await call(store, "write", number, "k")
    assert await call(store, "retain", versions=1) == 2
    for given in ({"version": 1}, {"version": 2}):
        with pytest.raises(MissingResult, match=r"not retained since .*, by `retain` of ") as miss:
            await call(store, "read", "k", **given)
        assert (miss.value.reason, miss.value.by is None, miss.value.at is None) == ("not retained", False, False)
    # What was deleted before says when and by whom that was, not by whom its payload was taken.
    await call(store, "delete", "k")
    with pytest.raises(MissingResult) as deleted:
        await call(store, "read", "k")
    assert await call(store, "retain", age=timedelta()) == 1
    for name in ("read", "touch"):
        with pytest.raises(MissingResult) as miss:
            await call(store, name, "k", *([None] if name == "touch" else []))
        assert (miss.value.reason, miss.value.at) == ("deleted", deleted.value.at)
    with pytest.raises(MissingResult, match="not retained"):
        await call(store, "read", "k", version=3)
