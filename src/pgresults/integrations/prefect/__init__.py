"""Prefect's results and locks in Postgres: a storage block, and the manager of its locks."""

from pgresults.integrations.prefect.block import PostgresResultStorage
from pgresults.integrations.prefect.locks import PostgresLockManager

__all__ = ["PostgresLockManager", "PostgresResultStorage"]
