"""What every kind of role may do, tried by each, and as the table in the documentation says."""

import contextlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import URL

from pgresults.errors import ConfigurationError, OnHold
from pgresults.settings import Settings
from pgresults.sql.grants import Kind, granting
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.database import psycopg_url
from tests.support.documents import ROOT
from tests.support.sealing import seal_over

Act = Callable[[ResultStore, psycopg.Connection[Any]], Any]


def said(statement: str) -> Act:
    return lambda store, connection: connection.execute(statement, {"id": store.result_storage.id})


def on_hold(store: ResultStore, connection: psycopg.Connection[Any]) -> None:
    """Try to erase a result that an auditor holds, by the library and by hand."""
    with contextlib.suppress(ConfigurationError, OnHold):
        store.redact("kept", "law")
        return
    try:
        connection.execute("DELETE FROM pgresults.payload WHERE key = 'kept'")
    except psycopg.Error as error:
        raise ConfigurationError("refused") from error


ACTIONS: dict[str, Act] = {
    "read what is there": lambda store, _: store.read("k"),
    "see tokens of locks": said("SELECT token FROM pgresults.lock"),
    "see history": lambda store, _: store.history("k"),
    "verify": lambda store, _: store.verify(),
    "seal": lambda store, _: store.seal(),
    "prove": lambda store, _: store.prove("kept", seal=seal_over(store, 3)),
    "write, touch, delete": lambda store, _: (store.write(2, key="k"), store.touch("k", None), store.delete("k")),
    "take and break locks": lambda store, _: (
        store.result_storage.lock_manager().acquire_lock("k", "me"),
        store.result_storage.lock_manager().break_lock("k", "why"),
    ),
    "sweep, retain, redact": lambda store, _: (store.sweep(), store.retain(versions=1), store.redact("k", "law")),
    "place holds": lambda store, _: store.hold(key="k", reason="why"),
    "release holds": lambda store, _: store.release_hold(key="k", reason="why"),
    "set and end rules of retention": lambda store, _: store.end_retention(
        store.set_retention(prefix="z", versions=1, reason="why"), "why"
    ),
    "take away what is on hold": lambda store, connection: on_hold(store, connection),
    "release another's lock without an entry": said(
        "UPDATE pgresults.lock SET released = true WHERE storage_id = %(id)s AND key = 'held'"
    ),
    "delete rows of held locks": said("DELETE FROM pgresults.lock"),
    "say which database it is": said("UPDATE pgresults.storage SET identity = gen_random_uuid() WHERE id = %(id)s"),
    "make an entry in another's name": said(
        "UPDATE pgresults.result SET db_user = 'another', seq = seq + 1, previous = digest, action = 'break'"
        " WHERE storage_id = %(id)s"
    ),
    "add history by hand": said(
        "INSERT INTO pgresults.history SELECT (jsonb_populate_record(h, '{\"seq\": 99}')).*"
        " FROM pgresults.history h WHERE storage_id = %(id)s LIMIT 1"
    ),
    "open history to changes": said("SELECT pgresults.maintenance('why')"),
    "change history": said("UPDATE pgresults.history SET actor = 'nobody'"),
    "erase what says it was open": said(
        "SELECT pgresults.maintenance('why'); DELETE FROM pgresults.history WHERE key = 'maintenance'"
    ),
}


@pytest.fixture(scope="module")
def database(create_database: Callable[[], URL]) -> URL:
    return create_database()


@pytest.fixture(scope="module")
def urls(database: URL) -> Iterator[dict[str, URL]]:
    names = {kind: f"pgresults_{kind}_{uuid4().hex[:8]}" for kind in Kind}
    with psycopg.connect(psycopg_url(database), autocommit=True) as admin:
        for kind, name in names.items():
            admin.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'x'").format(sql.Identifier(name)))
            admin.execute(granting("pgresults", name, kind))
        yield {kind: database.set(username=name, password="x") for kind, name in names.items()}
        for name in names.values():
            admin.execute(sql.SQL("DROP OWNED BY {0} CASCADE; DROP ROLE {0}").format(sql.Identifier(name)))


def may(urls: dict[str, URL], database: URL, kind: str, act: Act, settings: Settings) -> bool:
    name = f"test-{uuid4().hex}"
    owned, storage = PostgresStorage(database, name), PostgresStorage(urls[kind], name, settings=settings)
    store = ResultStore(result_storage=owned)
    store.write(1, key="k")
    store.write(1, key="kept")
    store.hold(key="kept", reason="law")
    owned.lock_manager().acquire_lock("held", "another")
    store.write(1, key="old", expiration=datetime.now(UTC) - timedelta(hours=1))
    try:
        with psycopg.connect(psycopg_url(urls[kind])) as connection:
            act(ResultStore(result_storage=storage), connection)
    except (psycopg.errors.InsufficientPrivilege, ConfigurationError, OnHold):
        return False
    finally:
        owned.close()
        storage.close()
    return True


def test_the_documented_table_is_what_the_server_does(urls: dict[str, URL], database: URL, tmp_path: Any) -> None:
    settings = Settings(seal_key=tmp_path / "seal.pem")
    rows = [f"| | {' | '.join(Kind)} |", f"|---|{'---|' * len(Kind)}"]
    for name, act in ACTIONS.items():
        cells = ["yes" if may(urls, database, kind, act, settings) else "no" for kind in Kind]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    table = "\n".join(rows)
    assert table in (ROOT / "docs" / "operations.md").read_text(), f"the page should say\n{table}"
