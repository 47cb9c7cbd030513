"""The one place where database errors become ours, by SQLSTATE."""

import json
import re
from datetime import UTC, datetime
from typing import Any

import psycopg
from sqlalchemy import exc

from pgresults.database.connections import NoneFree
from pgresults.errors import (
    ConfigurationError,
    IntegrityError,
    InvalidArgument,
    OnHold,
    PgResultsError,
    SchemaVersionError,
    StorageUnavailable,
)

DRIVER_ERRORS = (psycopg.Error, exc.SQLAlchemyError)
"""What a database call may raise before it is translated."""

_UNAVAILABLE = ("08", "53", "57P", "58")
_NO_SUCH_TABLE = ("42P01", "3F000", "42703", "42883")
_GIVEN_UP = ("57014", "55P03")
_CONFLICTS = ("40001", "40P01", "25P03", "25P04")
"""Two transactions in each other's way, and one that was idle or open for longer than the server lets it be."""
# The server's own names of places in its code, in whichever language it talks.
_OUTDATED = (("0A000", "RevalidateCachedQuery"), ("42804", "pl_exec.c"))
_UNLOGGED = ("0A000", "get_relation_info")
_MOVED = ("XX000", "ReportResultError")
"""What one server of a cluster says that another one could not do: most often its shard was just moved away."""
_READ_ONLY = "25006"
_ON_HOLD = "PH001"
"""Our own: what the functions of the schema say of what is on hold."""
_ATTEMPT = re.compile(r"- (host: .*?, port: .*?), hostaddr: .*?: (.+)")
"""How psycopg tells of each of several hosts, below what it says of the last one."""

_WRONG_VALUES = ("22P05", "22P02", "22003", "22008", "22015")
"""A character that the database's encoding lacks, what is no such value, a number, time or span out of range."""
_FORBIDDEN = ("42501", "28", "3D")


class ConnectionLost(StorageUnavailable):
    """The connection broke while in use: whether the last statement was carried out is not known."""


class Conflict(StorageUnavailable):
    """The server undid a transaction for another's sake; nothing of it was carried out."""


class ReadOnlyError(ConfigurationError):
    """The server takes no changes from this session; nothing of the statement was carried out."""


class StandbyError(ConfigurationError):
    """The server repeats what another one does, and has no locks of its own to give."""


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
    if not isinstance(error, psycopg.Error) or error.sqlstate is None:
        return _without_state(error, connected)
    return _given_up(error, error.sqlstate) or _refused(error, error.sqlstate, connected) or _failed(error, connected)


def _given_up(error: psycopg.Error, state: str) -> PgResultsError | None:
    """The error of a statement of which nothing was carried out, and another try may do."""
    if state in _CONFLICTS:
        return Conflict(f"the database undid this transaction: {_text(error)}", sqlstate=state)
    if state == "26000":
        return Conflict("the session forgot a prepared statement, of which nothing was carried out", sqlstate=state)
    if is_outdated(error):
        return Conflict("a table that a prepared statement uses was changed meanwhile", sqlstate=state)
    if (state, error.diag.source_function) == _MOVED:
        return Conflict(f"a server of the cluster undid this transaction: {_text(error)}", sqlstate=state)
    if state in _GIVEN_UP:
        return StorageUnavailable(
            f"the server gave a statement up, and nothing of it was carried out: {_text(error)}", sqlstate=state
        )
    return None


def _refused(error: psycopg.Error, state: str, connected: bool) -> PgResultsError | None:
    """The error of what the server will not do, however often it is asked."""
    if state == "PL001":
        return InvalidArgument(
            f"{error.diag.message_primary}: derived_from names versions that were written before",
            argument="derived_from",
            value=error.diag.message_detail,
        )
    if state == "23505":
        return _taken(error.diag.constraint_name)
    if state == _ON_HOLD:
        return _on_hold(error)
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
    if (state, error.diag.source_function) == _UNLOGGED:
        return StandbyError(
            "this database is a standby, where nobody can take a lock: they are taken on its primary, whose URL "
            "is needed for that. Reading goes on",
            setting="database_url",
        )
    if state == "0A000":
        return ConfigurationError(f"the database cannot do what is needed, as it is set up: {_text(error)}")
    if state == _READ_ONLY:
        return ReadOnlyError(
            f"the database only lets this session read: {_text(error)}. Give the URL of the primary; among several "
            "hosts in it, target_session_attrs=read-write finds that one. If it is the primary, an owner has to look "
            "at default_transaction_read_only of server, database and role",
            setting="database_url",
        )
    if state in _WRONG_VALUES:
        return InvalidArgument(f"the database cannot hold a value that was given: {_text(error)}")
    return None


def _on_hold(error: psycopg.Error) -> OnHold:
    try:
        said = json.loads(error.diag.message_detail or "{}")
        until = said.get("until") and datetime.fromisoformat(said["until"]).astimezone(UTC)
    except (ValueError, OverflowError, AttributeError):  # not by a function of ours
        said, until = {}, None
    message = f"{_text(error)}: an auditor or owner may release the hold (`pgresults release`)"
    return OnHold(message, key=said.get("key"), reason=said.get("reason"), until=until, by=said.get("by"))


def _failed(error: psycopg.Error, connected: bool) -> PgResultsError:
    state = error.sqlstate or ""
    if state.startswith(_UNAVAILABLE):
        kind = ConnectionLost if connected and state.startswith("57P") else StorageUnavailable
        return kind(f"the database is unavailable: {_text(error)}", sqlstate=state)
    return StorageUnavailable(f"the database failed: {_text(error)} (SQLSTATE {state})", sqlstate=state)


def is_outdated(error: BaseException | None) -> bool:
    """Whether a session had prepared a statement, or one of a function, for a table that has changed since."""
    if not isinstance(error, psycopg.Error):
        return False
    place = error.diag.source_file if error.sqlstate == "42804" else error.diag.source_function
    return (error.sqlstate, place) in _OUTDATED


def is_worn(error: BaseException | None) -> bool:
    """Whether a failure speaks against the connection it came on: another one may do what this one cannot."""
    return isinstance(error, psycopg.Error) and (error.sqlstate == _READ_ONLY or is_outdated(error))


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
    if attempts := list(filter(None, map(_ATTEMPT.fullmatch, lines[1:]))):
        return "; ".join(why if "server" in why else f"{where}: {why}" for where, why in map(re.Match.groups, attempts))
    return lines[0] if lines else type(error).__name__
