"""Transactions on a connection of the caller's: results go with the caller's rows."""

# ruff: noqa: PT012 (what fails is the end of a block)

import asyncio
import threading
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import URL, create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from pgresults.errors import ConfigurationError, LockLostError
from pgresults.store import ResultStore
from pgresults.transactions import transaction
from tests.support.database import psycopg_url
from tests.support.transactions import READ_COMMITTED, SERIALIZABLE, Failure, held, stored


class Callers:
    """A caller's table and connection of some kind."""

    def __init__(self, url: URL, kind: str) -> None:
        self.url, self.kind = url, kind
        self.table = f"business_{uuid4().hex}"
        with psycopg.connect(psycopg_url(url), autocommit=True) as connection:
            connection.execute(f"CREATE TABLE {self.table} (n int)")

    @property
    def insert(self) -> str:
        return f"INSERT INTO {self.table} VALUES (1)"

    @asynccontextmanager
    async def connected(self) -> Any:
        """The connection, and how to execute, commit and roll back on it."""
        match self.kind:
            case "psycopg":
                with psycopg.connect(psycopg_url(self.url)) as connection:
                    yield connection
            case "psycopg async":
                async with await psycopg.AsyncConnection.connect(psycopg_url(self.url)) as connection:
                    yield connection
            case "Connection":
                engine = create_engine(self.url.set(drivername="postgresql+psycopg"))
                with engine.connect() as connection:
                    yield connection
                engine.dispose()
            case "Session":
                engine = create_engine(self.url.set(drivername="postgresql+psycopg"))
                with Session(engine) as session:
                    yield session
                engine.dispose()
            case "AsyncConnection":
                engine = create_async_engine(self.url.set(drivername="postgresql+psycopg"))
                async with engine.connect() as connection:
                    yield connection
                await engine.dispose()
            case "AsyncSession":
                engine = create_async_engine(self.url.set(drivername="postgresql+psycopg"))
                async with AsyncSession(engine) as session:
                    yield session
                await engine.dispose()

    async def execute(self, connection: Any, query: str) -> None:
        await self._maybe(connection.execute(query if self.kind.startswith("psycopg") else text(query)))

    async def end(self, connection: Any, how: str) -> None:
        await self._maybe(getattr(connection, how)())

    async def _maybe(self, outcome: Any) -> None:
        if hasattr(outcome, "__await__"):
            await outcome

    @asynccontextmanager
    async def enter(self, *arguments: Any, **options: Any) -> Any:
        if "sync" in self.kind.lower():
            async with transaction(*arguments, **options) as txn:
                yield txn
        else:
            with transaction(*arguments, **options) as txn:
                yield txn

    def rows(self) -> int:
        with psycopg.connect(psycopg_url(self.url)) as connection:
            return connection.execute(f"SELECT count(*) FROM {self.table}").fetchone()[0]


KINDS = ["psycopg", "psycopg async", "Connection", "Session", "AsyncConnection", "AsyncSession"]


@pytest.fixture(params=KINDS)
def caller(request: pytest.FixtureRequest, shared_url: URL) -> Callers:
    return Callers(shared_url, request.param)


