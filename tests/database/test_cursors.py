"""Cursors serve on connections of our own where psycopg lacks a part that `PreparedStatements` is made of."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import URL, make_url

from pgresults.database import migrations, prepared
from pgresults.errors import SchemaVersionError, StorageUnavailable
from pgresults.server.embedded import EmbeddedPostgres
from pgresults.settings import Settings
from pgresults.storage import PostgresStorage
from pgresults.store.store import ResultStore
from tests.support.proxy import Proxy

FUNCTIONS = [
    "psycopg.errors:error_from_result",
    "psycopg.generators:execute",
    "psycopg.generators:fetch_many",
    "psycopg.generators:pipeline_communicate",
    "psycopg.generators:send",
]
METHODS = [
    "psycopg.adapt:Transformer.dump_sequence",
    "psycopg.adapt:Transformer.load_rows",
    "psycopg.adapt:Transformer.set_pgresult",
    "psycopg.pq:PGconn.enter_pipeline_mode",
    "psycopg.pq:PGconn.exit_pipeline_mode",
    "psycopg.pq:PGconn.pipeline_sync",
    "psycopg.pq:PGconn.send_prepare",
    "psycopg.pq:PGconn.send_query_params",
    "psycopg.pq:PGconn.send_query_prepared",
]
OTHERS = [
    "psycopg.adapt:PyFormat",
    "psycopg.adapt:Transformer",
    "psycopg.adapt:Transformer.formats",
    "psycopg.adapt:Transformer.types",
    "psycopg.generators:",
]
CALLS = {"exists": ["k"], "read": ["k"], "write": [1, "k"], "write_many": [{"k": 1}], "delete": ["k"]}
EXAMPLES = {"psycopg.generators:", METHODS[-1]}


@pytest.mark.parametrize(
    "part",
    [
        pytest.param(part, marks=[] if part in EXAMPLES else pytest.mark.slow)
        for part in sorted(FUNCTIONS + METHODS + OTHERS)
    ],
)
def test_a_store_works_without_a_part(part: str, shared_url: URL) -> None:
    program = Path(__file__).with_name("lesser_psycopg.py")
    url = shared_url.render_as_string(hide_password=False)
    subprocess.run([sys.executable, str(program), part, url, f"test-{uuid4().hex}"], check=True)


@pytest.fixture
def put(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Any], None]:
    """Puts something else in the place of a part."""

    def put(part: str, replacement: Any) -> None:
        name, _, attribute = part.partition(":")[2].partition(".")
        if attribute:
            changes = {attribute: replacement, "connect_start": classmethod(lambda cls, _: cls())}
            replacement = type(name, (getattr(prepared, name),), changes)
        monkeypatch.setattr(prepared, name, replacement)

    return put


def test_this_psycopg_has_all_parts() -> None:
    assert prepared.AVAILABLE


@pytest.mark.parametrize("part", FUNCTIONS + METHODS)
def test_a_part_that_takes_something_else_is_of_no_use(part: str, put: Any) -> None:
    put(part, lambda: None)
    assert not prepared._rehearsed()


@pytest.mark.parametrize("part", ["psycopg.adapt:Transformer.as_literal", "psycopg.pq:PGconn.trace"])
def test_what_is_not_used_may_be_anything(part: str, put: Any) -> None:
    put(part, None)
    assert prepared._rehearsed()


def test_a_libpq_without_pipelines_is_left_to_cursors(put: Any) -> None:
    def refuse(_: object) -> None:
        raise psycopg.NotSupportedError

    put("psycopg.pq:PGconn.enter_pipeline_mode", refuse)
    assert not prepared._rehearsed()


@pytest.fixture
def cursors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has cursors serve, and nothing else."""
    monkeypatch.setattr(prepared, "AVAILABLE", False)
    monkeypatch.delattr(prepared.PreparedStatements, "fetch")
    monkeypatch.delattr(prepared.PreparedStatements, "fetch_first")


@pytest.mark.usefixtures("cursors")
class TestFaults:
    async def test_a_missing_schema_is_named(self, call: Any, empty_url: URL) -> None:
        storage = PostgresStorage(empty_url)
        with pytest.raises(SchemaVersionError):
            await call(ResultStore(result_storage=storage), "exists", "k")
        await storage.aclose()

    async def test_a_schema_that_goes_away_is_named(self, call: Any, fresh_url: URL) -> None:
        storage = PostgresStorage(fresh_url)
        store = ResultStore(result_storage=storage)
        await call(store, "write", 1, key="k")
        with storage.database.connect() as own:
            own.execute("DROP SCHEMA pgresults CASCADE")
        for method, arguments in CALLS.items():
            with pytest.raises(SchemaVersionError):
                await call(store, method, *arguments)
        await storage.aclose()

    @pytest.mark.slow
    async def test_an_outage_is_one_until_it_ends(self, call: Any, server: EmbeddedPostgres) -> None:
        migrations.upgrade(make_url(server.url))
        storage = PostgresStorage(server.url)
        store = ResultStore(result_storage=storage)
        await call(store, "write", 1, key="k")
        server.stop()
        for method, arguments in CALLS.items():
            with pytest.raises(StorageUnavailable):
                await call(store, method, *arguments)
        server.ensure_running()
        assert (await call(store, "read", "k")).result == 1
        await storage.aclose()

    async def test_a_silence_is_ended(self, call: Any, fresh_url: URL) -> None:
        with Proxy(fresh_url) as proxy:
            storage = PostgresStorage(proxy.url, settings=Settings(response_timeout=1))
            store = ResultStore(result_storage=storage)
            await call(store, "write", 1, key="k")
            proxy.silent = True
            with pytest.raises(StorageUnavailable, match="not answered") as failure:
                await call(store, "write", 2, key="k")
            assert failure.value.outcome_unknown
            proxy.silent = False
            assert await call(store, "exists", "k")
            await storage.aclose()
