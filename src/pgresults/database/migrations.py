"""Bringing a database's schema to the revision this code is written for, under a lock."""

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from psycopg import Error as DriverError
from psycopg import IsolationLevel, OperationalError, sql
from sqlalchemy import URL, Connection, Executable, create_engine, func, select, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateSchema

from pgresults.database import condition
from pgresults.database.connections import Connection as PsycopgConnection
from pgresults.database.connections import connection_parameters
from pgresults.database.errors import translate
from pgresults.database.refusals import refusal
from pgresults.database.revisions import UPGRADE, require_current
from pgresults.errors import SchemaVersionError
from pgresults.sql.schema import REVISION, SCHEMA, VERSION_TABLE, require_schema

_ALEMBIC = threading.Lock()  # its revisions find their connection in a global of the process
_LOCK_NOT_AVAILABLE = "55P03"
_CONNECT_TIMEOUT = 10.0
_RESPONSE_TIMEOUT = 3600.0


def upgrade(url: URL, schema: str = SCHEMA, lock_timeout: float = 30.0) -> str:
    """Bring the schema to this code's revision, creating it where there is none.

    Safe from any number of processes at once: all happens in one transaction, under one lock.

    Parameters:
        url: the database.
        schema: the schema that holds the tables.
        lock_timeout: seconds to wait for another process that upgrades.

    Returns: the revision the schema is at now.
    Raises: SchemaVersionError when the lock is not to be had in time or the database is ahead of this code;
        StorageUnavailable; ConfigurationError when the user may not change the schema.
    """
    with connected(url) as connection:
        _make_here(connection, schema)
        found = _revision(connection, schema)
        if found is not None and found > REVISION:
            require_current(found, schema)
        if found != REVISION:
            with _ALEMBIC:
                command.upgrade(_config(schema, lock_timeout, connection), REVISION)
        if condition.flaws(connection, schema):
            for statement in (*preamble(schema, lock_timeout, connection), closing(schema), *condition.MENDING):
                connection.execute(statement)
    return REVISION


def require_sound(url: URL, schema: str = SCHEMA) -> list[str]:
    """Refuse a schema that is not as this code made it.

    Returns: what speaks against the database, and can stay as it is.
    Raises: SchemaVersionError naming the command that mends it.
    """
    with connected(url) as connection:
        require_current_schema(connection, schema)
        for flaw in condition.flaws(connection, schema):
            raise SchemaVersionError(
                f"schema {schema!r}: {flaw}: run `{UPGRADE}`",
                schema=schema,
                found=REVISION,
                expected=REVISION,
                command=UPGRADE,
            )
        return condition.doubts(connection)


def execute(url: URL, script: str) -> None:
    """Run statements on a database in one transaction, as its owner.

    Raises: ConfigurationError when the user may not; StorageUnavailable.
    """
    with connected(url) as connection:
        driver = connection.connection.driver_connection
        assert isinstance(driver, PsycopgConnection)  # noqa: S101 (we made it)
        try:
            driver.execute(script.encode())
            driver.commit()
        except DriverError as error:
            raise translate(error, connected=True) from error


def current(url: URL, schema: str = SCHEMA) -> str | None:
    """The revision that a database's schema is at; None where there is no schema of ours."""
    with connected(url) as connection:
        return _revision(connection, schema)


def ddl(schema: str = SCHEMA, start: str | None = None) -> str:
    """The statements that create the schema, or bring it from a revision to this code's, for a database owner to run.

    Parameters:
        schema: the schema that holds the tables.
        start: the revision it is at, one of `revisions`; None: there is none yet.
    """
    script = io.StringIO()
    config = _config(schema, lock_timeout=30.0, output=script)
    config.attributes["exists"] = start is not None
    with _ALEMBIC:
        command.upgrade(config, f"{start}:{REVISION}" if start else REVISION, sql=True)
    return script.getvalue()


def revisions() -> list[str]:
    """Every revision that a schema may be at, oldest first."""
    return [one.revision for one in ScriptDirectory.from_config(_config(SCHEMA, 0.0)).walk_revisions()][::-1]


