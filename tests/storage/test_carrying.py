"""A pickled storage carries no password that the other process gets from elsewhere, and never a signing key."""

import copy
import pickle
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import URL

from pgresults.database.passwords import found_password
from pgresults.errors import ConfigurationError, IntegrityError
from pgresults.settings import Settings, temporary_settings
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.database import psycopg_url
from tests.support.programs import python, written

KEY, OLD, PASSWORD = "a signing key of the team's", "an older signing key", "very-secret"
URL_WITH_PASSWORD = f"postgresql://user:{PASSWORD}@db.example.com/team"
VARIABLES = (
    "PGPASSWORD",
    "PGSERVICE",
    "PGSERVICEFILE",
    "PGPASSFILE",
    "PGUSER",
    "PGDATABASE",
    "PGRESULTS_DATABASE_URL",
    "PGRESULTS_SIGNING_KEY",
)


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without anything in the environment, nor at home."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


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


def kept(file: Path, text: str, mode: int = 0o600) -> str:
    file.write_text(text)
    file.chmod(mode)
    return str(file)


FILES = {
    "by name": "db.example.com:5432:team:user:very-secret",
    "by any": "*:*:*:*:very-secret",
    "after others": "# db.example.com:5432:team:user:no\nother:5432:team:user:no\ndb.example.com:*:*:user:very-secret",
}


@pytest.mark.parametrize("text", FILES.values(), ids=FILES)
@pytest.mark.parametrize("where", ["PGPASSFILE", "home", "the URL"])
def test_a_password_from_a_password_file_is_not_carried(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, where: str, text: str
) -> None:
    file = kept(tmp_path / (".pgpass" if where == "home" else "passwords"), text)
    url = URL_WITH_PASSWORD
    if where == "PGPASSFILE":
        monkeypatch.setenv(where, file)
    elif where == "the URL":
        url = f"{url}?passfile={file}"
    for thing in things(PostgresStorage(url)):
        assert PASSWORD.encode() not in pickle.dumps(thing)
    for other in (url.replace("user", "another", 1), url.replace("example", "another"), url.replace(PASSWORD, "x" * 9)):
        storage = PostgresStorage(other)
        carried = pickle.loads(pickle.dumps(storage)).database.url()
        assert carried.password == (
            None if text == FILES["by any"] and PASSWORD in other else storage.database.url().password
        )


@pytest.mark.parametrize(("second", "is_carried"), [("very-secret", False), ("another", True)])
def test_all_hosts_of_a_url_have_to_have_its_password(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, second: str, is_carried: bool
) -> None:
    text = f"one:5433:team:user:{PASSWORD}\n*:5434:team:user:{second}\n"
    monkeypatch.setenv("PGPASSFILE", kept(tmp_path / "passwords", text))
    carried = pickle.dumps(PostgresStorage(f"postgresql://user:{PASSWORD}@one:5433,two:5434/team"))
    assert (PASSWORD.encode() in carried) is is_carried


@pytest.mark.parametrize("service", ["PGSERVICE", "the URL"])
def test_a_password_from_a_service_is_not_carried(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, service: str
) -> None:
    text = f"[other]\npassword=no\n[team]\nuser=user\n# password=no\npassword={PASSWORD}\n[last]\npassword=no\n"
    monkeypatch.setenv("PGSERVICEFILE", kept(tmp_path / "services", text))
    url = URL_WITH_PASSWORD
    if service == "PGSERVICE":
        monkeypatch.setenv(service, "team")
    else:
        url = f"{url}?service=team"
    assert PASSWORD.encode() not in pickle.dumps(PostgresStorage(url))
    assert b"another" in pickle.dumps(PostgresStorage(url.replace(PASSWORD, "another")))


@pytest.mark.parametrize(
    "text",
    [
        "*:*:*:*:a\\:b\\\\c",
        "*:*:*:*:a:b",
        "{host}:{port}:{database}:{user}:one\n*:*:*:*:two",
        "nowhere:*:*:*:one\n*:*:*:*:two",
        "*:*:*:*\n*:*:*:*:two",
        "*:{port}:*:nobody:one\n",
        "",
    ],
)
@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_what_is_found_is_what_libpq_finds(
    shared_url: URL, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, mode: int
) -> None:
    url = shared_url._replace(password=None)
    said = text.format(
        host=url.host or url.query.get("host", "localhost"), port=url.port or 5432, database=url.database,
        user=url.username,
    )  # fmt: skip
    monkeypatch.setenv("PGPASSFILE", kept(tmp_path / "passwords", said, mode))
    with psycopg.connect(psycopg_url(url)) as connection:
        assert (found_password(url) or "") == connection.info.password


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


@pytest.mark.slow
def test_a_process_of_a_map_needs_a_key_of_its_own(fresh_url: URL, tmp_path: Path) -> None:
    written(tmp_path, {"script.py": SCRIPT})
    url = psycopg_url(fresh_url)
    assert python("script.py", url, directory=tmp_path) == ["ConfigurationError True"]
    key = "a key that is in the code"
    assert python("script.py", url, directory=tmp_path, PGRESULTS_SIGNING_KEY=key) == ["[2, 4]"]
