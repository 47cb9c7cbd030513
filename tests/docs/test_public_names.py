"""What is public carries no underscore and was meant to be: nothing can be reached by accident."""

from typing import Any

import pytest
from pydantic import BaseModel

from pgresults import EmbeddedPostgres, NullStorage, PostgresStorage
from pgresults.cache_policies import INPUTS
from pgresults.context import FlowRunContext, TaskRunContext
from pgresults.flows import Flow
from pgresults.locking import MemoryLockManager, PostgresLockManager
from pgresults.results import PersistedResult, ResultRecord, ResultRecordMetadata, ResultStore
from pgresults.serializers import CompressedSerializer, JSONSerializer, PickleSerializer, Serializer
from pgresults.tasks import Task
from pgresults.transactions import Transaction

LOCKING = "acquire_lock release_lock is_locked is_lock_holder wait_for_lock"

NAMES = {
    ResultStore: f"""
        {LOCKING} generate_default_holder
        create_result_record write persist_result_record read exists write_many read_many find
        iter_many exists_many delete_many open_write open_read
        result_storage_block_id supports_isolation_level update_for_flow update_for_task
        store_parameters read_parameters create_result
        history lineage log delete touch redact invalidate expiring sweep retain hold release_hold holds set_retention
        end_retention retention retention_due erase verify seal prove
        close
    """,
    ResultRecord: """
        expiration serializer serialize serialize_result serialize_metadata deserialize
        deserialize_from_result_and_metadata from_metadata
    """,
    ResultRecordMetadata: "dump_bytes load_bytes",
    PersistedResult: "create write get has_cached_object",
    PostgresStorage: "id name database schema settings storage_block_id save lock_manager read_path write_path close",
    NullStorage: "read_path write_path close",
    EmbeddedPostgres: "path url stop ensure_running is_running status data_directory",
    PostgresLockManager: f"{LOCKING} database name held_locks break_lock forget_released close",
    MemoryLockManager: LOCKING,
    Transaction: """
        key store commit_mode isolation_level overwrite write_on_commit logger connection lock_timeout state holder
        stage commit rollback read set get get_parent add_child children on_commit_hooks on_rollback_hooks
        is_pending is_active is_staged is_committed is_rolled_back
    """,
    Task: """
        identity task_key with_options on_commit on_rollback map cache_info is_cached invalidate
    """,
    Serializer: "dumps loads",
    PickleSerializer: "dumps loads",
    JSONSerializer: "dumps loads",
    CompressedSerializer: "dumps loads",
}
"""The public names of a class beside its fields; of a pair the blocking one."""


def made(cls: type, storage: PostgresStorage) -> Any:
    """An instance, whose attributes count as well; the class itself where they are fields."""
    match cls.__name__:
        case "PostgresStorage":
            return storage
        case "PostgresLockManager":
            return storage.lock_manager()
        case "EmbeddedPostgres":
            return EmbeddedPostgres("never-made")
        case "Transaction":
            return Transaction("k", ResultStore(result_storage=storage))
        case _:
            return cls


@pytest.mark.parametrize("cls", NAMES)
def test_what_can_be_reached_was_meant_to_be(cls: type, storage: PostgresStorage) -> None:
    shown = made(cls, storage)
    names = {name for name in dir(shown) if not name.startswith("_")}
    if issubclass(cls, BaseModel):
        names -= set(dir(BaseModel)) | set(cls.model_fields)
    twins = {name for name in names if name[0] == "a" and name[1:] in names} | {"await_for_lock"}
    assert sorted(names - twins) == sorted(NAMES[cls].split())


def test_a_store_is_no_container(store: ResultStore) -> None:
    store.write(1, key="k")
    with pytest.raises(TypeError, match=r"exists\(key\)"):
        "k" in store  # noqa: B015 (it raises)
    with pytest.raises(TypeError, match=r"find\(\)"):
        list(store)


def test_the_help_shows_what_a_person_needs() -> None:
    for cls in (ResultStore, PostgresStorage):
        shown = cls.__doc__ or ""
        fields = set(ResultStore.model_fields) if cls is ResultStore else {"database", "name", "schema", "settings"}
        assert all(f"        {name}: " in shown for name in fields), cls


@pytest.mark.parametrize("cls", [Task, Flow, FlowRunContext, TaskRunContext, type(INPUTS)])
def test_programs_of_the_runtime_carry_an_underscore(cls: type) -> None:
    internal = ("bind", "changed", "key_of", "run_of", "running", "names", "provenance", "with_parameters", "parts")
    assert not {name for name in dir(cls) if name in internal}
