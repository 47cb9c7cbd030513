"""A transactional result store for Python on the Postgres you already run."""

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
from pgresults.storage.postgres import EmbeddedPostgres, NullStorage, PostgresStorage
from pgresults.tasks import task, unmapped
from pgresults.transactions import atransaction, get_transaction, transaction

__version__: str

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
