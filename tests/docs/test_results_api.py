"""The public names: importable, with the parameters and defaults that users know, each with its async twin."""

import importlib
import inspect
from typing import Any

import pytest

import pgresults
from pgresults import flows, tasks
from pgresults.locking import LockManager, MemoryLockManager, PostgresLockManager
from pgresults.records.records import ResultRecord, ResultRecordMetadata
from pgresults.storage import NullStorage, PostgresStorage
from pgresults.store import ResultStore
from pgresults.store.persisted import PersistedResult
from pgresults.transactions import Transaction

NONE = {"key": ..., "holder": None}

SIGNATURES: dict[str, dict[str, Any]] = {
    "pgresults.transactions:transaction": {
        "key": None,
        "store": None,
        "commit_mode": None,
        "isolation_level": None,
        "overwrite": False,
        "write_on_commit": True,
        "logger": None,
        "connection": None,
        "lock_timeout": None,
    },
    "pgresults.transactions:Transaction.stage": {
        "value": ...,
        "on_rollback_hooks": (),
        "on_commit_hooks": (),
        "derived_from": None,
    },
    "pgresults.transactions:Transaction.set": {"name": ..., "value": ...},
    "pgresults.results:ResultStore.exists": {"key": ..., "as_of": None, "stale_ok": None},
    "pgresults.results:ResultStore.read": {
        "key": ...,
        "holder": None,
        "version": None,
        "as_of": None,
        "stale_ok": None,
    },
    "pgresults.results:ResultStore.create_result_record": {"obj": ..., "key": None, "expiration": None},
    "pgresults.results:ResultStore.write": {
        "obj": ...,
        "key": None,
        "expiration": None,
        "holder": None,
        "tags": None,
        "provenance": None,
        "expires_in": None,
        "derived_from": None,
    },
    "pgresults.results:ResultStore.persist_result_record": {"result_record": ..., "holder": None},
    "pgresults.results:ResultStore.read_many": {"keys": ..., "stale_ok": None},
    "pgresults.results:ResultStore.supports_isolation_level": {"level": ...},
    "pgresults.results:ResultStore.acquire_lock": {"key": ..., "holder": None, "timeout": None, "hold_timeout": None},
    "pgresults.results:ResultStore.release_lock": NONE,
    "pgresults.results:ResultStore.is_locked": {"key": ...},
    "pgresults.results:ResultStore.is_lock_holder": NONE,
    "pgresults.results:ResultStore.wait_for_lock": {"key": ..., "timeout": None},
    "pgresults.results:ResultStore.update_for_flow": {"flow": ...},
    "pgresults.results:ResultStore.update_for_task": {"task": ...},
    "pgresults.results:ResultStore.store_parameters": {"identifier": ..., "parameters": ...},
    "pgresults.results:ResultStore.read_parameters": {"identifier": ...},
    "pgresults.results:ResultStore.create_result": {"obj": ..., "key": None, "expiration": None},
    "pgresults.results:ResultStore.delete": {"key": ..., "reason": None},
    "pgresults.results:ResultStore.generate_default_holder": {},
    "pgresults.results:ResultRecord.deserialize": {"data": ..., "backup_serializer": None},
    "pgresults.results:ResultRecord.deserialize_from_result_and_metadata": {"result": ..., "metadata": ...},
    "pgresults.results:ResultRecord.from_metadata": {"metadata": ...},
    "pgresults.results:ResultRecord.serialize": {},
    "pgresults.results:ResultRecord.serialize_result": {},
    "pgresults.results:ResultRecord.serialize_metadata": {},
    "pgresults.results:ResultRecordMetadata.dump_bytes": {},
    "pgresults.results:ResultRecordMetadata.load_bytes": {"data": ...},
    "pgresults.results:PersistedResult.create": {
        "obj": ...,
        "storage_block": ...,
        "storage_key_fn": ...,
        "serializer": ...,
        "storage_block_id": None,
        "cache_object": True,
        "expiration": None,
        "serialize_to_none": False,
    },
    "pgresults.results:PersistedResult.get": {"ignore_cache": False},
    "pgresults.results:get_result_store": {},
    "pgresults.results:get_default_result_storage": {},
    "pgresults.results:get_default_result_serializer": {},
    "pgresults.results:get_default_persist_setting": {},
    "pgresults.results:get_default_persist_setting_for_tasks": {},
    "pgresults.results:should_persist_result": {},
    "pgresults.results:resolve_result_storage": {"result_storage": ...},
    "pgresults.results:resolve_serializer": {"serializer": ...},
    "pgresults.results:get_or_create_default_task_scheduling_storage": {},
    "pgresults.storage:PostgresStorage": {
        "database": ...,
        "name": "default",
        "schema": None,
        "settings": None,
        "read_url": None,
    },
    "pgresults.storage:PostgresStorage.save": {"name": None},
    "pgresults.storage:PostgresStorage.lock_manager": {},
    "pgresults.storage:PostgresStorage.read_path": {"path": ...},
    "pgresults.storage:PostgresStorage.write_path": {"path": ..., "content": ...},
    "pgresults.storage:EmbeddedPostgres": {"path": ...},
    "pgresults.storage:NullStorage": {},
    "pgresults.locking:LockManager.acquire_lock": {
        "key": ...,
        "holder": ...,
        "acquire_timeout": None,
        "hold_timeout": None,
    },
    "pgresults.locking:LockManager.wait_for_lock": {"key": ..., "timeout": None},
    "pgresults.cache_policies:CachePolicy.configure": {
        "key_storage": None,
        "lock_manager": None,
        "isolation_level": None,
        "lock_timeout": None,
    },
}

