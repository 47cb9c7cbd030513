"""A database that carries operations out on its own connections, sync and async."""

import asyncio
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, TypeAlias

import psycopg
from sqlalchemy import URL, Engine, make_url

from pgresults.database.carrying import to_carry, with_own_secrets, with_passwords, without_secrets
from pgresults.database.connections import AsyncConnection, Connection, PoolOptions
from pgresults.database.driver import adrive, drive
from pgresults.database.following import Following
from pgresults.database.lookups import is_async_engine
from pgresults.database.pools import Pools
from pgresults.database.retries import Attempts
from pgresults.database.revisions import require_current
from pgresults.database.targets import DRIVER, Target, url_of, without_passwords
from pgresults.database.telemetry import Described, attributes_of
from pgresults.errors import ConfigurationError, SchemaVersionError
from pgresults.interruptions import is_interruption
from pgresults.operations.distributed import spread
from pgresults.operations.registry import Condition, condition, ping
from pgresults.operations.requests import Operation, T
from pgresults.server.embedded import EmbeddedPostgres, is_embedded
from pgresults.settings import Settings, current_settings
from pgresults.sql.schema import REVISION, require_schema

Start: TypeAlias = Callable[[bool], Operation[T]]
"""Begins an operation; it is told whether an earlier try may have been carried out."""

_NO_TRANSACTION = nullcontext()
_PATIENCE = 3.0  # seconds


