"""Where settings come from, which place decides, and that nothing secret is printed."""

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pgresults.cli.app import app
from pgresults.errors import ConfigurationError
from pgresults.server.embedded import EmbeddedPostgres
from pgresults.settings import current_settings, load_settings, names, temporary_settings, value_of, variable

NAMES = {
    "results.default_serializer": "pickle",
    "results.persist_by_default": False,
    "results.default_storage": None,
    "results.local_storage_path": Path(".pgresults"),
    "tasks.default_persist_result": None,
    "tasks.scheduling.default_storage": None,
    "database_url": None,
    "database_schema": "pgresults",
    "pool_size": 5,
    "connect_timeout": 10.0,
    "response_timeout": 60.0,
    "cache_max_entries": 1000,
    "cache_max_bytes": 64 * 1024 * 1024,
    "allow_pickle": True,
    "signing_key": None,
    "older_signing_keys": (),
}


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("name", "default"), NAMES.items())
def test_every_setting_has_its_name_and_default(name: str, default: object) -> None:
    assert value_of(current_settings(), name) == default


def test_every_setting_says_what_it_means() -> None:
    assert [name for name, field in names().items() if not field.description] == []


def test_the_variable_goes_before_the_dotenv_file_and_that_before_the_project(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (directory / "pyproject.toml").write_text(
        '[tool.pgresults]\npool_size = 1\nlease = 1.5\n[tool.pgresults.results]\ndefault_serializer = "json"\n'
    )
    (directory / ".env").write_text("PGRESULTS_POOL_SIZE=2\nPGRESULTS_TASKS_DEFAULT_PERSIST_RESULT=true\nOTHER=1\n")
    monkeypatch.setenv("PGRESULTS_RESULTS_DEFAULT_SERIALIZER", "compressed/json")
    settings = current_settings()
    assert settings.lease == 1.5
    assert settings.pool_size == 2
    assert settings.tasks.default_persist_result is True
    assert settings.results.default_serializer == "compressed/json"
    assert load_settings(pool_size=3).pool_size == 3


def test_a_changed_variable_holds_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGRESULTS_POOL_SIZE", "2")
    assert current_settings().pool_size == 2
    monkeypatch.setenv("PGRESULTS_POOL_SIZE", "3")
    assert current_settings().pool_size == 3
    assert current_settings() is current_settings()


def test_temporary_settings_go_before_all_and_nest() -> None:
    with temporary_settings({"results.default_serializer": "json"}, pool_size=2):
        with temporary_settings(results__persist_by_default=True) as settings:
            assert settings == current_settings()
            assert settings.results.default_serializer == "json"
            assert settings.results.persist_by_default
        assert not current_settings().results.persist_by_default
        assert current_settings().pool_size == 2
    assert current_settings().results.default_serializer == "pickle"


def test_temporary_settings_stay_in_their_thread_and_task() -> None:
    seen: list[int] = []

    async def other(inside: asyncio.Event, seen_by_other: asyncio.Event) -> None:
        await inside.wait()
        seen.append(current_settings().pool_size)
        seen_by_other.set()

    async def main() -> None:
        inside, seen_by_other = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(other(inside, seen_by_other))
        with temporary_settings(pool_size=2):
            inside.set()
            await seen_by_other.wait()
        await task

    asyncio.run(main())
    with temporary_settings(pool_size=2):
        thread = threading.Thread(target=lambda: seen.append(current_settings().pool_size))
        thread.start()
        thread.join()
    assert seen == [5, 5]


def test_a_misspelt_name_is_refused(directory: Path) -> None:
    with (
        pytest.raises(ConfigurationError, match=r"results\.default_serialiser.*config show"),
        temporary_settings({"results.default_serialiser": "json"}),
    ):
        pass
    (directory / "pyproject.toml").write_text("[tool.pgresults]\npoolsize = 1\n")
    with pytest.raises(ConfigurationError, match="poolsize"):
        current_settings()


@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [
        ("PGRESULTS_DATABSE_URL", "PGRESULTS_DATABASE_URL"),
        ("PGRESULTS_SIGNING_KEYS", "PGRESULTS_SIGNING_KEY"),
        ("pgresults_results_default_serialiser", "PGRESULTS_RESULTS_DEFAULT_SERIALIZER"),
        ("PGRESULTS_RESULTS__PERSIST_BY_DEFAULT", "PGRESULTS_RESULTS_PERSIST_BY_DEFAULT"),
    ],
)
@pytest.mark.parametrize("place", ["environment", ".env"])
def test_a_misspelt_variable_is_refused_with_the_name_that_was_meant(
    directory: Path, monkeypatch: pytest.MonkeyPatch, misspelt: str, meant: str, place: str
) -> None:
    if place == "environment":
        monkeypatch.setenv(misspelt, "x")
    else:
        (directory / ".env").write_text(f"{misspelt}=x\n")
    with pytest.raises(ConfigurationError, match=f"did you mean {meant}") as caught:
        current_settings()
    assert caught.value.setting == misspelt.upper()


