"""Metadata apart from payloads, several results at once, registered storages, parameters, deprecated references."""

import pickle
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import URL

from pgresults import (
    NullStorage,
    PersistedResult,
    PostgresStorage,
    ResultRecord,
    ResultStore,
    get_default_result_storage,
    get_result_store,
    resolve_result_storage,
    transaction,
)
from pgresults import results as functions
from pgresults.errors import ConfigurationError, InvalidArgument, LockedError, MissingResult, SerializationError
from pgresults.serializers import JSONSerializer, PickleSerializer
from pgresults.server.binaries import bin_directory
from pgresults.settings import temporary_settings
from tests.support.calls import Call
from tests.support.database import psycopg_url
from tests.support.listing import page


@pytest.fixture
def keys(shared_url: URL) -> Iterator[PostgresStorage]:
    """Another storage of the same database, for metadata."""
    storage = PostgresStorage(shared_url, f"keys-{uuid4().hex}")
    yield storage
    storage.close()


@pytest.fixture
def apart(storage: PostgresStorage, keys: PostgresStorage) -> ResultStore:
    """A store that keeps metadata apart."""
    return ResultStore(result_storage=storage, metadata_storage=keys)


async def test_metadata_lies_under_the_key_and_points_to_the_payload(
    apart: ResultStore, keys: PostgresStorage, call: Call
) -> None:
    stored = await call(apart, "write", {"a": 1}, key="k")
    payload = page(apart.result_storage)
    assert [row.key for row in page(keys)] == ["k"]
    assert [row.key for row in payload] == [stored.storage_key] != ["k"]
    assert await call(apart, "exists", "k")
    for _ in range(2):
        record = await call(apart, "read", "k")
        assert (record.result, record.metadata.storage_key) == ({"a": 1}, stored.storage_key)
    await call(apart, "write", 2, key="k")
    assert (await call(apart, "read", "k")).result == 2
    assert (await call(apart, "read", "k", version=1)).result == {"a": 1}
    assert await call(apart, "delete", "k")
    assert not await call(apart, "delete", "k")
    assert not await call(apart, "exists", "k")
    with pytest.raises(MissingResult, match="deleted"):
        await call(apart, "read", "k")


async def test_both_are_written_or_none(apart: ResultStore, keys: PostgresStorage, call: Call) -> None:
    apart.lock_manager = keys.lock_manager()
    apart.acquire_lock("k", "other")
    with pytest.raises(LockedError):
        await call(apart, "write", 1, key="k", holder="me")
    assert page(apart.result_storage) == page(keys) == []
    apart.release_lock("k", "other")


def test_in_a_transaction_both_wait_for_the_commit(apart: ResultStore, keys: PostgresStorage) -> None:
    with transaction("k", apart) as txn:
        txn.stage(1)
        assert page(apart.result_storage) == page(keys) == []
    assert apart.read("k").result == 1


async def test_two_databases_get_both_one_after_the_other(storage: PostgresStorage, fresh_url: URL, call: Call) -> None:
    keys = PostgresStorage(fresh_url, "keys")
    store = ResultStore(result_storage=storage, metadata_storage=keys)
    await call(store, "write", 1, key="k")
    assert (await call(store, "read", "k")).result == 1
    await keys.aclose()


async def test_without_metadata_only_the_payload_is_kept(storage: PostgresStorage, call: Call) -> None:
    store = ResultStore(result_storage=storage, metadata_storage=NullStorage(), serializer=JSONSerializer())
    await call(store, "write", {"a": 1}, key="k", expiration=datetime.now(UTC) + timedelta(hours=1))
    assert page(storage)[0].serializer is None
    assert page(storage)[0].expires_at is not None
    assert (await call(store, "read", "k")).result == {"a": 1}
    other = ResultStore(result_storage=storage, serializer=PickleSerializer())
    with pytest.raises(SerializationError):
        await call(other, "read", "k")


