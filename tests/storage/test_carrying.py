"""A pickled storage carries no password that the other process gets from elsewhere, and never a signing key."""

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import URL

from pgresults.errors import ConfigurationError, IntegrityError
from pgresults.settings import Settings, temporary_settings
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.database import psycopg_url
from tests.support.programs import python, written

KEY, OLD, PASSWORD = "a signing key of the team's", "an older signing key", "very-secret"
URL_WITH_PASSWORD = f"postgresql://user:{PASSWORD}@db.example.com/team"
VARIABLES = ("PGPASSWORD", "PGSERVICE", "PGRESULTS_DATABASE_URL", "PGRESULTS_SIGNING_KEY")


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without anything in the environment."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def things(storage: PostgresStorage) -> list[Any]:
    """What may be sent to another process."""
    return [storage, storage.database, storage.lock_manager(), ResultStore(result_storage=storage)]


def test_a_signing_key_is_never_carried(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(signing_key=SecretStr(KEY), older_signing_keys=(SecretStr(OLD),), pool_size=7)
    for thing in things(PostgresStorage(URL_WITH_PASSWORD, settings=settings)):
        carried = pickle.dumps(thing)
        assert KEY.encode() not in carried
        assert OLD.encode() not in carried
        with pytest.raises(ConfigurationError, match="PGRESULTS_SIGNING_KEY") as refused:
            pickle.loads(carried)
        assert refused.value.setting == "signing_key"
    monkeypatch.setenv("PGRESULTS_SIGNING_KEY", KEY)
    storage = pickle.loads(pickle.dumps(PostgresStorage(URL_WITH_PASSWORD, settings=settings)))
    assert storage._trust.keys == (KEY.encode(),)
    assert storage.settings.pool_size == 7


def test_what_was_carried_signs_and_refuses_as_its_own_process_does(
    shared_url: URL, storage: PostgresStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    ResultStore(result_storage=storage).write(1, key="unsigned")
    monkeypatch.setenv("PGRESULTS_SIGNING_KEY", KEY)
    store = pickle.loads(pickle.dumps(ResultStore(result_storage=PostgresStorage(shared_url, storage.name))))
    store.write(2, key="signed")
    assert store.read("signed").result == 2
    with pytest.raises(IntegrityError):
        store.read("unsigned")


@pytest.mark.parametrize(
    ("variable", "value"), [("PGRESULTS_DATABASE_URL", URL_WITH_PASSWORD), ("PGPASSWORD", PASSWORD)]
)
def test_a_password_that_the_environment_gives_is_not_carried(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    for thing in things(PostgresStorage(URL_WITH_PASSWORD)):
        carried = pickle.dumps(thing)
        assert PASSWORD.encode() not in carried
        got = pickle.loads(carried)
        assert got.result_storage == thing.result_storage if isinstance(thing, ResultStore) else got == thing
    url = pickle.loads(pickle.dumps(PostgresStorage(URL_WITH_PASSWORD))).database.url()
    assert url.password == (PASSWORD if variable == "PGRESULTS_DATABASE_URL" else None)


def test_passwords_in_the_query_are_none_of_a_pickle_either(monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"postgresql://db.example.com/team?user=me&password={PASSWORD}&sslpassword={PASSWORD}"
    monkeypatch.setenv("PGRESULTS_DATABASE_URL", url)
    carried = pickle.dumps(PostgresStorage(url))
    assert PASSWORD.encode() not in carried
    assert pickle.loads(carried).database.url().query["password"] == PASSWORD


def test_a_password_that_nothing_else_gives_is_carried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGRESULTS_DATABASE_URL", URL_WITH_PASSWORD.replace("team", "other"))
    monkeypatch.setenv("PGPASSWORD", "another")
    storage = pickle.loads(pickle.dumps(PostgresStorage(URL_WITH_PASSWORD)))
    assert storage.database.url().password == PASSWORD


def test_a_password_set_in_code_is_carried() -> None:
    with temporary_settings(database_url=URL_WITH_PASSWORD):
        carried = pickle.dumps(PostgresStorage(URL_WITH_PASSWORD))
    assert pickle.loads(carried).database.url().password == PASSWORD


def test_settings_carry_no_url(monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"postgresql://a:{PASSWORD}@b/c"
    settings = Settings(database_url=SecretStr(url), results={"default_storage": url})
    settings = settings.model_copy(
        update={"tasks": settings.tasks.model_copy(update={"scheduling": {"default_storage": url}})}
    )
    assert PASSWORD.encode() not in pickle.dumps(PostgresStorage("postgresql://b/c", settings=settings))


def test_a_deep_copy_keeps_all(storage: PostgresStorage, shared_url: URL) -> None:
    settings = Settings(signing_key=SecretStr(KEY))
    signed = PostgresStorage(shared_url, storage.name, settings=settings)
    copied = copy.deepcopy(signed)
    assert (copied, copied._trust) == (signed, signed._trust)
    ResultStore(result_storage=copied).write(1, key="k")
    assert ResultStore(result_storage=signed).read("k").result == 1


SCRIPT = """
import sys
from pgresults import PostgresStorage, ResultStore, task
from pgresults.settings import Settings
from pydantic import SecretStr

@task(persist_result=True, result_storage=PostgresStorage(sys.argv[1], "mapped", settings=Settings(
    signing_key=SecretStr("a key that is in the code"))))
def double(x):
    return 2 * x

if __name__ == "__main__":
    try:
        print(list(double.map([1, 2], processes=2)))
    except Exception as error:
        print(type(error).__name__, "PGRESULTS_SIGNING_KEY" in str(error))
"""


def test_a_process_of_a_map_needs_a_key_of_its_own(fresh_url: URL, tmp_path: Path) -> None:
    written(tmp_path, {"script.py": SCRIPT})
    url = psycopg_url(fresh_url)
    assert python("script.py", url, directory=tmp_path) == ["ConfigurationError True"]
    key = "a key that is in the code"
    assert python("script.py", url, directory=tmp_path, PGRESULTS_SIGNING_KEY=key) == ["[2, 4]"]
