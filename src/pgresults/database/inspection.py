"""How a server and a role of it are, as somebody sees it who looks after a schema."""

from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import URL

from pgresults.database.asking import asking
from pgresults.sql.grants import Kind, lacking

_SERVER = """
    SELECT current_setting('server_version'), session_user::text, current_user::text, pg_is_in_recovery(),
           pg_backend_pid(), pg_postmaster_start_time(), current_setting('max_connections')::integer,
           (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
           pg_database_size(current_database())
"""
_CONNECTIONS = """
    SELECT coalesce(state, 'unknown'), count(*) FROM pg_stat_activity
    WHERE application_name = 'pgresults' AND datname = current_database() GROUP BY 1 ORDER BY 1
"""


_REPLICAS = """
    SELECT coalesce(nullif(application_name, ''), 'unnamed'), coalesce(host(client_addr), 'by a socket'),
           coalesce(state, 'not seen by this role'),
           pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)::bigint, replay_lag
    FROM pg_stat_replication ORDER BY 1, 2
"""


class Replica(NamedTuple):
    """A server that follows this one: where it is, what it does, by how many bytes and for how long it is behind."""

    name: str
    address: str
    state: str
    behind: int | None
    lag: timedelta | None


class Server(NamedTuple):
    """A server as a session finds it.

    Parameters:
        version: which it is.
        session_user: who logged in.
        user: whose rights count.
        follows: whether it is a standby.
        pooled: whether a pooler stands between it and who asks.
        started: when it began.
        most: how many connections it takes.
        all: how many it has.
        size: the bytes of the database.
        ours: how many of this database's are of pgresults, by state.
        replicas: the servers that follow it.
    """

    version: str
    session_user: str
    user: str
    follows: bool
    pooled: bool
    started: datetime
    most: int
    all: int
    size: int
    ours: dict[str, int]
    replicas: list[Replica]


def server(url: URL) -> Server:
    """How a server is; raises StorageUnavailable and ConfigurationError."""
    with asking(url) as connection:
        found = connection.execute(_SERVER).fetchone()
        assert found is not None  # noqa: S101 (it has no FROM)
        version, session_user, user, follows, backend, started, most, all_, size = found
        ours = dict(connection.execute(_CONNECTIONS).fetchall())
        # What a pooler says of its server's process is not what that says itself.
        pooled = backend != connection.info.backend_pid
        replicas = [] if follows else [Replica(*row) for row in connection.execute(_REPLICAS).fetchall()]
        return Server(version, session_user, user, follows, pooled, started, most, all_, size, ours, replicas)


def missing_rights(url: URL, schema: str) -> dict[Kind, list[str]]:
    """What the role that connects lacks of what each kind of role needs; raises StorageUnavailable."""
    with asking(url) as connection:
        role = connection.execute("SELECT current_user").fetchone()
        assert role is not None  # noqa: S101 (it has no FROM)
        return {
            kind: [what for (what,) in connection.execute(lacking(schema, role[0], kind)).fetchall()] for kind in Kind
        }
