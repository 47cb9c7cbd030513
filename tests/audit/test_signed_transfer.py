"""Export and import make nothing genuine that is not: what no key has signed stays unreadable."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import URL
from typer.testing import CliRunner, Result

from pgresults.cli.app import app
from pgresults.database.programs import perform
from pgresults.errors import ConfigurationError, MissingResult
from pgresults.integrations.prefect.files import import_files
from pgresults.integrations.prefect.places import source_of
from pgresults.settings import Settings
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.database import psycopg_url

KEY, OTHER = "a key of the team's own", "a key of somebody else's"
Run = Callable[..., Result]
FORMATS = ["jsonl", "csv", "parquet"]


class Crafted:
    """Makes a directory when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def store_at(url: URL, key: str | None = None) -> ResultStore:
    settings = Settings(signing_key=SecretStr(key)) if key else Settings()
    return ResultStore(result_storage=PostgresStorage(url, f"test-{uuid4().hex}", settings=settings))


def again(store: ResultStore, key: str | None) -> ResultStore:
    """The same results, for who has another key, or none."""
    storage = store.result_storage
    settings = Settings(signing_key=SecretStr(key)) if key else Settings()
    return ResultStore(result_storage=PostgresStorage(storage.database.url(), storage.name, settings=settings))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Runs the program on a store's results, with a signing key at hand or none."""

    def invoke(store: ResultStore, key: str | None, *arguments: str) -> Result:
        environment = {"PGRESULTS_SIGNING_KEY": key}
        storage = store.result_storage
        perform(storage._register())
        options = ["--database-url", psycopg_url(storage.database.url()), "--storage", storage.name]
        return CliRunner().invoke(app, [*options, *arguments], env=environment)

    return invoke


def test_a_pickle_is_not_laundered(shared_url: URL, run: Run, tmp_path: Path) -> None:
    file, mark, attacked, target = tmp_path / "f.jsonl", tmp_path / "mark", store_at(shared_url), store_at(shared_url)
    attacked.write(Crafted(mark), key="k")
    again(attacked, KEY).write("genuine", key="l")
    for options in ([], ["--leave-out"]):
        assert not file.exists()
        exported = run(attacked, KEY, "export", "--output", str(file), *options)
        assert (exported.exit_code, "'k'" in exported.stderr, "not signed" in exported.stderr) == (1, True, True)
    assert [json.loads(line)["key"] for line in file.read_text().splitlines()] == ["l"]
    assert run(attacked, None, "export", "--output", str(file)).exit_code == 0  # by who has no key and wants none
    for overwrite in ([], ["--overwrite"]):
        imported = run(target, KEY, "import", "file", str(file), *overwrite)
        assert (imported.exit_code, imported.stdout) == (1, "0 results imported\n")
        assert imported.stderr.count("it is not signed; if you answer") == 2
    assert not again(target, KEY).exists("k")
    assert not mark.exists()


@pytest.mark.parametrize("kind", FORMATS)
def test_what_was_signed_comes_back_verified(shared_url: URL, run: Run, tmp_path: Path, kind: str) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    file, source, target = tmp_path / f"f.{kind}", store_at(shared_url, KEY), store_at(shared_url, KEY)
    described = {"n": [1.5, 10**20, -0.0, {"ä": None}], "long": 0.1 + 0.2}
    source.write({"a": b"x"}, key='k "1",\n', tags=[], provenance=described)
    source.write(1, key="=1+1", tags=["a", "b, c"])
    assert run(source, KEY, "export", "--output", str(file)).exit_code == 0
    imported = run(target, KEY, "import", "file", str(file))
    assert (imported.exit_code, imported.stdout) == (0, "2 results imported\n"), imported.output
    for key in ('k "1",\n', "=1+1"):
        record = target.read(key)
        assert record.result == source.read(key).result
        assert record.metadata.provenance["imported"]["verified"] is True
    assert target.verify().intact