def test_a_variable_that_is_like_none_is_named_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PGRESULTS_OF_SOME_OTHER_KIND", "x")
    current_settings()
    monkeypatch.setenv("PGRESULTS_POOL_SIZE", "2")
    assert current_settings().pool_size == 2
    [said] = [record.getMessage() for record in caplog.records]
    assert said.startswith("PGRESULTS_OF_SOME_OTHER_KIND is no setting")


def test_an_empty_variable_is_as_if_unset(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (directory / ".env").write_text("PGRESULTS_POOL_SIZE=3\nPGRESULTS_LEASE=\n")
    monkeypatch.setenv("PGRESULTS_DATABASE_URL", "")
    monkeypatch.setenv("PGRESULTS_POOL_SIZE", "")
    settings = current_settings()
    assert (settings.database_url, settings.pool_size, settings.lease) == (None, 3, 30.0)


def test_an_empty_signing_key_is_not_as_if_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGRESULTS_SIGNING_KEY", "")
    with pytest.raises(ConfigurationError, match="PGRESULTS_SIGNING_KEY"):
        current_settings()


def test_a_useless_value_is_refused_by_its_variable_and_not_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable("signing_key"), "too short")
    with pytest.raises(ConfigurationError, match="PGRESULTS_SIGNING_KEY") as refused:
        current_settings()
    assert "too short" not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.setting == "signing_key"


def _shown(*options: str) -> tuple[dict[str, dict[str, Any]], str]:
    outcome = CliRunner().invoke(app, [*options, "config", "show", "--json"])
    assert outcome.exit_code == 0, outcome.output
    return {row["setting"]: row for row in json.loads(outcome.stdout)}, outcome.output


def test_config_show_names_the_source_of_every_value(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (directory / "pyproject.toml").write_text("[tool.pgresults]\npool_size = 1\n")
    (directory / ".env").write_text("PGRESULTS_LEASE=2\n")
    monkeypatch.setenv("PGRESULTS_MAX_LOCKS", "3")
    rows, _ = _shown("--schema", "other")
    assert set(rows) == set(names())
    sources = {name: row["source"] for name, row in rows.items() if row["source"] != "default"}
    assert sources == {
        "pool_size": "pyproject.toml",
        "lease": ".env",
        "max_locks": "environment",
        "database_schema": "command line",
    }
    assert rows["results.default_serializer"]["variable"] == "PGRESULTS_RESULTS_DEFAULT_SERIALIZER"


def test_config_show_prints_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGRESULTS_DATABASE_URL", "postgresql://user:hunter2@host/db?sslpassword=hunter3")
    monkeypatch.setenv("PGRESULTS_SIGNING_KEY", "hunter4-hunter4-hunter4")
    monkeypatch.setenv("PGRESULTS_OLDER_SIGNING_KEYS", "hunter5-hunter5-hunter5")
    monkeypatch.setenv("PGRESULTS_RESULTS_DEFAULT_STORAGE", "postgresql://user:hunter6@host/db")
    rows, output = _shown()
    assert "hunter" not in output
    assert rows["database_url"]["value"] == "postgresql://user:***@host/db"
    assert "hunter" not in repr(current_settings()).replace("hunter6", "")


def test_a_storage_named_by_url_keeps_its_password_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "postgresql://user:hunter7@localhost/db"
    monkeypatch.setenv("PGRESULTS_RESULTS_DEFAULT_STORAGE", url)
    monkeypatch.setenv("PGRESULTS_TASKS_SCHEDULING_DEFAULT_STORAGE", url)
    settings = current_settings()
    assert settings.results.default_storage == settings.tasks.scheduling.default_storage == url
    assert "hunter7" not in repr(settings)


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "expanduser", _homeless)
    with pytest.raises(ConfigurationError, match=r"set HOME, or PGRESULTS_SEAL_KEY") as caught:
        assert current_settings().seal_key_file
    assert caught.value.setting == "seal_key"
    with pytest.raises(ConfigurationError, match=r"set HOME, or PGRESULTS_EMBEDDED_PATH"):
        EmbeddedPostgres("~/server")


def _homeless(_: Path) -> Path:
    raise RuntimeError("Could not determine home directory.")