class TestCallers:
    @pytest.mark.parametrize("ending", ["commit", "rollback"])
    @pytest.mark.parametrize("before", [True, False], ids=["begun", "idle"])
    async def test_results_go_with_the_callers_rows(
        self, caller: Callers, guarded: ResultStore, ending: str, before: bool
    ) -> None:
        async with caller.connected() as connection:
            if before:
                await caller.execute(connection, caller.insert)
            async with caller.enter("a", guarded, isolation_level=SERIALIZABLE, connection=connection) as root:
                root.stage(1)
                async with caller.enter("b") as child:
                    child.stage(2)
                assert child.connection is connection
            if not before:
                await caller.execute(connection, caller.insert)
            assert root.is_committed()
            assert not guarded.exists("a")
            await caller.end(connection, ending)
        there = ending == "commit"
        assert caller.rows() == there
        assert stored(guarded, "a", "b") == ({"a": 1, "b": 2} if there else {})
        assert not guarded.is_locked("a")
        assert guarded.acquire_lock("a", "next", timeout=5)

    async def test_a_failure_leaves_the_callers_rows_alone(self, caller: Callers, guarded: ResultStore) -> None:
        async with caller.connected() as connection:
            await caller.execute(connection, caller.insert)
            with pytest.raises(LockLostError):
                async with caller.enter("a", guarded, isolation_level=SERIALIZABLE, connection=connection) as root:
                    grant = guarded.lock_manager._grant("a", root.holder)
                    with psycopg.connect(psycopg_url(caller.url), autocommit=True) as taker:
                        taker.execute("UPDATE pgresults.lock SET token = %s WHERE token = %s", [uuid4(), grant.token])
                    async with caller.enter("0", guarded, isolation_level=READ_COMMITTED) as child:
                        child.stage(2)  # its key comes first: it is written when the other is refused
                    root.stage(1)
            await caller.execute(connection, caller.insert)
            await caller.end(connection, "commit")
        assert caller.rows() == 2
        assert stored(guarded, "0", "a") == {}

    async def test_an_exception_leaves_them_alone_too(self, caller: Callers, store: ResultStore) -> None:
        async with caller.connected() as connection:
            await caller.execute(connection, caller.insert)
            with pytest.raises(Failure):
                async with caller.enter("a", store, connection=connection) as txn:
                    txn.stage(1)
                    raise Failure
            await caller.end(connection, "commit")
        assert (caller.rows(), stored(store, "a")) == (1, {})

    @pytest.mark.timeout(30)
    async def test_who_wants_the_lock_waits_for_the_callers_end(self, caller: Callers, guarded: ResultStore) -> None:
        locks = guarded.lock_manager
        async with caller.connected() as connection:
            async with caller.enter("a", guarded, isolation_level=SERIALIZABLE, connection=connection) as txn:
                txn.stage(1)
            assert await locks.aacquire_lock("a", "impatient", 0) is False
            waiting = asyncio.create_task(asyncio.to_thread(locks.acquire_lock, "a", "next"))
            assert await asyncio.to_thread(locks.acquire_lock, "other", "caller", 10) is True
            assert await locks.aacquire_lock("another", "caller", 10) is True
            await caller.end(connection, "commit")
        assert await waiting is True

    @pytest.mark.parametrize("kind", ["psycopg", "psycopg async"])
    async def test_in_autocommit_it_is_a_transaction_of_its_own(
        self, store: ResultStore, shared_url: URL, kind: str
    ) -> None:
        caller = Callers(shared_url, kind)
        async with caller.connected() as connection:
            await caller._maybe(connection.set_autocommit(True))
            async with caller.enter("a", store, connection=connection) as root:
                root.stage(1)
            assert stored(store, "a") == {"a": 1}
            assert connection.pgconn.transaction_status == psycopg.pq.TransactionStatus.IDLE

    @pytest.mark.parametrize("wrong", [object(), "postgresql://", 1, threading])
    def test_what_is_no_connection_is_refused(self, store: ResultStore, wrong: Any) -> None:
        with pytest.raises(ConfigurationError, match="SQLAlchemy Connection"):
            transaction("k", store, connection=wrong)

    async def test_the_other_kind_is_refused(self, caller: Callers, guarded: ResultStore, connection: Any) -> None:
        async with caller.connected() as theirs:
            with pytest.raises(ConfigurationError, match=r"async|sync"):
                if "sync" in caller.kind.lower():
                    with transaction("a", guarded, isolation_level=SERIALIZABLE, connection=theirs) as txn:
                        txn.stage(1)
                else:
                    async with transaction("a", guarded, isolation_level=SERIALIZABLE, connection=theirs) as txn:
                        txn.stage(1)
        assert stored(guarded, "a") == {}
        assert held(connection, guarded) == []
