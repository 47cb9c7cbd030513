"""Prefect's results and locks in Postgres: a storage block, and the manager of its locks."""

try:
    import prefect  # noqa: F401
except ImportError as error:
    raise ImportError("Prefect is not installed: pip install 'pgresults[prefect]'", name="prefect") from error

from pgresults.integrations.prefect.block import PostgresResultStorage
from pgresults.integrations.prefect.locks import PostgresLockManager

__all__ = ["PostgresLockManager", "PostgresResultStorage"]
