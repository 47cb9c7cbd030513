"""Spreading a schema over the servers of a Citus cluster, and saying what of it is."""

from collections.abc import Callable
from typing import NamedTuple

from psycopg import sql
from sqlalchemy import URL, Connection, bindparam, text

from pgresults.database.connections import Connection as PsycopgConnection
from pgresults.database.migrations import closing, connected, preamble, require_current_schema
from pgresults.database.revisions import UPGRADE
from pgresults.errors import ConfigurationError
from pgresults.sql import distribution
from pgresults.sql.schema import SCHEMA
from pgresults.sql.shard_functions import MARK

_EXTENSION = text("SELECT extversion FROM pg_extension WHERE extname = 'citus'")
_SPREAD = text("""
    SELECT c.relname, p.partmethod = 'n' AS is_reference, count(DISTINCT s.shardid), count(DISTINCT o.groupid)
    FROM pg_dist_partition p
    JOIN pg_class c ON c.oid = p.logicalrelid
    LEFT JOIN pg_dist_shard s USING (logicalrelid)
    LEFT JOIN pg_dist_placement o USING (shardid)
    WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = :schema) AND c.relname IN :names
    GROUP BY 1, 2 ORDER BY 1
""").bindparams(bindparam("names", expanding=True))
_MARKED = text("""
    SELECT count(*) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname = :schema AND p.proname = :mark
""")
_SHARDS = 32


class Spread(NamedTuple):
    """A table that is spread by key, or that every server has: in how many shards, on how many servers."""

    table: str
    is_reference: bool
    shards: int
    servers: int


class Distribution(NamedTuple):
    """What of a schema is spread, and what should be and is not."""

    tables: list[Spread]
    missing: list[str]

    def __str__(self) -> str:
        by_key = [table for table in self.tables if not table.is_reference]
        shards, servers = (max((one[field] for one in by_key), default=0) for field in (2, 3))
        return (
            f"{', '.join(one.table for one in by_key)} spread by key in {shards} shards over {servers} servers; "
            f"{', '.join(one.table for one in self.tables if one.is_reference)} on every server; locks on this one"
        )


def distribute(
    url: URL, schema: str = SCHEMA, shards: int = _SHARDS, progress: Callable[[str], None] | None = None
) -> Distribution:
    """Spread a schema that is up to date over the servers of a cluster; what is there already stays as it is.

    Whoever writes meanwhile waits, and has to be started anew afterwards.

    Parameters:
        url: the database on the cluster's coordinator.
        schema: the schema that holds the tables.
        shards: in how many parts.
        progress: told each table before it is spread.

    Returns: what is spread.
    Raises: ConfigurationError where the database is no coordinator of a cluster; SchemaVersionError;
        StorageUnavailable.
    """
    with connected(url) as connection:
        _require_cluster(connection)
        require_current_schema(connection, schema)
        for beginning in preamble(schema, 30.0, connection):
            connection.execute(beginning)
        for setting in ("citus.enable_unsafe_triggers = on", "citus.multi_shard_modify_mode = 'sequential'"):
            connection.execute(text(f"SET LOCAL {setting}"))
        found = _distribution(connection, schema)
        fresh = not found.tables
        if fresh:
            for table, statement in distribution.spreading(schema, shards):
                if progress:
                    progress(table)
                _execute(connection, statement)
        elif found.missing:
            raise ConfigurationError(
                f"schema {schema!r} is spread in part: {', '.join(found.missing)} of it is not. Restore a backup from "
                "before somebody changed that, or spread it by hand as the others are",
                setting="database_schema",
            )
        for statement in distribution.functions(schema):
            _execute(connection, statement)
        if fresh:
            for statement in distribution.guarding(schema):
                _execute(connection, statement)
        connection.execute(closing(schema))
        _execute(connection, distribution.letting(schema))
        connection.commit()
        return _distribution(connection, schema)


def distribution_of(url: URL, schema: str = SCHEMA) -> Distribution | None:
    """What of a schema is spread over several servers; None where nothing is."""
    with connected(url) as connection:
        if connection.execute(_EXTENSION).first() is None:
            return None
        found = _distribution(connection, schema)
        return found if found.tables else None


def _require_cluster(connection: Connection) -> None:
    if connection.execute(_EXTENSION).first() is None:
        raise ConfigurationError(
            "the database has no extension citus: create it in this database on every server, add the servers with "
            f"citus_add_node(), then run `{UPGRADE} --distributed`",
            setting="database_url",
        )


def _distribution(connection: Connection, schema: str) -> Distribution:
    wanted = (*distribution.DISTRIBUTED, distribution.REFERENCE)
    rows = connection.execute(_SPREAD, {"schema": schema, "names": list(wanted)}).all()
    tables = [Spread(*row) for row in rows]
    missing = sorted(set(wanted) - {one.table for one in tables})
    if tables and not connection.execute(_MARKED, {"schema": schema, "mark": MARK}).scalar_one():
        missing.append("the functions")
    return Distribution(tables, missing)


def _execute(connection: Connection, statement: sql.Composed) -> None:
    driver = connection.connection.driver_connection
    assert isinstance(driver, PsycopgConnection)  # noqa: S101 (we made it)
    driver.execute(statement)  # by itself it would take the percent signs for parameters
