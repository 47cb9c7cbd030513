"""Every tampering of the table in ``docs/audit.md`` is found by what the table says, and by nothing less."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import URL

from pgresults.audit.house import compare
from pgresults.database.driver import drive
from pgresults.operations.house import look
from pgresults.settings import Settings
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.audit.tamperings import AROUND, OFF, ON, ROWS, SEALED, TAMPERINGS, UNFOUND, Tampering
from tests.support.database import psycopg_url
from tests.support.sealing import TOMORROW, seal_over

PAGE = Path(__file__).parents[2] / "docs" / "audit.md"


def _what(one: Tampering) -> str:
    return one.what


@pytest.fixture(scope="module")
def tampered(create_database: Callable[[], URL]) -> Iterator[psycopg.Connection[Any]]:
    """A superuser's connection to a database whose history was open once."""
    with psycopg.connect(psycopg_url(create_database()), autocommit=True) as connection:
        connection.execute("SELECT pgresults.maintenance('it was needed')")
        yield connection


@pytest.fixture
def store(create_database: Any, tampered: psycopg.Connection[Any], server_url: URL, tmp_path: Path) -> Any:
    """Some history of its own in it."""
    url = server_url.set(database=tampered.info.dbname)
    storage = PostgresStorage(url, name=f"test-{uuid4().hex}", settings=Settings(seal_key=tmp_path / "seal.pem"))
    store = ResultStore(result_storage=storage)
    store.write_many([("k1", 1), ("k2", 1), ("k3", 1)])
    store.write(2, key="k2")
    store.touch("k2", TOMORROW)
    store.touch("k3", TOMORROW)
    yield store
    tampered.execute(f"{OFF} DELETE FROM pgresults.history WHERE key LIKE 'hold/%'; {ON}")
    storage.close()


def _tamper(connection: psycopg.Connection[Any], store: ResultStore, tampering: Tampering) -> None:
    with connection.transaction():
        connection.execute(tampering.sql.replace(" ID", f" '{store.result_storage.id}'").encode())


@pytest.mark.parametrize("tampering", ROWS, ids=_what)
def test_altered_rows_are_found(tampered: Any, store: ResultStore, tampering: Tampering) -> None:
    assert store.verify().findings == ()
    _tamper(tampered, store, tampering)
    findings = store.verify().findings
    assert tampering.found in {finding.kind for finding in findings}, findings


@pytest.mark.parametrize("tampering", AROUND, ids=_what)
def test_what_is_around_them_is_compared(tampered: Any, tampering: Tampering) -> None:
    with tampered.transaction(force_rollback=True):
        assert compare(drive(tampered, "pgresults", look("pgresults")), "pgresults") == []
        tampered.execute(tampering.sql.encode())
        findings = compare(drive(tampered, "pgresults", look("pgresults")), "pgresults")
    assert tampering.found in {finding.kind for finding in findings}, findings


@pytest.mark.parametrize("tampering", [*SEALED, *UNFOUND], ids=_what)
def test_a_seal_finds_more_and_not_all(tampered: Any, store: ResultStore, tampering: Tampering) -> None:
    seal = seal_over(store, 6)
    store.write(1, key="new")
    store.touch("k1", TOMORROW)
    _tamper(tampered, store, tampering)
    assert store.verify().findings == ()
    found = {finding.kind for finding in store.verify(against=seal).findings}
    assert found == ({tampering.found} if tampering.by == "seal" else set())


def test_the_page_has_the_table() -> None:
    page = PAGE.read_text("utf-8")
    missing = [one.what for one in TAMPERINGS if f"| {one.what} | {one.by} |" not in page]
    assert missing == []
    assert len(TAMPERINGS) >= 30
