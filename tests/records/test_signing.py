"""Signed payloads and the pickle switch: what an attacker who writes SQL cannot have run."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import URL
from typer.testing import CliRunner

from pgresults.cli.app import app
from pgresults.errors import IntegrityError, SerializationError
from pgresults.serializers import CompressedSerializer, JSONSerializer, PickleSerializer
from pgresults.settings import Settings, temporary_settings
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.calls import Call
from tests.support.database import psycopg_url
from tests.support.listing import page

OLD, NEW = SecretStr("an old key of the team's"), SecretStr("a new key of the team's")


class Crafted:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def name() -> str:
    """The storage's name, for stores with different keys on the same storage."""
    return f"signed-{uuid4().hex}"


StoreWith = Callable[..., ResultStore]


@pytest.fixture
def store_with(shared_url: URL, name: str) -> StoreWith:
    """Makes stores on one storage, each with settings of its own."""

    def make(**settings: Any) -> ResultStore:
        return ResultStore(result_storage=PostgresStorage(shared_url, name, settings=Settings(**settings)))

    return make


@pytest.fixture
def sql(shared_url: URL) -> Any:
    """What the attacker has: a connection that may write everything."""
    with psycopg.connect(psycopg_url(shared_url), autocommit=True) as connection:
        yield connection


def _place(sql: psycopg.Connection[Any], store: ResultStore, key: str, payload: bytes) -> None:
    """Put a payload in the place of another, its digest too."""
    place = (store.result_storage.id, key)
    sql.execute(
        "UPDATE pgresults.payload SET data = %s, sha256 = sha256(%s) WHERE storage_id = %s AND key = %s",
        (payload, payload, *place),
    )
    sql.execute(
        "UPDATE pgresults.result SET size = %s, sha256 = sha256(%s) WHERE storage_id = %s AND key = %s",
        (len(payload), payload, *place),
    )


async def test_signed_results_are_read_and_rotation_keeps_them_readable(store_with: StoreWith, call: Call) -> None:
    first = store_with(signing_key=OLD)
    await call(first, "write", {"a": 1}, key="k", tags=["x"], provenance={"number": 1.0})
    assert (await call(first, "read", "k")).result == {"a": 1}
    rotated = store_with(signing_key=NEW, older_signing_keys=(OLD,))
    assert (await call(rotated, "read", "k")).result == {"a": 1}
    with pytest.raises(IntegrityError, match="key that is not known") as refused:
        await call(store_with(signing_key=NEW), "read", "k")
    assert (refused.value.key, refused.value.version) == ("k", 1)
    await call(rotated, "write", 2, key="k")
    assert (await call(store_with(signing_key=NEW), "read", "k")).result == 2


async def test_large_payloads_are_signed_too(store_with: StoreWith, call: Call) -> None:
    store = store_with(signing_key=NEW)
    content = os.urandom(2_500_000)
    await call(store, "write", content, key="k")
    assert (await call(store, "read", "k")).result == content


async def test_an_unsigned_payload_is_refused_where_a_key_is_set(store_with: StoreWith, call: Call) -> None:
    store_with().write(1, key="k")
    with pytest.raises(IntegrityError, match="not signed"):
        await call(store_with(signing_key=NEW), "read", "k")


async def test_a_crafted_pickle_has_no_effect_where_a_key_is_set(
    store_with: StoreWith, call: Call, sql: psycopg.Connection[Any], tmp_path: Path
) -> None:
    store, mark = store_with(signing_key=NEW), tmp_path / "mark"
    store.write("harmless", key="k")
    _place(sql, store, "k", pickle.dumps(Crafted(mark)))
    with pytest.raises(IntegrityError, match="signature does not fit"):
        await call(store, "read", "k")
    assert not mark.exists()
    store_with().read("k")
    assert mark.exists(), "the crafted pickle is none, the test proves nothing"


