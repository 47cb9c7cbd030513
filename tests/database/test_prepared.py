"""Statements on connections of our own: prepared once common, and left usable by every failure."""

import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg.abc import PQGen

from pgresults.database.connections import AsyncConnection, Connection
from pgresults.database.engines import is_idle
from pgresults.settings import Settings
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore

Wait = Callable[[PQGen[Any]], Awaitable[Any]]

_NAMES = b"SELECT statement FROM pg_prepared_statements ORDER BY name"


@pytest.fixture(params=["sync", "async"])
async def own(request: pytest.FixtureRequest, storage: PostgresStorage) -> AsyncIterator[Connection | AsyncConnection]:
    """A connection of ours, of either kind."""
    database = storage.database
    connection = database.connect() if request.param == "sync" else await database.aconnect()
    yield connection
    if isinstance(connection, Connection):
        connection.close()
    else:
        await connection.close()


@pytest.fixture
def wait(own: Connection | AsyncConnection) -> Wait:
    """Waits for a conversation with the server."""

    async def wait(talk: PQGen[Any]) -> Any:
        return own.wait(talk) if isinstance(own, Connection) else await own.wait(talk)

    return wait


async def test_values_and_rows_are_what_a_cursor_makes_of_them(own: Any, wait: Wait) -> None:
    values = ["é", 1, 2**40, None, b"\0\xff", uuid4(), ["a", None], [b"\\"]]
    query = b"SELECT $1::text, $2::int2, $3::int8, $4::text, $5::bytea, $6::uuid, $7::text[], $8::bytea[]"
    for _ in range(10):
        assert await wait(own.statements.fetch(query, values)) == [tuple(values)]
    assert await wait(own.statements.fetch(b"SELECT FROM pg_class LIMIT 2", [])) == [(), ()]
    assert await wait(own.statements.fetch(b"SET application_name = 'x'", [])) == []


async def test_what_is_common_is_prepared_once(own: Any, wait: Wait) -> None:
    for number in range(20):
        assert await wait(own.statements.fetch(b"SELECT $1::int + 1", [number])) == [(number + 1,)]
    assert (await wait(own.statements.fetch(_NAMES, []))) == [("SELECT $1::int + 1",)]


async def test_nothing_is_prepared_where_a_pooler_could_not_keep_it(shared_url: Any) -> None:
    storage = PostgresStorage(shared_url, settings=Settings(prepare_statements=False))
    with storage.database.connect() as own:
        own.wait(own.statements.fetch_first(b"SELECT $1::int", [[number] for number in range(20)]))
        assert own.wait(own.statements.fetch(_NAMES, [])) == []


async def test_many_are_one_conversation(own: Any, wait: Wait) -> None:
    many = [[number, "x" * 10_000] for number in range(300)]
    rows = await wait(own.statements.fetch_first(b"SELECT $1::int, length($2::text)", many))
    assert rows == [(number, 10_000) for number in range(300)]
    nothing = await wait(own.statements.fetch_first(b"SELECT 1 WHERE $1::int = 1", [[1], [2]]))
    assert nothing == [(1,), ()]
    assert await wait(own.statements.fetch_first(b"SELECT 1", [])) == []


async def test_many_large_ones_are_sent_to_the_end(call: Any, store: ResultStore) -> None:
    items = {f"k{number}": os.urandom(900_000) for number in range(8)}
    await call(store, "write_many", items)
    assert {key: one.result for key, one in (await call(store, "read_many", items)).items()} == items


async def test_a_connection_left_in_a_pipeline_is_not_idle(own: Any) -> None:
    talk = own.statements.fetch_first(b"SELECT $1::int", [[1], [2]])
    next(talk)
    talk.close()
    assert not is_idle(own)


@pytest.mark.parametrize("failing", range(8))
async def test_a_failure_leaves_the_connection_of_use(own: Any, wait: Wait, failing: int) -> None:
    for number in range(failing):  # before it is prepared, and after
        await wait(own.statements.fetch(b"SELECT 1 / $1::int", [number + 1]))
    with pytest.raises(psycopg.errors.DivisionByZero) as caught:
        await wait(own.statements.fetch(b"SELECT 1 / $1::int", [0]))
    assert caught.value.diag.message_primary == "division by zero"
    assert await wait(own.statements.fetch(b"SELECT 1 / $1::int", [1])) == [(1,)]


