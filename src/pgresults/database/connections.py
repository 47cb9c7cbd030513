"""The psycopg connections that pgresults opens itself: they never wait for ever for a silent server."""

import time
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from typing import Any

import psycopg
from psycopg.abc import PQGen
from psycopg.adapt import AdaptersMap
from sqlalchemy import URL, Dialect
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from pgresults.database.adapters import own_adapters
from pgresults.database.prepared import PreparedStatements

_DIALECT: Dialect = PGDialect_psycopg()  # type: ignore[no-untyped-call]
_KEEPALIVE = {"keepalives": 1, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}


class Silence(psycopg.OperationalError):
    """The server has not said a word for too long; the connection is closed."""


class NoneFree(psycopg.OperationalError):
    """Every connection of a pool is in use, and none became free in time."""


@dataclass(frozen=True)
class PoolOptions:
    """How connections are made and kept; times in seconds."""

    size: int
    overflow: int
    connect_timeout: float
    response_timeout: float
    prepare: bool
    max_idle: float
    max_lifetime: float


class OwnConnection(psycopg.BaseConnection[tuple[Any, ...]]):
    """A connection that pgresults opened itself.

    It may be dropped without a word: it belongs to a pool, which ends with its storage, its loop or its fork.
    ``prepare`` says whether statements are prepared that are repeated; ``opened_at`` and ``used_at`` are moments on
    this process's clock.
    """

    response_timeout: float
    prepare: bool
    opened_at: float
    used_at: float
    patience: str | None = None
    """The time after which the server gives a statement up; None: as it was set by others."""

    def set_up(self, options: PoolOptions) -> None:
        """Have it behave as its pool's options say."""
        self.response_timeout, self.prepare = options.response_timeout, options.prepare
        self.opened_at = self.used_at = time.monotonic()

    def is_stale(self, options: PoolOptions) -> bool:
        """Whether it was unused for too long, or is too old."""
        now = time.monotonic()
        return now - self.used_at > options.max_idle or now - self.opened_at > options.max_lifetime

    @cached_property
    def adapters(self) -> AdaptersMap:
        """How values are sent and received here."""
        return own_adapters()

    @cached_property
    def statements(self) -> PreparedStatements:
        """What runs statements here, quicker than a cursor."""
        return PreparedStatements(self, prepare=self.prepare)

    __del__ = type(None)
    """Says nothing, and has no frame in which a signal's exception would be lost; libpq closes the socket in the
    process that opened it."""


class Connection(OwnConnection, psycopg.Connection[tuple[Any, ...]]):
    """A psycopg connection that gives a silent server up after ``response_timeout`` seconds."""

    def wait(self, gen: PQGen[Any], *args: Any, **options: Any) -> Any:
        """Wait for a libpq conversation, no longer than the server may be silent."""
        return super().wait(_until_silent(self.pgconn, gen, self.response_timeout), *args, **options)


class AsyncConnection(OwnConnection, psycopg.AsyncConnection[tuple[Any, ...]]):
    """The async twin of `Connection`."""

    async def wait(self, gen: PQGen[Any], *args: Any, **options: Any) -> Any:
        """Wait for a libpq conversation, no longer than the server may be silent."""
        return await super().wait(_until_silent(self.pgconn, gen, self.response_timeout), *args, **options)


def connection_parameters(url: URL, *, connect_timeout: float) -> dict[str, Any]:
    """The arguments with which psycopg connects to a SQLAlchemy URL; what the URL says itself goes first."""
    _, parameters = _DIALECT.create_connect_args(url)
    ours = {
        "application_name": "pgresults",
        "connect_timeout": ceil(connect_timeout),
        **_KEEPALIVE,
    }
    fixed = {
        "autocommit": True,
        # None of psycopg's may be mixed with `PreparedStatements`; cursors in their place have to be right, not quick.
        "prepare_threshold": None,
        "client_encoding": "utf8",  # as statements are, whatever PGCLIENTENCODING says
    }
    return {**ours, **parameters, **fixed}


def _until_silent(pgconn: psycopg.pq.abc.PGconn, steps: PQGen[Any], seconds: float) -> PQGen[Any]:
    """Pass a libpq conversation through, but give it up when the server stays silent for so long."""
    heard = time.monotonic()
    try:
        state = next(steps)
        while True:
            ready = yield state
            if ready:
                heard = time.monotonic()
            elif time.monotonic() - heard > seconds:
                # Nobody can tell any more which answer belongs to which question: the connection is of no use.
                pgconn.finish()
                raise Silence(f"the server has not answered for {seconds:g} s")
            state = steps.send(ready)
    except StopIteration as done:
        return done.value
