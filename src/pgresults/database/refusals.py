"""Why a server refused a connection: libpq tells a text in the server's language, but its trace has the SQLSTATE."""

import os
import re
import select
import time
from collections.abc import Mapping
from typing import Any, Final

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo

_SQLSTATE: Final = re.compile(rb'\tErrorResponse\t.* C "([0-9A-Z]{5})"')
_MOST: Final = 65_536
_NO_PARAMETERS: Final = ("autocommit", "prepare_threshold")


def refusal(error: psycopg.OperationalError, parameters: Mapping[str, Any], seconds: float) -> psycopg.OperationalError:
    """The error of a failed connection, with its SQLSTATE where a server that takes connections refused this one.

    Parameters:
        error: what psycopg raised.
        parameters: how it tried to connect.
        seconds: how long asking once more may take.
    """
    conninfo = make_conninfo("", **{name: value for name, value in parameters.items() if name not in _NO_PARAMETERS})
    if error.sqlstate is None and pq.PGconn.ping(conninfo.encode()) == pq.Ping.OK:
        error.sqlstate = _sqlstate(conninfo, seconds)
    return error


def may_pass(error: psycopg.OperationalError) -> bool:
    """Whether another try may succeed where there are other connections: the server has no more, or says nothing."""
    return error.sqlstate is None or error.sqlstate.startswith("53")


def _sqlstate(conninfo: str, seconds: float) -> str | None:
    reading, writing = os.pipe()
    try:
        _connect_traced(conninfo, writing, time.monotonic() + seconds)
        os.set_blocking(reading, False)
        found = _SQLSTATE.search(os.read(reading, _MOST))
    except (psycopg.Error, OSError):  # no trace here, or nothing in it
        return None
    finally:
        os.close(reading)
        os.close(writing)
    return found[1].decode() if found else None


def _connect_traced(conninfo: str, writing: int, deadline: float) -> None:
    """Try to connect until that ends in one way or another."""
    pgconn = pq.PGconn.connect_start(conninfo.encode())
    try:
        pgconn.trace(writing)
        state = pgconn.connect_poll()
        while state in (pq.PollingStatus.READING, pq.PollingStatus.WRITING) and time.monotonic() < deadline:
            reads = [pgconn.socket] if state == pq.PollingStatus.READING else []
            writes = [pgconn.socket] if state == pq.PollingStatus.WRITING else []
            select.select(reads, writes, [], max(0.0, deadline - time.monotonic()))
            state = pgconn.connect_poll()
        pgconn.untrace()
    finally:
        pgconn.finish()
