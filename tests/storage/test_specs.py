"""What names a storage: everything that `PostgresStorage` takes, and advice where something else was meant."""

from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import URL, create_engine

from pgresults import EmbeddedPostgres, PostgresStorage, ResultStore, flow, resolve_result_storage, task
from pgresults.cache_policies import INPUTS
from pgresults.database import migrations
from pgresults.errors import ConfigurationError, InvalidArgument
from pgresults.locking import PostgresLockManager
from pgresults.results import get_default_result_serializer, resolve_serializer
from pgresults.settings import temporary_settings
from tests.support.calls import Call
from tests.support.database import psycopg_url


async def test_an_embedded_server_is_a_storage(tmp_path: Path, call: Call) -> None:
    server = EmbeddedPostgres(tmp_path / "server")
    try:
        store = ResultStore(result_storage=server)
        await call(store, "write", 1, key="k")
        for same in (server, server.path, server.url, PostgresStorage(server), PostgresStorage(server.url)):
            assert (await call(ResultStore(result_storage=same), "read", "k")).result == 1
        assert resolve_result_storage(server) == PostgresStorage(server)
    finally:
        server.stop()


def test_the_url_of_a_new_embedded_server_names_its_tables(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "a directory, with a name")
    try:
        ResultStore(result_storage=server.url).write(1, key="k")
        assert ResultStore(result_storage=server).read("k").result == 1
    finally:
        server.stop()


@pytest.mark.parametrize("path", ["./results", "../results", "/var/results", "~/results", ".pgresults", r"C:\results"])
def test_a_text_that_is_a_directory_is_to_be_a_path(path: str) -> None:
    for use in (
        lambda: resolve_result_storage(path),
        lambda: task(result_storage=path)(print),
        lambda: flow(result_storage=path)(print),
        lambda: INPUTS.configure(key_storage=path),
        lambda: ResultStore(result_storage=path),
        lambda: ResultStore(metadata_storage=path),
    ):
        with pytest.raises(ValueError, match=r"give Path\("):
            use()
    with pytest.raises(ConfigurationError, match=r"a directory is given as a Path"):
        PostgresStorage(path)


def test_a_name_with_a_slash_that_is_not_registered_may_have_been_meant_otherwise(shared_url: URL) -> None:
    with temporary_settings(database_url=psycopg_url(shared_url)):
        name = f"local-file-system/{uuid4().hex}"
        with pytest.raises(
            ConfigurationError, match=r"given as Path\(.*block of Prefect's as the block that was loaded"
        ):
            resolve_result_storage(name)
        PostgresStorage(shared_url, name).save()
        assert resolve_result_storage(name).name == name  # type: ignore[union-attr]


def test_an_engine_goes_into_a_storage(shared_url: URL) -> None:
    engine = create_engine(shared_url.set(drivername="postgresql+psycopg"))
    with pytest.raises(TypeError, match=r"PostgresStorage\(engine\)"):
        resolve_result_storage(engine)


def test_a_storage_has_the_schema_of_the_settings(fresh_url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGRESULTS_DATABASE_SCHEMA", "team")
    migrations.upgrade(fresh_url.set(drivername="postgresql+psycopg"), "team")
    storage = PostgresStorage(fresh_url)
    assert storage.schema == PostgresLockManager(fresh_url).database.schema == "team"
    assert PostgresStorage(fresh_url, schema="pgresults").schema == "pgresults"
    ResultStore(result_storage=storage).write(1, key="k")
    assert ResultStore(result_storage=psycopg_url(fresh_url)).read("k").result == 1
    assert not ResultStore(result_storage=PostgresStorage(fresh_url, schema="pgresults")).exists("k")
    storage.close()


def test_an_unknown_serializer_is_refused_with_those_there_are(storage: PostgresStorage) -> None:
    advice = r"unknown serializer type 'parquet'; the known types are arrow, bytes, compressed.* subclass of"
    with pytest.raises(ConfigurationError, match=advice):
        ResultStore(serializer="parquet")
    with pytest.raises(InvalidArgument, match=advice):
        resolve_serializer("parquet")
    with pytest.raises(TypeError, match="a Serializer or the type of one, not int"):
        ResultStore(serializer=5)

    @task(result_storage=storage, result_serializer="parquet", cache_policy=INPUTS)
    def load(number: int) -> int:
        return number

    with pytest.raises(InvalidArgument, match=advice):
        load(1)
    with temporary_settings(results__default_serializer="parquet"), pytest.raises(InvalidArgument, match=advice):
        get_default_result_serializer()
