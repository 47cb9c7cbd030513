"""The one place where database errors become ours, by SQLSTATE."""

from typing import Any

import psycopg
from sqlalchemy import exc

from pgresults.database.connections import NoneFree
from pgresults.errors import ConfigurationError, IntegrityError, PgResultsError, SchemaVersionError, StorageUnavailable

DRIVER_ERRORS = (psycopg.Error, exc.SQLAlchemyError)
"""What a database call may raise before it is translated."""

_UNAVAILABLE = ("08", "53", "57P", "58")
_NO_SUCH_TABLE = ("42P01", "3F000", "42703", "42883")
_GIVEN_UP = ("57014", "55P03")
_CONFLICTS = ("40001", "40P01")
_FORBIDDEN = ("42501", "28", "3D")


class ConnectionLost(StorageUnavailable):
    """The connection broke while in use: whether the last statement was carried out is not known."""


class Conflict(StorageUnavailable):
    """The server undid a transaction for another's sake; nothing of it was carried out."""


class AlreadyStored(PgResultsError):  # noqa: N818 (a signal between a repeated write and its driver)
    """The payload of a repeated write is there already: the first try got through."""


def translate(error: BaseException, *, connected: bool) -> PgResultsError:
    """Turn a driver's error into one of ours.

    Parameters:
        error: one of `DRIVER_ERRORS`.
        connected: whether the connection had been made, so that a statement may have been under way.

    Returns: the error to raise from it.
    """
    if isinstance(error, exc.DBAPIError) and isinstance(error.orig, psycopg.Error):
        error = error.orig
    state = error.sqlstate if isinstance(error, psycopg.Error) else None
    if state is None:
        return _without_state(error, connected)
    if state in _CONFLICTS:
        return Conflict(f"the database could not order this among other changes: {_text(error)}", sqlstate=state)
    if state == "26000":
        return Conflict("the session forgot a prepared statement, of which nothing was carried out", sqlstate=state)
    if state in _GIVEN_UP:
        return StorageUnavailable(
            f"the server gave a statement up, and nothing of it was carried out: {_text(error)}", sqlstate=state
        )
    if state == "23505":
        return _taken(error.diag.constraint_name if isinstance(error, psycopg.Error) else None)
    if state.startswith(_NO_SUCH_TABLE):
        return SchemaVersionError(
            "the database lacks tables that this version of pgresults needs; run `pgresults db upgrade`",
            command="pgresults db upgrade",
        )
    if state.startswith(_FORBIDDEN):
        return ConfigurationError(
            f"the database refuses this user: {_text(error)}. Correct the URL's user, password or database; "
            "a database owner grants what is needed: `pgresults db grant ROLE --as writer`, reader, sweeper and so on.",
            setting=None if connected else "database_url",
        )
    if state.startswith(_UNAVAILABLE):
        kind = ConnectionLost if connected and state.startswith("57P") else StorageUnavailable
        return kind(f"the database is unavailable: {_text(error)}", sqlstate=state)
    return StorageUnavailable(f"the database failed: {_text(error)} (SQLSTATE {state})", sqlstate=state)


def _taken(constraint: str | None) -> PgResultsError:
    if constraint is not None and constraint.startswith("history"):
        return IntegrityError(
            "the history has the entry already that was to be written: its key's row among the results was removed "
            "or altered, which `pgresults verify` shows"
        )
    return AlreadyStored("the payload is stored already")


def _without_state(error: BaseException, connected: bool) -> PgResultsError:
    if isinstance(error, (exc.TimeoutError, NoneFree)):
        return StorageUnavailable(
            "no database connection became free in time: raise PGRESULTS_POOL_SIZE or PGRESULTS_CONNECT_TIMEOUT"
        )
    if connected and isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)):
        return ConnectionLost(f"the connection to the database was lost: {_text(error)}")
    if isinstance(error, (psycopg.ProgrammingError, exc.ArgumentError)):
        return ConfigurationError(f"the database URL is not usable: {_text(error)}", setting="database_url")
    if connected:
        return PgResultsError(f"the database driver failed: {_text(error)}")
    return StorageUnavailable(
        f"the database cannot be reached: {_text(error)}. "
        "Check that the server runs and has connections to spare, and the host, port, user and database in its URL."
    )


def _text(error: Any) -> str:
    """The first line of the server's or driver's message; the rest repeats the statement."""
    message = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    lines = str(message or error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
