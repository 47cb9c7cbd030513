"""A transactional result store for Python on the Postgres you already run."""

from importlib import import_module
from importlib.metadata import version
from typing import Any

_HOMES = {
    "pgresults.flows": ("flow",),
    "pgresults.results": (
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
    ),
    "pgresults.storage.postgres": ("EmbeddedPostgres", "NullStorage", "PostgresStorage"),
    "pgresults.tasks": ("task", "unmapped"),
    "pgresults.transactions": ("atransaction", "get_transaction", "transaction"),
}
"""Where the public names live; each is imported when somebody first asks for it. ``__init__.pyi`` has their types."""

_ROOMS = (
    "cache_policies",
    "context",
    "errors",
    "flows",
    "locking",
    "results",
    "serializers",
    "settings",
    "tasks",
    "transactions",
)
"""The public modules that ``import pgresults`` alone makes reachable as well."""

_NOT_HERE = ("get_run_logger", "serve", "deploy", "tags")
"""What every second program for Prefect imports."""

__all__ = sorted(name for names in _HOMES.values() for name in names)


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            globals()[name] = getattr(import_module(home), name)
            return globals()[name]
    if name == "__version__":
        return version("pgresults")
    if name in _ROOMS:
        return import_module(f"pgresults.{name}")
    if name in _NOT_HERE:
        raise ImportError(f"pgresults has no {name}; {import_module('pgresults.runtime.absent').advice(name)}")
    raise AttributeError(f"module 'pgresults' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_ROOMS, "__version__"})
