"""Results leave one storage as a file and come into another as what they were."""

import csv
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import URL
from typer.testing import CliRunner, Result

from pgresults.audit import formats
from pgresults.cli.app import app
from pgresults.database.programs import perform
from pgresults.serializers import JSONSerializer
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.database import psycopg_url
from tests.support.listing import page

FORMATS = ["jsonl", "csv", "parquet"]
Cli = Callable[..., Result]


def run(storage: PostgresStorage, *arguments: str) -> Result:
    perform(storage._register())
    url = psycopg_url(storage.database.url())
    return CliRunner().invoke(app, ["--database-url", url, "--storage", storage.name, *arguments])


@pytest.fixture
def target(shared_url: URL) -> Iterator[PostgresStorage]:
    storage = PostgresStorage(shared_url, name=f"test-{uuid4().hex}")
    yield storage
    storage.close()


@pytest.fixture
def filled(store: ResultStore) -> ResultStore:
    expiration = datetime.now(UTC) + timedelta(days=1)
    store.write({"ä": [1, None, b"x"]}, key='k "1",\n', tags=["a", "b, c"], provenance={"n": [1.5, {"x": None}]})
    store.write(bytes(2_500_000), key="large", expiration=expiration)
    store.model_copy(update={"serializer": JSONSerializer()}).write({"x": 1}, key="json", tags=[])
    store.write("secret", key="redacted")
    store.redact("redacted", "law")
    store.write(1, key="expired", expiration=datetime.now(UTC) - timedelta(days=1))
    return store


KEYS = ['k "1",\n', "large", "json"]


@pytest.mark.parametrize("kind", FORMATS)
def test_results_come_back_as_they_were(
    filled: ResultStore, target: PostgresStorage, tmp_path: Path, kind: str
) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    file = tmp_path / f"results.{kind}"
    assert run(filled.result_storage, "export", "--output", str(file)).exit_code == 0
    assert b"secret" not in file.read_bytes()
    imported = run(target, "import", "file", str(file))
    assert imported.stdout == "3 results imported\n", imported.output
    copy = ResultStore(result_storage=target)
    for key in KEYS:
        before, after = filled.read(key), copy.read(key)
        assert after == before
        assert after.metadata.sha256 == before.metadata.sha256
        origin = after.metadata.provenance.pop("imported")
        assert after.metadata.provenance == before.metadata.provenance
        created_at = before.metadata.created_at.isoformat()
        assert origin == {"version": 1, "created_at": created_at, "verified": False}
        (step,) = copy.history(key)
        assert (step.action, step.tags) == ("import", filled.history(key)[0].tags)
    assert copy.verify().intact
    again = run(target, "import", "file", str(file))
    assert (again.stdout, "3 left out" in again.stderr) == ("0 results imported\n", True)
    assert run(target, "import", "file", str(file), "--overwrite").stdout == "3 results imported\n"
    assert copy.read("json").metadata.version == 2


FORMULAS = [
    "=1+1",
    "+1",
    "-1",
    "@SUM(1)",
    "\t=1",
    "\r=1",
    "\n=1",
    " =1",
    "\uff1d1",
    "'",
    "'=1",
    "''",
    "\t",
    " ",
    "a=1",
    "1'",
]


def test_no_cell_of_a_table_is_a_formula(store: ResultStore, target: PostgresStorage, tmp_path: Path) -> None:
    for formula in FORMULAS:
        store.write(b"x", key=formula, provenance={"=1": "=1"})
    store.result_storage.write_path("bytes", b"\xfb\xef\xff")  # base64 that begins with a minus
    file, copy = tmp_path / "results.csv", ResultStore(result_storage=target)
    run(store.result_storage, "export", "--output", str(file))
    with file.open(newline="") as lines:
        cells = [cell for row in csv.reader(lines) for cell in row]
    assert any(cell.startswith("'-") for cell in cells)
    assert not [cell for cell in cells if cell.lstrip()[:1] in tuple("=+-@\uff1d")]
    imported = run(target, "import", "file", str(file))
    assert imported.exit_code == 0, imported.stderr
    assert [row.key for row in page(target)] == sorted([*FORMULAS, "bytes"])
    assert copy.read("'=1").metadata.provenance["=1"] == "=1"
    assert target.read_path("bytes") == b"\xfb\xef\xff"


def test_an_export_may_be_printed_and_narrowed(filled: ResultStore) -> None:
    printed = run(filled.result_storage, "export", "--prefix", "j").stdout
    (line,) = printed.splitlines()
    assert json.loads(line)["key"] == "json"
    assert run(filled.result_storage, "export", "--format", "csv", "--prefix", "j").stdout.count("\n") == 2
    assert run(filled.result_storage, "export", "--format", "parquet").exit_code == 2


