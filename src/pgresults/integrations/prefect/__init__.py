"""Prefect's results and locks in Postgres: a storage block, and the manager of its locks."""

try:
    from pgresults.integrations.prefect.block import PostgresResultStorage
    from pgresults.integrations.prefect.locks import PostgresLockManager
except ModuleNotFoundError as error:
    if error.name is None or error.name.partition(".")[0] != "prefect":
        raise
    raise ImportError("Prefect is not installed: pip install 'pgresults[prefect]'", name="prefect") from error

__all__ = ["PostgresLockManager", "PostgresResultStorage"]
