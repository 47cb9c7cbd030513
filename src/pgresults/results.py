"""The names of results, gathered: records, stores, and what holds where nothing is said."""

from typing import Any, TypeAlias

from pgresults.context import (
    get_default_persist_setting,
    get_default_persist_setting_for_tasks,
    get_result_store,
    should_persist_result,
)
from pgresults.database.programs import aperform, perform
from pgresults.records.records import ResultRecord, ResultRecordMetadata
from pgresults.serializers import Serializer
from pgresults.storage.postgres import NullStorage, PostgresStorage
from pgresults.storage.registry import StorageSpec, resolving, resolving_default, resolving_scheduling
from pgresults.store.persisted import PersistedResult
from pgresults.store.run_options import resolve_serializer
from pgresults.store.store import ResultStore, default_serializer

ResultStorage: TypeAlias = StorageSpec
"""What names a storage."""

ResultSerializer: TypeAlias = Serializer | str
"""What names a serializer."""

__all__ = [
    "PersistedResult",
    "ResultRecord",
    "ResultRecordMetadata",
    "ResultSerializer",
    "ResultStorage",
    "ResultStore",
    "aget_default_result_storage",
    "aget_or_create_default_task_scheduling_storage",
    "aresolve_result_storage",
    "get_default_persist_setting",
    "get_default_persist_setting_for_tasks",
    "get_default_result_serializer",
    "get_default_result_storage",
    "get_or_create_default_task_scheduling_storage",
    "get_result_store",
    "resolve_result_storage",
    "resolve_serializer",
    "should_persist_result",
]


def get_default_result_storage() -> PostgresStorage:
    """The storage for results of which nothing is said; the same object as long as the settings stay.

    Raises: ConfigurationError when the settings name one that is not registered; StorageUnavailable.
    """
    return perform(resolving_default())


async def aget_default_result_storage() -> PostgresStorage:
    """The storage for results of which nothing is said; see `get_default_result_storage`."""
    return await aperform(resolving_default())


def resolve_result_storage(result_storage: Any) -> PostgresStorage | NullStorage:
    """The storage that something names.

    Parameters:
        result_storage: a storage; a registered storage's UUID or name; a ``postgresql://`` URL; a directory (a
            ``Path``) with an embedded server.

    Raises: TypeError for anything else; ConfigurationError, which lists what is registered; StorageUnavailable.
    """
    return perform(resolving(result_storage))


async def aresolve_result_storage(result_storage: Any) -> PostgresStorage | NullStorage:
    """The storage that something names; see `resolve_result_storage`."""
    return await aperform(resolving(result_storage))


def get_or_create_default_task_scheduling_storage() -> PostgresStorage:
    """The storage for parameters of runs to come, registered where it was not.

    Raises: ConfigurationError; StorageUnavailable.
    """
    return perform(resolving_scheduling())


async def aget_or_create_default_task_scheduling_storage() -> PostgresStorage:
    """The storage for parameters of runs to come; see `get_or_create_default_task_scheduling_storage`."""
    return await aperform(resolving_scheduling())


def get_default_result_serializer() -> Serializer:
    """The serializer of results of which nothing is said.

    Raises: ValueError when the settings name an unknown type.
    """
    return default_serializer()
