"""What was true once is not said again: an earlier signed version, a result that expired, an open history."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import URL

from pgresults.audit.transfer import exported
from pgresults.database.programs import call, perform
from pgresults.operations import views
from pgresults.settings import Settings
from pgresults.sql.grants import Kind
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.sql.test_entries import NEXT, WRITTEN, changed
from tests.support.database import psycopg_url
from tests.support.roles import logged_in

REFUSED = (psycopg.errors.InsufficientPrivilege, psycopg.errors.UniqueViolation)
MAINTENANCE = "00000000-0000-0000-0000-000000000000"


@pytest.fixture(scope="module")
def database(create_database: Any) -> Any:
    return create_database()


@pytest.fixture(scope="module")
def writer_url(database: URL) -> Iterator[URL]:
    with logged_in(database, Kind.WRITER) as url:
        yield url


@pytest.fixture
def writer(writer_url: URL) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(psycopg_url(writer_url), autocommit=True) as connection:
        yield connection


@pytest.fixture
def store(database: URL) -> Iterator[ResultStore]:
    settings = Settings(signing_key=SecretStr("a key of sixteen or more letters"))
    with ResultStore(result_storage=PostgresStorage(database, f"test-{uuid4().hex}", settings=settings)) as store:
        yield store


def _id(store: ResultStore) -> Any:
    assert isinstance(store.result_storage, PostgresStorage)
    return store.result_storage.id


@pytest.mark.parametrize("taken_by", ["retain", "redact"])
def test_a_signed_version_is_not_stored_again_once_its_payload_is_gone(
    store: ResultStore, writer: psycopg.Connection[Any], taken_by: str
) -> None:
    mine = {"id": _id(store)}
    store.write("old price", key="k")
    columns = "key, payload_id, chunk, data, salt, sha256"
    copied = writer.execute(f"SELECT {columns} FROM pgresults.payload WHERE storage_id = %(id)s", mine).fetchall()
    said = ("payload_id", "payload_digest", "size", "sha256", "serializer", "provenance", "signature")
    names = ", ".join(said)
    [before] = writer.execute(f"SELECT {names} FROM pgresults.result WHERE storage_id = %(id)s", mine)
    _take_away(store, taken_by)
    writer.execute("BEGIN")
    for row in copied:
        writer.execute(
            f"INSERT INTO pgresults.payload (storage_id, {columns}) VALUES (%s, {', '.join(['%s'] * 6)})",
            [mine["id"], *row],
        )
    values = {f"v{n}": psycopg.types.json.Json(one) if isinstance(one, dict) else one for n, one in enumerate(before)}
    again = {**WRITTEN, **{name: f"%(v{number})s" for number, name in enumerate(said)}, "expires_at": "NULL"}
    with pytest.raises(REFUSED):
        writer.execute(changed(again), {**mine, **values})
    writer.execute("ROLLBACK")
    assert not store.exists("k") or store.read("k").result == "new price"
    assert store.verify().intact


def _take_away(store: ResultStore, how: str) -> None:
    if how == "redact":
        store.redact("k", reason="asked to")
    else:
        store.write("new price", key="k")
        store.retain(versions=1)


def test_who_began_before_a_result_expired_does_not_revive_it(
    store: ResultStore, writer: psycopg.Connection[Any]
) -> None:
    writer.execute("BEGIN")
    writer.execute("SELECT now()")
    store.write("soon gone", key="k", expires_in=timedelta(milliseconds=1))
    while store.exists("k"):
        pass
    touched = {**NEXT, "action": "'touch'", "expires_at": "NULL"}
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        writer.execute(changed(touched), {"id": _id(store)})
    writer.execute("ROLLBACK")
    assert not store.exists("k")


def test_only_the_switch_opens_the_history(database: URL, store: ResultStore) -> None:
    store.write(1, key="k")
    with psycopg.connect(psycopg_url(database)) as owner:
        owner.execute("SELECT pgresults.maintenance('to have its row')")
        owner.commit()
        place = {"id": MAINTENANCE}
        owner.execute(changed({**NEXT, "version": "version"}, "key = 'maintenance'"), place)
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
            owner.execute("UPDATE pgresults.history SET reason = 'another' WHERE storage_id = %s", [_id(store)])
        owner.rollback()
        owner.execute("SELECT pgresults.maintenance('to change it')")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="was open"):
            owner.execute("UPDATE pgresults.history SET xid = xid - 1 WHERE storage_id = %s", [MAINTENANCE])


@pytest.mark.parametrize("entry", [NEXT, WRITTEN])
def test_no_writer_says_anything_at_the_place_of_the_switch(
    database: URL, writer: psycopg.Connection[Any], entry: dict[str, str]
) -> None:
    with psycopg.connect(psycopg_url(database), autocommit=True) as owner:
        owner.execute("SELECT pgresults.maintenance('to have its row')")
    written = {**entry, "payload_id": "gen_random_uuid()"} if entry is WRITTEN else entry
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        writer.execute(changed(written, "key = 'maintenance'"), {"id": MAINTENANCE})


def test_sizes_beyond_measure_end_no_question(store: ResultStore, writer: psycopg.Connection[Any]) -> None:
    for key in ("a", "b"):
        store.write(1, key=key)
        huge = {**WRITTEN, "size": "9223372036854775807", "payload_id": "gen_random_uuid()", "signature": "NULL"}
        writer.execute(changed(huge, f"key = '{key}'"), {"id": _id(store)})
    storage = store.result_storage
    assert isinstance(storage, PostgresStorage)
    for asked in (views.usage, lambda id_: views.written_daily(id_, timedelta(days=1))):
        assert str(2**63 - 1) in str(perform(call(storage.database, lambda _, ask=asked: ask(storage.id))))  # type: ignore[misc]
    usage = "SELECT live_bytes FROM pgresults.storage_usage WHERE storage_id = %s"
    assert writer.execute(usage, [storage.id]).fetchone() == (2**63 - 1,)


@pytest.mark.parametrize("serializer", ["[]", '"json"', "7"])
def test_an_export_leaves_out_what_says_nothing_sensible(database: URL, serializer: str) -> None:
    with ResultStore(result_storage=PostgresStorage(database, f"test-{uuid4().hex}")) as store:
        storage = store.result_storage
        assert isinstance(storage, PostgresStorage)
        for key in ("bad", "good"):
            store.write(key, key=key)
        with psycopg.connect(psycopg_url(database), autocommit=True) as owner:
            owner.execute("ALTER TABLE pgresults.result DISABLE TRIGGER USER")
            owner.execute(
                "UPDATE pgresults.result SET serializer = %s::jsonb WHERE key = 'bad' AND storage_id = %s",
                [serializer, storage.id],
            )
            owner.execute("ALTER TABLE pgresults.result ENABLE TRIGGER USER")
        left: list[Any] = []
        assert [one.key for one in exported(storage, leave_out=left.append)] == ["good"]
        assert [(error.key, error.version) for error in left] == [("bad", 1)]
