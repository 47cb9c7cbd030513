"""A real Postgres for every test: the embedded server, or the one that ``PGRESULTS_TEST_DATABASE_URL`` names."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import hypothesis
import psycopg
import pytest
from psycopg import sql
from sqlalchemy import URL, make_url

from pgresults.database import migrations
from pgresults.errors import ConfigurationError
from pgresults.locking import memory
from pgresults.server import binaries
from pgresults.server.embedded import EmbeddedPostgres
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support import citus, elsewhere
from tests.support.calls import Call
from tests.support.database import psycopg_url

pytest_plugins = ["tests.support.prefect_fixtures"]

# An example may wait for a busy machine: what must be fast is measured in benchmarks.
hypothesis.settings.register_profile("pgresults", deadline=None)
hypothesis.settings.load_profile("pgresults")

_URL = "PGRESULTS_TEST_DATABASE_URL"
_DIRECTORY = "PGRESULTS_TEST_DIRECTORY"
_IS_SPREAD = citus.VARIABLE in os.environ
"""Whether the tests run on a Citus cluster."""
if _IS_SPREAD:
    os.environ.setdefault("PGSSLMODE", "disable")  # some listen to a connection, which Citus has encrypted


def pytest_configure(config: pytest.Config) -> None:
    """Name the run's directory before workers start; they inherit it."""
    if not hasattr(config, "workerinput") and not {_URL, citus.VARIABLE} & set(os.environ):
        os.environ[_DIRECTORY] = tempfile.mkdtemp(prefix="pgresults-tests-")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Expect on a cluster what can only be said of one server to fail."""
    for item in items if _IS_SPREAD else ():
        if reason := elsewhere.why(item.nodeid.removeprefix("tests/")):
            item.add_marker(pytest.mark.xfail(reason=reason, strict=False))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the run's server when the last worker is done."""
    if not hasattr(config, "workerinput") and _DIRECTORY in os.environ:
        directory = Path(os.environ.pop(_DIRECTORY))
        if (directory / "server").exists():
            EmbeddedPostgres(directory / "server").stop()
        shutil.rmtree(directory)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the machine reaches a test."""
    for name in list(os.environ):
        if name.startswith("PGRESULTS_") and not name.startswith("PGRESULTS_TEST_"):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _locks_in_memory() -> Iterator[None]:
    """What a test leaves locked in memory, of which there is one for the process, is free for the next."""
    yield
    memory._LOCKS.held.clear()


@pytest.fixture(scope="session")
def server_url() -> URL:
    """The server's maintenance database, as a superuser or a user who may create databases."""
    for variable in (_URL, citus.VARIABLE):
        if variable in os.environ:
            return make_url(os.environ[variable])
    url = make_url(EmbeddedPostgres(Path(os.environ[_DIRECTORY]) / "server").url)
    for setting in ("fsync", "full_page_writes"):  # it ends with the run, and no test cuts its power
        _execute(url, "ALTER SYSTEM SET {} = off", setting)
    _execute(url, "SELECT pg_reload_conf()")
    return url


def _execute(url: URL, statement: str, *names: str) -> None:
    with psycopg.connect(psycopg_url(url), autocommit=True) as connection:
        connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


def _drop(server: URL, name: str) -> None:
    """Drop a database, unless its server goes with the run."""
    if _DIRECTORY not in os.environ:
        _execute(server, "DROP DATABASE {} WITH (FORCE)", name)


@pytest.fixture(scope="session")
def template(server_url: URL) -> Iterator[str]:
    """A migrated database to clone; nobody connects to it."""
    if _IS_SPREAD:
        yield ""  # a database on several servers cannot be cloned
        return
    name = f"pgresults_template_{uuid4().hex[:12]}"
    _execute(server_url, "CREATE DATABASE {}", name)
    migrations.upgrade(server_url.set(database=name, drivername="postgresql+psycopg"))
    yield name
    _drop(server_url, name)