def test_the_command_line_prints_no_unsigned_result(
    store_with: StoreWith, shared_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_with()
    store.write(1, key="pickled")
    store.model_copy(update={"serializer": JSONSerializer()}).write(1, key="plain")
    monkeypatch.setenv("PGRESULTS_SIGNING_KEY", NEW.get_secret_value())
    for key in ("pickled", "plain"):
        options = ["--database-url", psycopg_url(shared_url), "--storage", store.result_storage.name]
        printed = CliRunner().invoke(app, [*options, "get", key])
        assert (printed.exit_code, printed.stdout) == (1, "")
        assert "not signed" in printed.stderr


async def test_the_bytes_of_a_path_are_signed(store_with: StoreWith, call: Call, sql: psycopg.Connection[Any]) -> None:
    store = store_with(signing_key=NEW)
    await call(store.result_storage, "write_path", "p", b"content")
    assert await call(store.result_storage, "read_path", "p") == b"content"
    _place(sql, store, "p", b"changed")
    with pytest.raises(IntegrityError):
        await call(store.result_storage, "read_path", "p")


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("serializer", json.dumps({"type": "json", "object_decoder": "subprocess.call"})),
        ("tags", ["other"]),
        ("provenance", json.dumps({"process": {}})),
        ("pgresults_version", "0"),
        ("prefect_version", "3"),
        ("storage_key", "elsewhere"),
        ("signature", b"short"),
    ],
)
@pytest.mark.parametrize("known", [False, True])
def test_changed_metadata_is_refused(
    store_with: StoreWith, sql: psycopg.Connection[Any], column: str, value: object, known: bool
) -> None:
    store = store_with(signing_key=NEW)
    store.serializer = JSONSerializer()
    store.write({"a": 1}, key="k", tags=["x"])
    if known:
        store.read("k")  # the memory of the store must not be a way around
    sql.execute(
        psycopg.sql.SQL("UPDATE pgresults.result SET {} = %s WHERE storage_id = %s").format(
            psycopg.sql.Identifier(column)
        ),
        (value, store.result_storage.id),
    )
    with pytest.raises(IntegrityError):
        store.read("k")


@pytest.mark.parametrize("place", ["key", "storage"])
def test_a_signed_payload_counts_in_its_place_only(
    shared_url: URL, store_with: StoreWith, sql: psycopg.Connection[Any], place: str
) -> None:
    store = store_with(signing_key=NEW)
    store.write("of another", key="k")
    other = ResultStore(
        result_storage=PostgresStorage(shared_url, f"other-{uuid4().hex}", settings=Settings(signing_key=NEW))
    )
    target, key = (store, "other") if place == "key" else (other, "k")
    for table in ("payload", "result"):
        columns = [
            row[0]
            for row in sql.execute(
                "SELECT column_name FROM information_schema.columns WHERE table_schema = 'pgresults' "
                "AND table_name = %s AND column_name NOT IN ('storage_id', 'key')",
                (table,),
            )
        ]
        names = psycopg.sql.SQL(", ").join(map(psycopg.sql.Identifier, columns))
        sql.execute(
            psycopg.sql.SQL(
                "INSERT INTO pgresults.{table} (storage_id, key, {names}) "
                "SELECT %s, %s, {names} FROM pgresults.{table} WHERE storage_id = %s"
            ).format(table=psycopg.sql.Identifier(table), names=names),
            (target.result_storage.id, key, store.result_storage.id),
        )
    with pytest.raises(IntegrityError, match="signature"):
        target.read(key)


def test_listing_previewing_and_metadata_never_unpickle(
    store_with: StoreWith, sql: psycopg.Connection[Any], shared_url: URL, name: str, tmp_path: Path
) -> None:
    store, mark = store_with(), tmp_path / "mark"
    store.write("harmless", key="k")
    _place(sql, store, "k", pickle.dumps(Crafted(mark)))
    program = ["--database-url", psycopg_url(shared_url), "--storage", name]
    for command in (["ls"], ["ls", "--json"], ["get", "k"], ["get", "k", "-o", str(tmp_path / "out")]):
        outcome = CliRunner().invoke(app, [*program, *command])
        assert outcome.exit_code == 0, outcome.output
    assert store.exists("k")
    assert page(store.result_storage)[0].key == "k"
    store.result_storage.read_path("k")
    assert not mark.exists()


@pytest.mark.parametrize("serializer", [PickleSerializer(), CompressedSerializer(serializer=PickleSerializer())])
async def test_a_process_can_refuse_pickle(store_with: StoreWith, call: Call, serializer: Any, tmp_path: Path) -> None:
    trusting = store_with()
    trusting.serializer = serializer
    trusting.write(Crafted(tmp_path / "mark"), key="k")
    strict = store_with(allow_pickle=False)
    with pytest.raises(SerializationError, match="PGRESULTS_ALLOW_PICKLE"):
        await call(strict, "read", "k")
    with pytest.raises(SerializationError, match='use the serializer "json"'):
        await call(strict, "write", 1, key="other")
    assert not (tmp_path / "mark").exists()
    strict.serializer = JSONSerializer()
    await call(strict, "write", {1, 2}, key="other")
    assert (await call(strict, "read", "other")).result == {1, 2}


def test_the_switch_holds_for_serializers_by_themselves() -> None:
    payload = PickleSerializer().dumps(1)
    with temporary_settings(allow_pickle=False):
        with pytest.raises(SerializationError):
            PickleSerializer().loads(payload)
        with pytest.raises(SerializationError):
            PickleSerializer().dumps(1)
        with pytest.raises(ValueError, match=r"os\.system"):
            JSONSerializer(object_decoder="os.system")
    assert PickleSerializer().loads(payload) == 1


def test_a_key_is_not_shown(store_with: StoreWith) -> None:
    store = store_with(signing_key=NEW)
    shown = f"{store!r} {store.result_storage._trust!r} {store.result_storage.settings!r}"
    assert "a new key" not in shown