@pytest.mark.parametrize("failing", [0, 1, 99])
async def test_a_failure_among_many_leaves_the_connection_of_use(own: Any, wait: Wait, failing: int) -> None:
    many = [[0 if number == failing else 1] for number in range(100)]
    with pytest.raises(psycopg.errors.DivisionByZero):
        await wait(own.statements.fetch_first(b"SELECT 1 / $1::int", many))
    assert await wait(own.statements.fetch_first(b"SELECT 1 / $1::int", [[1], [1]])) == [(1,), (1,)]


async def test_a_statement_that_is_none_leaves_the_connection_of_use(own: Any, wait: Wait) -> None:
    for _ in range(8):
        with pytest.raises(psycopg.errors.SyntaxError):
            await wait(own.statements.fetch(b"SELEKT", []))
        with pytest.raises(psycopg.errors.SyntaxError):
            await wait(own.statements.fetch_first(b"SELEKT", [[], []]))
    assert await wait(own.statements.fetch(b"SELECT 1", [])) == [(1,)]


def test_what_is_prepared_survives_a_rollback(storage: PostgresStorage) -> None:
    def count_up(own: Connection) -> None:
        own.wait(own.statements.fetch_first(b"SELECT $1::int", [[number] for number in range(10)]))

    with storage.database.connect() as own:
        for _ in range(3):
            with suppress(ZeroDivisionError), own.transaction():
                count_up(own)
                raise ZeroDivisionError
        count_up(own)
        assert own.wait(own.statements.fetch(_NAMES, [])) == [("SELECT $1::int",)]


@pytest.mark.parametrize("forget", ["DEALLOCATE ALL", "DISCARD ALL"])
async def test_a_session_that_forgot_is_used_on(call: Any, store: ResultStore, forget: str) -> None:
    for number in range(10):
        await call(store, "write", number, key="k")
        await call(store, "write_many", {"a": number, "b": number})
    database = store.result_storage.database
    with database._pools.connection() as own:
        own.execute(forget)
    async with database._pools.aconnection() as other:
        await other.execute(forget)
    await call(store, "write_many", {"a": 7, "b": 7})
    with database._pools.connection() as own:
        own.execute(forget)
    assert (await call(store, "write", 7, key="k")).version == 11
    assert (await call(store, "read", "k")).result == 7
    assert store.verify().intact


async def test_a_statement_that_gives_other_types_now_fails_once(own: Any, wait: Wait) -> None:
    await wait(own.statements.fetch(b"CREATE TEMPORARY TABLE changing AS SELECT 1 AS n", []))
    for _ in range(10):
        assert await wait(own.statements.fetch(b"SELECT * FROM changing", [])) == [(1,)]
    await wait(own.statements.fetch(b"ALTER TABLE changing ALTER n TYPE text", []))
    with pytest.raises(psycopg.errors.FeatureNotSupported):
        await wait(own.statements.fetch(b"SELECT * FROM changing", []))
    assert await wait(own.statements.fetch(b"SELECT * FROM changing", [])) == [("1",)]


def test_an_interrupted_preparation_costs_nothing_but_its_name(storage: PostgresStorage) -> None:
    with storage.database.connect() as own:
        fetch = own.statements.fetch
        for _ in range(5):
            own.wait(fetch(b"SELECT 7", []))
        talk = fetch(b"SELECT 7", [])
        next(talk)  # the preparation is under way, and its answer is never looked at
        while own.pgconn.get_result() is not None:
            pass
        assert [own.wait(fetch(b"SELECT 7", [])) for _ in range(3)] == [[(7,)]] * 3


def test_bytes_in_arrays_arrive_while_other_connections_are_opened(storage: PostgresStorage) -> None:
    """Libpq quotes bytes without a connection as the one wants it that was opened last, or is just being opened."""
    done = threading.Event()

    def open_others() -> None:
        while not done.is_set():
            storage.database.connect().close()

    with ThreadPoolExecutor(1) as pool, storage.database.connect() as own:
        others = pool.submit(open_others)
        try:
            for _ in range(500):
                data = [os.urandom(32), b"\\x00'\0"]
                assert own.wait(own.statements.fetch(b"SELECT $1::bytea[]", [data])) == [(data,)]
        finally:
            done.set()
        others.result()