def preamble(
    schema: str, lock_timeout: float, connection: Connection | None, exists: bool = False
) -> Iterator[Executable]:
    """What every migration begins with: the lock, the schema, and the schema first in the search path."""
    yield select(func.set_config("lock_timeout", f"{round(lock_timeout * 1000)}ms", True))
    yield select(func.pg_advisory_xact_lock(func.hashtextextended(f"pgresults.migrations.{schema}", 0)))
    # A user who may not create schemas can still migrate one that was made for them.
    if not (exists if connection is None else _schema_exists(connection, schema)):
        yield CreateSchema(schema, if_not_exists=True)
    yield select(func.set_config("search_path", sql.Identifier(schema).as_string(None), True))


def closing(schema: str) -> Executable:
    """What every migration ends with: no function is the public's, whatever the default privileges say.

    Default privileges could not do it for one schema: they take nothing away that is granted everywhere.
    """
    name = sql.Identifier(schema).as_string(None).replace(":", r"\:")
    return text(f"REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA {name} FROM PUBLIC")


_HAS_CLUSTER = text("SELECT 1 FROM pg_catalog.pg_extension WHERE extname = 'citus'")
_IS_SPREAD = text("""
    SELECT 1 FROM pg_catalog.pg_dist_partition p JOIN pg_catalog.pg_class c ON c.oid = p.logicalrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = :schema
""")


def _make_here(connection: Connection, schema: str) -> None:
    """Have tables made on this server alone where Citus would make everything on all: they are spread afterwards."""
    if (
        connection.execute(_HAS_CLUSTER).first() is not None
        and connection.execute(_IS_SPREAD, {"schema": schema}).first() is None
    ):
        connection.execute(text("SET citus.enable_ddl_propagation = off"))
    connection.commit()


def _schema_exists(connection: Connection, schema: str) -> bool:
    query = text("SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = :schema")
    return connection.execute(query, {"schema": schema}).first() is not None


def require_current_schema(connection: Connection, schema: str) -> None:
    """Refuse a schema that is at another revision than this code's.

    Raises: SchemaVersionError naming the command that mends it.
    """
    require_current(_revision(connection, schema), schema)


def _revision(connection: Connection, schema: str) -> str | None:
    options = {"version_table": VERSION_TABLE, "version_table_schema": require_schema(schema)}
    revision = MigrationContext.configure(connection, opts=options).get_current_revision()
    connection.rollback()
    return revision


@contextmanager
def connected(url: URL) -> Iterator[Connection]:
    """A connection for migrations; errors of the database come out as ours."""

    def connect() -> PsycopgConnection:
        parameters = connection_parameters(url, connect_timeout=_CONNECT_TIMEOUT) | {"autocommit": False}
        try:
            connection = PsycopgConnection.connect(**parameters)
        except OperationalError as error:
            raise refusal(error, parameters, _CONNECT_TIMEOUT) from error.__cause__
        connection.response_timeout = _RESPONSE_TIMEOUT
        # Whoever waited for the lock has to see what its holder did.
        connection.isolation_level = IsolationLevel.READ_COMMITTED
        return connection

    engine = create_engine("postgresql+psycopg://", creator=connect, poolclass=NullPool, use_native_hstore=False)
    try:
        with engine.connect() as connection:
            yield connection
            connection.commit()
    except SQLAlchemyError as error:
        state = getattr(error.orig, "sqlstate", None) if isinstance(error, DBAPIError) else None
        if state == _LOCK_NOT_AVAILABLE:
            raise SchemaVersionError(
                f"another process is changing the schema; when it is done, run `{UPGRADE}` again",
                expected=REVISION,
                command=UPGRADE,
            ) from error
        raise translate(error, connected=False) from error
    finally:
        engine.dispose()


def _config(
    schema: str, lock_timeout: float, connection: Connection | None = None, output: io.StringIO | None = None
) -> Config:
    config = Config(output_buffer=output) if output else Config()
    config.set_main_option("script_location", str(_scripts()).replace("%", "%%"))
    config.attributes.update(schema=require_schema(schema), lock_timeout=lock_timeout, connection=connection)
    return config


def _scripts() -> Path:
    """The revisions: inside an installed package, beside ``src`` in a checkout."""
    installed = Path(str(files("pgresults"))) / "alembic"
    return installed if installed.is_dir() else Path(__file__).parents[3] / "alembic"