@pytest.mark.parametrize("metadata", ["beside", "apart"])
async def test_many_at_once(store: ResultStore, apart: ResultStore, call: Call, metadata: str) -> None:
    used = store if metadata == "beside" else apart
    large = b"x" * 2_500_000
    items = {f"k{number}": number for number in range(50)} | {"large": large}
    stored = await call(used, "write_many", items, tags=["t"])
    assert stored.keys() == items.keys()
    assert {metadata.version for metadata in stored.values()} == {1}
    found = await call(used, "read_many", [*items, "nosuch"])
    assert {key: record.result for key, record in found.items()} == items
    assert await call(used, "read_many", []) == await call(used, "write_many", {}) == {}


async def test_what_is_no_mapping_is_refused(store: ResultStore, call: Call) -> None:
    with pytest.raises(InvalidArgument, match="not a list"):
        await call(store, "write_many", [("k", 1)])


async def test_many_are_written_together_or_not_at_all(store: ResultStore, call: Call) -> None:
    store.lock_manager = store.result_storage.lock_manager()
    store.acquire_lock("k5", "other")
    with pytest.raises(LockedError):
        await call(store, "write_many", {f"k{number}": number for number in range(9)})
    with pytest.raises(SerializationError):
        await call(store, "write_many", {"a": 1, "b": lambda: (yield), "c": (_ for _ in ())})
    assert page(store.result_storage) == []
    store.release_lock("k5", "other")


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
    assert first is get_default_result_storage() is get_result_store().result_storage
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


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
class TestPersistedResult:
    """The deprecated reference."""

    async def test_it_is_written_once_and_read(self, storage: PostgresStorage, call: Call) -> None:
        with pytest.warns(DeprecationWarning, match=r"ResultStore\.write"):
            reference = await call(
                PersistedResult, "create", {"a": 1}, storage, lambda: "k", JSONSerializer(), cache_object=False
            )
        await call(reference, "write")
        await call(reference, "write", "ignored")
        assert await call(reference, "get") == {"a": 1}
        assert (reference.type, reference.serializer_type, reference.storage_key) == ("reference", "json", "k")
        assert ResultStore(result_storage=storage).read("k").metadata.version == 1
        assert reference == reference.model_copy()
        assert reference != reference.model_copy(update={"storage_key": "other"})

    def test_its_key_is_a_text(self, storage: PostgresStorage) -> None:
        with pytest.raises(TypeError, match="int"):
            PersistedResult.create(1, storage, lambda: 1, JSONSerializer())  # type: ignore[arg-type, return-value]

    def test_none_in_its_place(self, storage: PostgresStorage) -> None:
        reference = PersistedResult.create(object(), storage, lambda: "k", JSONSerializer(), serialize_to_none=True)
        reference.write()
        assert reference.get() is not None
        assert reference.get(ignore_cache=True) is None

    async def test_one_without_an_object_writes_none(self, storage: PostgresStorage, call: Call) -> None:
        made = PersistedResult(serializer_type="pickle", storage_key="k")
        for reference in (made, pickle.loads(pickle.dumps(made)), made.model_copy(deep=True)):
            with pytest.raises(ValueError, match="no object to write"):
                await call(reference, "write")
        assert not ResultStore(result_storage=storage).exists("k")

    async def test_its_warnings_point_at_the_caller(self, storage: PostgresStorage, store: ResultStore) -> None:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            PersistedResult(serializer_type="json", storage_key="k")
            PersistedResult.create(1, storage, lambda: "k", JSONSerializer())
            await PersistedResult.acreate(1, storage, lambda: "k", JSONSerializer())
            store.create_result(1, key="k")
            await store.acreate_result(1, key="k")
            ResultStore(persist_result=True)
        deprecated = [warning.filename for warning in warned if warning.category is DeprecationWarning]
        assert deprecated == [__file__] * 8  # a store's references are two deprecated things

    async def test_a_store_creates_it(self, store: ResultStore, call: Call) -> None:
        with pytest.warns(DeprecationWarning, match="create_result"):
            reference = await call(store, "create_result", 1, key="k")
        assert not store.exists("k")
        reference.write()
        assert store.read("k").result == 1