class Database:
    """A schema in a Postgres database, reached lazily; picklable and usable after a fork.

    Parameters:
        target: see `Target`. An engine is used as it is for calls of its own kind; the other kind gets an engine for
            the same URL.
        schema: the schema that holds the tables; None: that of the settings.
        settings: pool sizes and time-outs.
        read_url: a standby of it, which `standbys.reading` may ask in its place; None: there is none.

    Raises: ConfigurationError for a target that is no Postgres database.
    """

    def __init__(
        self,
        target: Target,
        schema: str | None = None,
        settings: Settings | None = None,
        read_url: str | URL | None = None,
    ) -> None:
        self.settings = settings or current_settings()
        self.schema = require_schema(self.settings.database_schema if schema is None else schema)
        self.embedded = _embedded(target)
        self._engine = target if isinstance(target, Engine) else None
        self._async_engine = target if is_async_engine(target) else None
        self._given_url = None if self.embedded else url_of(target)
        self._read_url = None if read_url is None else url_of(read_url, "read_url")
        self._is_spread = False
        self._open()

    def _open(self) -> None:
        self._checked_by: int | None = None
        self.sees_payloads = False
        """Whether the role may read the table of payloads itself; known once something was carried out."""
        self.place = hashlib.sha256(repr(self._identity()).encode()).hexdigest()
        """What tells this database and schema from others, in every process alike, and says no secret."""
        self.described = Described(attributes_of(self._given_url, self.embedded, self.schema))
        name = self.described.pool
        self._pools = Pools(self.url, self.aurl, self.pool_options(), name, self._engine, self._async_engine)
        self.standby = None if self._read_url is None else _Standby(self._read_url, self.schema, self.settings)
        self.following = Following()

    def url(self) -> URL:
        """The URL to connect to; starts an embedded server that does not run."""
        if self._given_url is not None:
            return self._given_url
        assert self.embedded is not None  # noqa: S101 (one of the two is set)
        self.embedded.ensure_running()
        return make_url(self.embedded.url).set(drivername=DRIVER)

    async def aurl(self) -> URL:
        """The URL to connect to; see `url`."""
        if self.embedded is None or self.embedded.is_running():
            return self.url()
        return await asyncio.to_thread(self.url)

    def run(self, start: Start[T], *, atomic: bool = False, repeatable: bool = True) -> T:
        """Carry an operation out.

        Parameters:
            start: begins the operation anew for every try.
            atomic: whether it has several statements that belong in one transaction.
            repeatable: whether a second try can do no harm when the first got through unnoticed.

        Returns: what the operation returns.
        Raises: StorageUnavailable, SchemaVersionError, ConfigurationError.
        """
        self._check()
        try:
            return self._run(start, atomic, repeatable)
        except ConfigurationError:
            self._checked_by = None  # a right may have been taken away: what is left is asked before the next call
            raise

    async def arun(self, start: Start[T], *, atomic: bool = False, repeatable: bool = True) -> T:
        """Carry an operation out without blocking the event loop; see `run`."""
        await self._acheck()
        try:
            return await self._arun(start, atomic, repeatable)
        except ConfigurationError:
            self._checked_by = None
            raise

    def connect(self) -> Connection:
        """Open a connection of the caller's own to a schema that is as it should be; raises the driver's errors."""
        self._check()
        return self._pools.connect()

    async def aconnect(self) -> AsyncConnection:
        """Open an async connection of the caller's own; see `connect`."""
        await self._acheck()
        return await self._pools.aconnect()

    def as_carried_out(self, operation: Operation[T]) -> Operation[T]:
        """An operation as it is carried out on a schema like this one, on one server or spread over several."""
        return spread(operation) if self._is_spread else operation

    @property
    def is_spread(self) -> bool:
        """Whether its tables are on several servers; known once something was carried out."""
        return self._is_spread

    def pool_options(self) -> PoolOptions:
        """How connections to this database are made and kept."""
        return _options(self.settings)

    def close(self) -> None:
        """Close the connections of this process; a later call opens new ones."""
        if self.standby is not None:
            self.standby.close()
        self._pools.close()

    async def aclose(self) -> None:
        """Close the connections of this process; a later call opens new ones."""
        if self.standby is not None:
            await self.standby.aclose()
        await self._pools.aclose()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Database) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def __repr__(self) -> str:
        where = self.embedded.path if self.embedded else _without_secrets(self._given_url)
        read = "" if self._read_url is None else f", read_url={str(_without_secrets(self._read_url))!r}"
        return f"Database({str(where)!r}, schema={self.schema!r}{read})"

    def __getstate__(self) -> dict[str, Any]:
        """What another process gets: no secret that it has from its own settings; see `carrying`."""
        signed = self.settings.signing_key is not None
        carried = {
            "_given_url": to_carry(self._given_url),
            "_read_url": to_carry(self._read_url, "read_url"),
            "settings": without_secrets(self.settings),
        }
        return self._state() | carried | {"signed": signed}

    def __setstate__(self, state: dict[str, Any]) -> None:
        signed = state.pop("signed")
        vars(self).update(state)
        self._given_url = with_passwords(self._given_url)
        self._read_url = with_passwords(self._read_url, "read_url")
        self.settings = with_own_secrets(self.settings, signed)
        self._open()

    def __deepcopy__(self, _memo: dict[int, Any]) -> "Database":
        copy = object.__new__(Database)
        vars(copy).update(self._state())
        copy._open()
        return copy

    def _state(self) -> dict[str, Any]:
        state = vars(self) | {"_engine": None, "_async_engine": None}
        for name in ("_pools", "_checked_by", "sees_payloads", "place", "described", "standby", "following"):
            del state[name]
        return state

    def _identity(self) -> tuple[Any, ...]:
        return (self._given_url and without_passwords(self._given_url), self.embedded, self.schema)

    def _run(self, start: Start[T], atomic: bool, repeatable: bool) -> T:
        tries = Attempts(repeatable=repeatable)
        try:
            while True:
                if tries.distrustful:
                    self._pools.forget()
                with tries, self._pools.connection() as connection:
                    tries.connected = True
                    if not repeatable:
                        drive(connection, self.schema, ping())
                    tries.started = True
                    with _transaction(connection) if atomic else _NO_TRANSACTION:
                        return drive(connection, self.schema, self.as_carried_out(start(tries.repeated)), tries.note)
        finally:
            self._note_end(tries)

    async def _arun(self, start: Start[T], atomic: bool, repeatable: bool) -> T:
        tries = Attempts(repeatable=repeatable)
        try:
            while True:
                if tries.distrustful:
                    await self._pools.aforget()
                with tries:
                    async with self._pools.aconnection() as connection:
                        tries.connected = True
                        if not repeatable:
                            await adrive(connection, self.schema, ping())
                        tries.started = True
                        async with connection.transaction() if atomic else _NO_TRANSACTION:
                            operation = self.as_carried_out(start(tries.repeated))
                            return await adrive(connection, self.schema, operation, tries.note)
        finally:
            self._note_end(tries)

    def _note_end(self, tries: Attempts) -> None:
        """Have a call, however it ended, count among what a standby has to have followed."""
        if self.standby is not None and tries.changing:
            self.following.note_change()

    def _check(self) -> None:
        if self._checked_by == os.getpid():
            return
        found: Condition | None = None
        with suppress(SchemaVersionError):  # no tables of ours
            found = self._run(_condition, False, True)
        if not _is_current(found) and self._makes_its_tables():
            found = _upgraded(self.url(), self.schema)
        self._accept(found)

    def _makes_its_tables(self) -> bool:
        """Whether it is an embedded server, by whatever it was named."""
        return self.embedded is not None or is_embedded(str(self._given_url))

    async def _acheck(self) -> None:
        if self._checked_by == os.getpid():
            return
        found: Condition | None = None
        with suppress(SchemaVersionError):
            found = await self._arun(_condition, False, True)
        if not _is_current(found) and self._makes_its_tables():
            found = await asyncio.to_thread(_upgraded, await self.aurl(), self.schema)
        self._accept(found)

    def _accept(self, found: Condition | None) -> None:
        require_current(found and found.revision, self.schema)
        self.sees_payloads = found is not None and found.sees_payloads
        self._is_spread = found is not None and found.is_spread
        self._checked_by = os.getpid()