ALTERED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "key": lambda one: one.update(key="other"),
    "version": lambda one: one.update(version=7),
    "time": lambda one: one.update(created_at="2020-01-01T00:00:00+00:00"),
    "expiration": lambda one: one.update(expiration="2090-01-01T00:00:00+00:00"),
    "serializer": lambda one: one.update(serializer={"type": "json"}),
    "tags": lambda one: one.update(tags=["x"]),
    "provenance": lambda one: one.update(provenance={}),
    "pointer": lambda one: one.update(storage_key="elsewhere"),
    "signature": lambda one: one.update(signature=one["signature"][:-2] + "00"),
}


@pytest.mark.parametrize("name", ALTERED)
def test_what_was_altered_is_not_imported_even_when_vouched_for(
    shared_url: URL, run: Run, tmp_path: Path, name: str
) -> None:
    source, target = store_at(shared_url, KEY), store_at(shared_url, KEY)
    source.write("value", key="k")
    one = json.loads(run(source, KEY, "export").stdout)
    ALTERED[name](one)
    file = tmp_path / "f.jsonl"
    file.write_text(json.dumps(one) + "\n")
    for vouch in ([], ["--vouch"]):
        imported = run(target, KEY, "import", "file", str(file), *vouch)
        assert (imported.exit_code, "signature does not fit" in imported.stderr) == (1, True)
    assert not target.exists("k")


@pytest.mark.parametrize("exporter", [None, OTHER])
def test_who_vouches_has_it_signed_and_the_history_says_so(
    shared_url: URL, run: Run, tmp_path: Path, exporter: str | None
) -> None:
    file, source, target = tmp_path / "f.jsonl", store_at(shared_url, exporter), store_at(shared_url, KEY)
    source.write("value", key="k")
    run(source, exporter, "export", "--output", str(file))
    assert run(target, KEY, "import", "file", str(file)).exit_code == 1
    with pytest.raises(MissingResult):
        target.read("k")
    assert run(target, KEY, "import", "file", str(file), "--vouch").stdout == "1 results imported\n"
    record = target.read("k")
    assert (record.result, record.metadata.provenance["imported"]["verified"]) == ("value", False)


def test_a_payloads_signature_is_none_of_a_file(shared_url: URL, run: Run, tmp_path: Path) -> None:
    source, target, file = store_at(shared_url, KEY), store_at(shared_url, KEY), tmp_path / "f.jsonl"
    source.write("value", key="k")
    with psycopg.connect(psycopg_url(shared_url)) as sql:
        query = "SELECT encode(signature, 'hex') FROM pgresults.result WHERE storage_id = %s"
        (signature,) = sql.execute(query, [source.result_storage.id]).fetchone() or ("",)
    one = json.loads(run(source, KEY, "export").stdout)
    file.write_text(json.dumps(one | {"signature": signature}))
    assert run(target, KEY, "import", "file", str(file), "--vouch").exit_code == 1


def test_what_is_damaged_may_be_left_out(shared_url: URL, run: Run) -> None:
    store = store_at(shared_url)
    for key in "abc":
        store.write(key, key=key)
    with psycopg.connect(psycopg_url(shared_url)) as sql:
        query = "UPDATE pgresults.payload SET data = 'x' WHERE storage_id = %s AND key = 'b'"
        sql.execute(query, [store.result_storage.id])
    exported = run(store, None, "export", "--leave-out")
    assert (exported.exit_code, "'b'" in exported.stderr) == (1, True)
    assert [json.loads(line)["key"] for line in exported.stdout.splitlines()] == ["a", "c"]


def test_files_of_prefect_are_signed_only_for_who_vouches(shared_url: URL, run: Run, tmp_path: Path) -> None:
    (tmp_path / "k").write_bytes(b"content")
    target = store_at(shared_url, KEY)
    refused = run(target, KEY, "import", "prefect", str(tmp_path))
    assert (refused.exit_code, "--vouch" in refused.stderr) == (1, True)
    source = source_of(str(tmp_path))
    with pytest.raises(ConfigurationError):
        import_files(target.result_storage, source, source.names())
    assert not target.exists("k")
    assert run(target, KEY, "import", "prefect", str(tmp_path), "--bare", "--vouch").exit_code == 0
    assert target.result_storage.read_path("k") == b"content"