def test_isolation_levels(store: ResultStore) -> None:
    assert store.supports_isolation_level("READ_COMMITTED")
    assert not store.supports_isolation_level("SERIALIZABLE")
    store.lock_manager = store.result_storage.lock_manager()
    assert store.supports_isolation_level("SERIALIZABLE")
    with pytest.raises(ValueError, match="CHAOS"):
        store.supports_isolation_level("CHAOS")


def test_a_store_with_metadata_apart_travels(apart: ResultStore) -> None:
    apart.write(1, key="k")
    assert pickle.loads(pickle.dumps(apart)).read("k").result == 1


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


async def test_the_history_of_a_key_is_that_of_what_it_pointed_to(
    apart: ResultStore, keys: PostgresStorage, call: Call
) -> None:
    first = await call(apart, "write", {"a": 1}, key="k")
    await call(apart, "write", 2, key="k")
    assert [entry.version for entry in await call(apart, "history", "k")] == [1, 2]
    with_results = await call(apart, "history", "k", with_results=True)
    assert [entry.result for entry in with_results] == [{"a": 1}, 2]
    await call(apart.model_copy(update={"metadata_storage": None}), "delete", first.storage_key)
    with_results = await call(apart, "history", "k", with_results=True)
    assert [(entry.has_result, entry.result) for entry in with_results] == [(False, None), (True, 2)]
    assert [found.key for found in await call(apart, "find")] == ["k"]


async def test_both_expire_together(apart: ResultStore, keys: PostgresStorage, call: Call) -> None:
    later = datetime.now(UTC) + timedelta(days=1)
    await call(apart, "write", 1, key="k", expiration=datetime.now(UTC) + timedelta(hours=1))
    await call(apart, "touch", "k", later)
    assert [row.expires_at for row in [*page(apart.result_storage), *page(keys)]] == [later, later]
    assert [row.key for row in await call(apart, "expiring", timedelta(days=2))] == ["k"]
    await call(apart, "touch", "k", datetime.now(UTC) - timedelta(seconds=1))
    with pytest.raises(MissingResult, match="expired"):
        await call(apart, "read", "k")
    assert await call(apart, "sweep", dry_run=True) == await call(apart, "sweep") == 2
    with pytest.raises(MissingResult):
        await call(apart, "touch", "k", later)


async def test_a_redacted_payload_is_gone_with_its_metadata(
    apart: ResultStore, keys: PostgresStorage, call: Call, connection: Any
) -> None:
    await call(apart, "write", "secret", key="k")
    await call(apart, "write", "secret, too", key="k")
    assert await call(apart, "redact", "k", "by law") == 2
    query = "SELECT count(*) FROM pgresults.payload WHERE storage_id = ANY(%s)"
    assert connection.execute(query, [[apart.result_storage.id, keys.id]]).fetchone() == (0,)
    with pytest.raises(MissingResult, match="redacted"):
        await call(apart, "read", "k", version=1)
    with pytest.raises(MissingResult, match="never written"):
        await call(apart, "redact", "nosuch", "by law")


async def test_what_must_not_be_redacted_stays_whole(apart: ResultStore, keys: PostgresStorage, call: Call) -> None:
    apart.lock_manager = keys.lock_manager()
    await call(apart, "write", "secret", key="k")
    with pytest.raises(InvalidArgument):
        await call(apart, "redact", "k", "")
    apart.acquire_lock("k", "other")
    with pytest.raises(LockedError):
        await call(apart, "redact", "k", "by law")
    apart.release_lock("k", "other")
    assert (await call(apart, "read", "k")).result == "secret"


async def test_both_are_deleted_or_none(apart: ResultStore, keys: PostgresStorage, call: Call) -> None:
    apart.lock_manager = keys.lock_manager()
    await call(apart, "write", 1, key="k")
    apart.acquire_lock("k", "other")
    with pytest.raises(LockedError):
        await call(apart, "delete", "k")
    assert len(page(apart.result_storage)) == len(page(keys)) == 1
    apart.release_lock("k", "other")
    assert await call(apart, "delete", "k")
    assert page(apart.result_storage) == page(keys) == []