FIELDS: dict[type, dict[str, Any]] = {
    ResultRecordMetadata: {
        "storage_key": None,
        "expiration": None,
        "serializer": pgresults.resolve_serializer("pickle"),
        "pgresults_version": ...,
        "prefect_version": None,
        "storage_block_id": None,
        "version": None,
        "created_at": None,
        "size": None,
        "sha256": None,
        "provenance": None,
    },
    ResultStore: {
        "result_storage": None,
        "metadata_storage": None,
        "lock_manager": None,
        "persist_result": None,
        "cache_result_in_memory": True,
        "serializer": pgresults.resolve_serializer("pickle"),
        "storage_key_fn": ...,
        "cache": ...,
    },
}

NAMES = {
    "pgresults.cache_policies": "INPUTS TASK_SOURCE FLOW_PARAMETERS RUN_ID NO_CACHE NONE DEFAULT CachePolicy "
    "CacheKeyFnPolicy",
    "pgresults.context": "FlowRunContext TaskRunContext get_run_context",
    "pgresults.flows": "flow Flow",
    "pgresults.tasks": "task Task explain aexplain task_input_hash unmapped",
    "pgresults.serializers": "Serializer PickleSerializer JSONSerializer CompressedSerializer",
    "pgresults.locking": "LockManager PostgresLockManager MemoryLockManager",
    "pgresults.transactions": "Transaction TransactionState IsolationLevel CommitMode transaction atransaction "
    "get_transaction AsyncTransaction BaseTransaction",
    "pgresults.runtime.flow_run": "id name flow_name parameters",
    "pgresults.runtime.task_run": "id name task_name parameters",
    "pgresults.errors": "PgResultsError MissingResult SerializationError IntegrityError LockedError LockLostError "
    "RolledBackError ConfigurationError StorageUnavailable SchemaVersionError PayloadTooLarge InvalidKey "
    "MissingContextError",
    "pgresults": "PersistedResult ResultRecord ResultRecordMetadata ResultStore get_result_store flow task transaction "
    "PostgresStorage NullStorage EmbeddedPostgres",
}

TWINS: list[Any] = [
    ResultStore,
    PostgresStorage,
    NullStorage,
    PersistedResult,
    ResultRecord,
    Transaction,
    LockManager,
    MemoryLockManager,
    PostgresLockManager,
    pgresults,
    tasks,
    tasks.Task,
]


def _parameters(function: Any) -> dict[str, Any]:
    empty = inspect.Parameter.empty
    return {
        name: ... if parameter.default is empty else parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if name != "self"
    }


def _named(path: str) -> Any:
    module, _, name = path.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize("path", SIGNATURES)
def test_parameters_and_defaults(path: str) -> None:
    assert _parameters(_named(path)) == SIGNATURES[path]


@pytest.mark.parametrize("model", FIELDS)
def test_fields_and_defaults(model: Any) -> None:
    assert list(FIELDS[model].keys() - model.model_fields.keys()) == []
    made = model()
    for name, default in FIELDS[model].items():
        assert default is ... or getattr(made, name) == default, name


@pytest.mark.parametrize("module", NAMES)
def test_names(module: str) -> None:
    found = importlib.import_module(module)
    assert [name for name in NAMES[module].split() if not hasattr(found, name)] == []


def test_all_is_what_it_says() -> None:
    assert [name for name in pgresults.__all__ if not hasattr(pgresults, name)] == []
    assert set(importlib.import_module("pgresults.results").__all__) <= set(pgresults.__all__)


def _pairs(owner: Any) -> dict[str, Any]:
    names = [name for name in dir(owner) if not name.startswith("_") and callable(getattr(owner, name))]
    twins = {"wait_for_lock": "await_for_lock"}
    return {name: twin for name in names if (twin := twins.get(name, f"a{name}")) in names}


@pytest.mark.parametrize("owner", TWINS, ids=lambda owner: owner.__name__)
def test_twins_have_the_same_parameters(owner: Any) -> None:
    pairs = _pairs(owner)
    assert pairs
    for name, twin in pairs.items():
        sync, later = inspect.signature(getattr(owner, name)), inspect.signature(getattr(owner, twin))
        assert [str(p) for p in sync.parameters.values()] == [str(p) for p in later.parameters.values()], name


@pytest.mark.parametrize(
    ("owner", "names"),
    [
        (
            ResultStore,
            """exists read write persist_result_record write_many read_many acquire_lock release_lock is_locked
            is_lock_holder wait_for_lock update_for_flow update_for_task store_parameters read_parameters
            create_result delete touch redact invalidate history expiring sweep retain""",
        ),
        (PostgresStorage, "save read_path write_path close"),
        (PersistedResult, "create write get"),
        (ResultRecord, "from_metadata"),
        (Transaction, "commit rollback read"),
        (tasks.Task, "map is_cached invalidate"),
        (
            pgresults,
            "get_default_result_storage resolve_result_storage get_or_create_default_task_scheduling_storage",
        ),
    ],
)
def test_what_touches_the_database_has_a_twin(owner: Any, names: str) -> None:
    assert set(names.split()) - _pairs(owner).keys() == set()


def test_task_and_flow_take_their_options() -> None:
    assert set(tasks.TaskOptions.__annotations__) == {
        "name",
        "persist_result",
        "result_storage",
        "result_storage_key",
        "result_serializer",
        "cache_result_in_memory",
        "cache_policy",
        "cache_key_fn",
        "cache_expiration",
        "refresh_cache",
    }
    assert set(flows.FlowOptions.__annotations__) == {
        "name",
        "persist_result",
        "result_storage",
        "result_serializer",
        "cache_result_in_memory",
    }


@pytest.mark.filterwarnings("default::DeprecationWarning")
def test_persist_result_of_a_store_is_deprecated() -> None:
    with pytest.warns(DeprecationWarning, match="persist_result"):
        ResultStore(persist_result=True)
