"""What bounds a session on the server's side: what its client has given up, the server gives up as well.

A client that vanishes in the middle of a transaction would else keep its row locks for hours, and a statement that
nobody waits for any more could still be carried out.
"""

from collections.abc import Mapping
from typing import Any, Final

from psycopg.errors import InvalidParameterValue

from pgresults.database.connections import AsyncConnection, Connection, OwnConnection

_SOONER = 0.9
"""The server gives a statement up before its client does, and says so: nothing is unknown then."""

_PATIENCE: Final = "statement_timeout"
_WATCHING: Final = "client_connection_check_interval"
"""Not every platform can look after the client of a statement that runs."""

# A pooler's sessions serve its other clients, too, and tell another process than the one that answers. What a user has
# set to less stays.
_SET: Final = b"""
SELECT limits.name, pg_catalog.set_config(limits.name, limits.value::text, false)
FROM unnest(%s::text[], %s::bigint[]) AS limits (name, value)
JOIN pg_catalog.pg_settings USING (name)
WHERE pg_catalog.pg_backend_pid() = %s
AND CASE vartype WHEN 'integer' THEN setting::bigint END NOT BETWEEN 1 AND limits.value
"""


def session_limits(response_timeout: float, max_idle: float) -> dict[str, int]:
    """The settings of a session, each in the unit that the server counts it in.

    Parameters:
        response_timeout: seconds of silence after which the client gives the server up.
        max_idle: seconds after which a connection that nobody uses is closed.
    """
    patience = round(response_timeout * 1000 * _SOONER) or 1
    return {
        _PATIENCE: patience,
        "lock_timeout": patience,
        "idle_in_transaction_session_timeout": round(response_timeout * 1000) or 1,
        "idle_session_timeout": round(max(2 * max_idle, 60) * 1000),
        "tcp_keepalives_idle": 10,
        "tcp_keepalives_interval": 5,
        "tcp_keepalives_count": 2,
        "tcp_user_timeout": 20_000,
        _WATCHING: 5_000,
    }


def limit(connection: Connection, limits: Mapping[str, int]) -> None:
    """Set the limits of a session that is this client's alone; raises the driver's errors."""
    try:
        found = connection.execute(*_setting(connection, limits)).fetchall()
    except InvalidParameterValue:
        found = connection.execute(*_setting(connection, _unwatched(limits))).fetchall()
    connection.patience = dict(found).get(_PATIENCE)


async def alimit(connection: AsyncConnection, limits: Mapping[str, int]) -> None:
    """Set the limits of a session; see `limit`."""
    try:
        cursor = await connection.execute(*_setting(connection, limits))
    except InvalidParameterValue:
        cursor = await connection.execute(*_setting(connection, _unwatched(limits)))
    connection.patience = dict(await cursor.fetchall()).get(_PATIENCE)


def _setting(connection: OwnConnection, limits: Mapping[str, int]) -> tuple[Any, list[Any]]:
    return _SET, [list(limits), list(limits.values()), connection.info.backend_pid]


def _unwatched(limits: Mapping[str, int]) -> dict[str, int]:
    return {name: value for name, value in limits.items() if name != _WATCHING}
