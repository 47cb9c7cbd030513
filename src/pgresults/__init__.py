"""A transactional result store for Python on the Postgres you already run."""

from typing import NoReturn

from pgresults.flows import flow
from pgresults.results import (
    PersistedResult,
    ResultRecord,
    ResultRecordMetadata,
    ResultSerializer,
    ResultStorage,
    ResultStore,
    aget_default_result_storage,
    aget_or_create_default_task_scheduling_storage,
    aresolve_result_storage,
    get_default_persist_setting,
    get_default_persist_setting_for_tasks,
    get_default_result_serializer,
    get_default_result_storage,
    get_or_create_default_task_scheduling_storage,
    get_result_store,
    resolve_result_storage,
    resolve_serializer,
    should_persist_result,
)
from pgresults.runtime.absent import advice
from pgresults.storage.postgres import EmbeddedPostgres, NullStorage, PostgresStorage
from pgresults.tasks import task, unmapped
from pgresults.transactions import atransaction, get_transaction, transaction

__all__ = [
    "EmbeddedPostgres",
    "NullStorage",
    "PersistedResult",
    "PostgresStorage",
    "ResultRecord",
    "ResultRecordMetadata",
    "ResultSerializer",
    "ResultStorage",
    "ResultStore",
    "aget_default_result_storage",
    "aget_or_create_default_task_scheduling_storage",
    "aresolve_result_storage",
    "atransaction",
    "flow",
    "get_default_persist_setting",
    "get_default_persist_setting_for_tasks",
    "get_default_result_serializer",
    "get_default_result_storage",
    "get_or_create_default_task_scheduling_storage",
    "get_result_store",
    "get_transaction",
    "resolve_result_storage",
    "resolve_serializer",
    "should_persist_result",
    "task",
    "transaction",
    "unmapped",
]


def __getattr__(name: str) -> NoReturn:
    if name in ("get_run_logger", "serve", "deploy", "tags"):  # what every second program for Prefect imports
        raise ImportError(f"pgresults has no {name}; {advice(name)}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
