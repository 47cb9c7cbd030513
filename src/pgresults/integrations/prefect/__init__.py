"""Prefect's results and locks in Postgres: a storage block, and the manager of its locks.

The import of files needs no Prefect, so what does is loaded when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pgresults.integrations.prefect.block import PostgresResultStorage
    from pgresults.integrations.prefect.locks import PostgresLockManager

__all__ = ["PostgresLockManager", "PostgresResultStorage"]

_MODULES = {"PostgresLockManager": "locks", "PostgresResultStorage": "block"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "prefect":
            raise
        raise ImportError("Prefect is not installed: pip install 'pgresults[prefect]'", name="prefect") from error
