"""Which storages have a standby, what of its URL is shown and carried, and that one of no use costs a warning alone."""

import copy
import pickle
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, create_engine

from pgresults import PostgresStorage, ResultStore
from pgresults.cli.session import Session
from pgresults.errors import ConfigurationError
from pgresults.settings import load_settings, temporary_settings
from pgresults.storage.postgres import default_storage
from tests.support.calls import Call

PASSWORD = "a-password-nobody-has-to-see"
PRIMARY = "postgresql://user@primary/team"
STANDBY = f"postgresql://user:{PASSWORD}@standby/team?sslpassword={PASSWORD}"
MINUTE = timedelta(minutes=1)


def standby_url(storage: PostgresStorage) -> str | None:
    standby = storage.database.standby
    return standby and standby.url().render_as_string(hide_password=False)


def test_a_setting_is_of_the_settings_database() -> None:
    """Another database has not the same standby, whatever the setting says."""
    settings = load_settings(database_url=PRIMARY.replace("user@", "user:x@"), read_url=STANDBY)
    engine = create_engine(PRIMARY.replace("postgresql:", "postgresql+psycopg:"))
    for database in (PRIMARY, engine):
        assert "@standby/" in str(standby_url(PostgresStorage(database, settings=settings)))
    assert "@standby/" in str(standby_url(default_storage(settings)))
    for other in (PRIMARY.replace("/team", "/staging"), PRIMARY.replace("@primary", "@elsewhere"), Path("a-directory")):
        assert standby_url(PostgresStorage(other, settings=settings)) is None
    assert standby_url(default_storage(load_settings(read_url=STANDBY))) is None  # an embedded server has none


def test_an_argument_goes_first() -> None:
    settings = load_settings(database_url=PRIMARY, read_url=STANDBY)
    assert "//another/" in str(
        standby_url(PostgresStorage(PRIMARY, settings=settings, read_url="postgresql://another/x"))
    )


def test_a_standby_makes_no_other_storage() -> None:
    assert PostgresStorage(PRIMARY) == PostgresStorage(PRIMARY, read_url=STANDBY)
    assert hash(PostgresStorage(PRIMARY)) == hash(PostgresStorage(PRIMARY, read_url=STANDBY))


def test_what_is_no_url_is_refused_by_name() -> None:
    with pytest.raises(ConfigurationError) as refusal:
        PostgresStorage(PRIMARY, read_url="mysql://somewhere")
    assert refusal.value.setting == "read_url"


def test_the_command_line_takes_no_standby_of_another_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGRESULTS_DATABASE_URL", PRIMARY)
    monkeypatch.setenv("PGRESULTS_READ_URL", STANDBY)
    assert Session({}).settings.read_url is not None
    assert Session({"database_url": PRIMARY}).settings.read_url is None


def test_no_password_is_shown() -> None:
    with temporary_settings(database_url=PRIMARY, read_url=STANDBY) as settings:
        storage = PostgresStorage(PRIMARY)
        shown = f"{storage!r} {ResultStore(result_storage=storage)!r} {settings!r} {storage.database.standby!r}"
    assert "standby" in shown
    assert PASSWORD not in shown


def test_no_password_is_carried_where_the_settings_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGRESULTS_DATABASE_URL", PRIMARY)
    monkeypatch.setenv("PGRESULTS_READ_URL", STANDBY)
    storage = PostgresStorage(PRIMARY)
    carried = pickle.dumps(storage)
    assert PASSWORD.encode() not in carried
    assert standby_url(pickle.loads(carried)) == standby_url(storage)
    monkeypatch.delenv("PGRESULTS_READ_URL")
    assert PASSWORD not in str(standby_url(pickle.loads(carried)))
    given = PostgresStorage(PRIMARY, read_url=STANDBY)  # nobody else could connect there
    for copied in (pickle.loads(pickle.dumps(given)), copy.deepcopy(given)):
        assert standby_url(copied) == standby_url(given)
        assert copied.database.following is not given.database.following


@pytest.mark.parametrize("of_no_use", ["itself", "nowhere", "another role"])
async def test_one_of_no_use_costs_one_warning(
    call: Call, shared_url: URL, storage: PostgresStorage, of_no_use: str, caplog: pytest.LogCaptureFixture
) -> None:
    url: Any = {
        "itself": shared_url,
        "nowhere": "postgresql://nobody@localhost:1/nothing",
        "another role": shared_url.set(username="nobody_at_all"),
    }[of_no_use]
    there = PostgresStorage(shared_url, storage.name, read_url=url)
    store = ResultStore(result_storage=there)
    await call(store, "write", 1, "k")
    for _ in range(2):
        assert (await call(store, "read", "k", stale_ok=MINUTE)).result == 1
        assert (await call(store, "read", "k", version=1)).result == 1
        assert await call(store, "exists", "k", stale_ok=MINUTE)
        assert len(await call(store, "history", "k")) == 1
        assert [found.key for found in await call(store, "find", prefix="k")] == ["k"]
    assert [record.levelname for record in caplog.records if "does not serve reads" in record.message] == ["WARNING"]
    assert await call(store, "read_many", ["k"]) != {}
    await there.aclose()


async def test_without_one_the_primary_answers_and_no_lock_is_waited_for(call: Call, storage: PostgresStorage) -> None:
    store = ResultStore(result_storage=storage, lock_manager=storage.lock_manager())
    await call(store, "write", 1, "k")
    await call(store, "acquire_lock", "k", "another")
    assert (await call(store, "read", "k", stale_ok=MINUTE)).result == 1
    assert (await call(store, "read", "k", stale_ok=timedelta(0))).result == 1
    await call(store, "release_lock", "k", "another")
    await store.lock_manager.aclose()
    await storage.aclose()