def test_parquet_without_its_extra_is_refused_with_advice(
    filled: ResultStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "pyarrow", None)
    refused = run(filled.result_storage, "export", "--output", str(tmp_path / "results.parquet"))
    assert refused.exit_code == 1
    assert "pgresults[parquet]" in refused.stderr


def spoilt(name: str) -> Callable[[dict[str, Any]], Any]:
    return {
        "payload": lambda row: row | {"payload": "AAAA"},
        "no key": lambda row: {name: value for name, value in row.items() if name != "key"},
        "empty key": lambda row: row | {"key": ""},
        "unknown field": lambda row: row | {"x": 1},
        "naive time": lambda row: row | {"expiration": "2026-01-01T00:00:00"},
        "NUL in a text": lambda row: row | {"storage_key": "a\0b"},
        "NUL in a tag": lambda row: row | {"tags": ["a\0b"]},
        "NUL in a serializer": lambda row: row | {"serializer": row["serializer"] | {"jsonlib": "a\0b"}},
        "unknown serializer": lambda row: row | {"serializer": {"type": "nothing"}},
        "provenance": lambda row: row | {"provenance": {"a": "\0"}},
        "list": lambda row: [row],
    }[name]


SPOILT = ["payload", "no key", "empty key", "unknown field", "naive time", "unknown serializer", "provenance", "list"]
SPOILT += ["NUL in a text", "NUL in a tag", "NUL in a serializer"]


@pytest.mark.parametrize("name", SPOILT)
def test_what_was_spoilt_is_not_imported(
    filled: ResultStore, target: PostgresStorage, tmp_path: Path, name: str
) -> None:
    row = json.loads(run(filled.result_storage, "export", "--prefix", "j").stdout)
    file = tmp_path / "results.jsonl"
    file.write_text(json.dumps(spoilt(name)(row)) + "\n")
    refused = run(target, "import", "file", str(file))
    assert (refused.exit_code, refused.stderr.startswith("error: ")) == (1, True)
    assert page(target) == []


FOREIGN = {
    "no text": (".jsonl", lambda text: b"\xf9" + text),
    "no table": (".csv", lambda text: b"\xf9" + text),
    "more fields than the heading": (".csv", lambda text: text.replace(b"\r\n", b",x\r\n").replace(b",x", b"", 1)),
    "fewer fields than the heading": (".csv", lambda text: text.replace(b"payload", b"payload,more", 1)),
    "cut off": (".jsonl", lambda text: text[:100]),
    "too deep": (".jsonl", lambda _: b"[" * 100_000),
    "an empty line": (".jsonl", lambda text: b"\n" + text),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_no_export_wrote_is_refused_with_its_place(
    filled: ResultStore, target: PostgresStorage, tmp_path: Path, name: str
) -> None:
    ending, spoil = FOREIGN[name]
    file = tmp_path / f"results{ending}"
    run(filled.result_storage, "export", "--prefix", "j", "--output", str(file))
    file.write_bytes(spoil(file.read_bytes()))
    refused = run(target, "import", "file", str(file))
    assert (refused.exit_code, str(file) in refused.stderr) == (1, True)
    assert page(target) == []


@pytest.mark.parametrize("ending", [".jsonl", ".csv"])
def test_a_byte_order_mark_does_no_harm(
    filled: ResultStore, target: PostgresStorage, tmp_path: Path, ending: str
) -> None:
    file = tmp_path / f"results{ending}"
    run(filled.result_storage, "export", "--prefix", "j", "--output", str(file))
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert run(target, "import", "file", str(file)).stdout == "1 results imported\n"


def test_a_locked_key_is_left_out(filled: ResultStore, target: PostgresStorage, tmp_path: Path) -> None:
    file = str(tmp_path / "results.jsonl")
    run(filled.result_storage, "export", "--output", file)
    locks = target.lock_manager()
    locks.acquire_lock("large", "somebody")
    imported = run(target, "import", "file", file)
    assert (imported.exit_code, imported.stdout) == (1, "2 results imported\n")
    assert "'large' is locked by somebody" in imported.stderr
    locks.release_lock("large", "somebody")
    assert run(target, "import", "file", file).stdout == "1 results imported\n"


def test_a_file_must_say_what_it_is(target: PostgresStorage, tmp_path: Path) -> None:
    (tmp_path / "results").write_text("")
    assert run(target, "import", "file", str(tmp_path / "results")).exit_code == 2
    assert (
        run(target, "import", "file", str(tmp_path / "results"), "--format", "jsonl").stdout == "0 results imported\n"
    )