class _Standby(Database):
    """A standby: it makes no tables, and is not waited for where it cannot be reached, for its primary may be.

    Parameters:
        url: where it is.
        schema: the schema that holds the tables.
        settings: those of its primary.
    """

    def __init__(self, url: URL, schema: str, settings: Settings) -> None:
        timeout = min(settings.connect_timeout, _PATIENCE)
        super().__init__(url, schema, settings.model_copy(update={"connect_timeout": timeout}))

    def _makes_its_tables(self) -> bool:
        return False


def _is_current(found: Condition | None) -> bool:
    return found is not None and found.revision == REVISION


def _upgraded(url: URL, schema: str) -> Condition:
    """Bring the schema of a server of our own to this code's revision, and say which it is."""
    from pgresults.database.migrations import upgrade

    return Condition(upgrade(url, schema), sees_payloads=True)


@contextmanager
def _transaction(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """A transaction on a connection of our own; in mid-conversation it can only be closed, not rolled back."""
    with connection.transaction():
        try:
            yield
        except BaseException as error:
            if is_interruption(error):
                connection.close()
            raise


def _condition(_: bool) -> Operation[Condition | None]:
    return condition()


def _without_secrets(url: URL | None) -> URL | None:
    """The URL without what may be secret in its query; its text hides the password itself."""
    return url and url.set(query={name: value for name, value in url.query.items() if name in ("host", "port")})


def _options(settings: Settings) -> PoolOptions:
    return PoolOptions(
        settings.pool_size,
        settings.pool_overflow,
        settings.connect_timeout,
        settings.response_timeout,
        settings.prepare_statements,
        settings.pool_max_idle,
        settings.pool_max_lifetime,
    )


def _embedded(target: Target) -> EmbeddedPostgres | None:
    if isinstance(target, EmbeddedPostgres):
        return target
    return EmbeddedPostgres(target) if isinstance(target, Path) else None