@pytest.fixture(scope="session")
def create_database(server_url: URL, template: str) -> Iterator[Callable[[], URL]]:
    """Clones the migrated template into a new database."""
    created: list[str] = []

    def create() -> URL:
        created.append(f"pgresults_test_{uuid4().hex[:12]}")
        if _IS_SPREAD:
            return citus.create_spread(server_url, created[-1])
        _execute(server_url, "CREATE DATABASE {} TEMPLATE {}", created[-1], template)
        return server_url.set(database=created[-1])

    yield create
    for name in created:
        if _IS_SPREAD:
            citus.drop(server_url, name)
        else:
            _drop(server_url, name)


@pytest.fixture(scope="session")
def shared_url(create_database: Callable[[], URL]) -> URL:
    """A migrated database that the tests of a worker share; each has a storage of its own in it."""
    return create_database()


@pytest.fixture
def fresh_url(request: pytest.FixtureRequest, server_url: URL) -> Iterator[URL]:
    """A migrated database for one test that changes more than its own storage."""
    if _IS_SPREAD:  # each keeps connections between the servers
        url = citus.create_spread(server_url, f"pgresults_test_{uuid4().hex[:12]}")
        yield url
        citus.drop(server_url, str(url.database))
        return
    yield request.getfixturevalue("create_database")()


@pytest.fixture
def admin(fresh_url: URL) -> Iterator[psycopg.Connection[Any]]:
    """Whoever may do everything in the database of `fresh_url`."""
    with psycopg.connect(psycopg_url(fresh_url), autocommit=True) as connection:
        yield connection


@pytest.fixture
def empty_url(server_url: URL) -> Iterator[URL]:
    """A database without the schema."""
    name = f"pgresults_empty_{uuid4().hex[:12]}"
    if _IS_SPREAD:
        yield citus.create(server_url, name)
        citus.drop(server_url, name)
        return
    _execute(server_url, "CREATE DATABASE {}", name)
    yield server_url.set(database=name)
    _drop(server_url, name)


@pytest.fixture
def storage(shared_url: URL) -> Iterator[PostgresStorage]:
    """An empty storage of the test's own."""
    storage = PostgresStorage(shared_url, name=f"test-{uuid4().hex}")
    yield storage
    storage.close()


@pytest.fixture
def store(storage: PostgresStorage) -> ResultStore:
    """A store on an empty storage."""
    return ResultStore(result_storage=storage)


@pytest.fixture
def guarded(storage: PostgresStorage) -> ResultStore:
    """A store on an empty storage, whose keys can be locked."""
    return ResultStore(result_storage=storage, lock_manager=storage.lock_manager())


@pytest.fixture
def connection(storage: PostgresStorage) -> Iterator[psycopg.Connection[Any]]:
    """A plain connection to the storage's database, to look behind the store's back or to tamper."""
    with psycopg.connect(psycopg_url(storage.database.url()), autocommit=True) as connection:
        yield connection


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    """A server of the test's own, which it may kill."""
    try:
        binaries.bin_directory()
    except ConfigurationError:
        pytest.skip("the extra 'embedded' is not installed: there is no server that a test may kill")
    server = EmbeddedPostgres(tmp_path / "server")
    server.ensure_running()
    yield server
    server.stop()


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest) -> Call:
    """Calls a method by its sync name: as it is, or its async twin. The conformance tests run over both."""

    async def call(target: Any, name: str, *args: Any, **options: Any) -> Any:
        if request.param == "sync":
            return getattr(target, name)(*args, **options)
        twin = "await_for_lock" if name == "wait_for_lock" else f"a{name}"
        return await getattr(target, twin)(*args, **options)

    return call


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what came of the faults: a row for each."""
    reports = [report for name in ("passed", "failed") for report in terminalreporter.getreports(name)]
    rows = sorted(tuple(said) for report in reports for name, said in report.user_properties if name == "fault")
    if rows:
        terminalreporter.section("faults: rounds, acknowledged, lost, stuck")
        for fault, *numbers in rows:
            terminalreporter.write_line(" | ".join([fault, *(f"{number:,}" for number in numbers)]))
