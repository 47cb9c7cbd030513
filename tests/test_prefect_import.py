"""Results that Prefect kept as files, imported into Postgres; the documents are made by hand, no Prefect is needed."""

import base64
import json
import os
import pickle
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from conftest import psycopg_url
from pgresults.errors import InvalidArgument
from pgresults.integrations.prefect_files import Imported, import_files, source_of
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore

SOON = datetime.now(UTC) + timedelta(hours=1)


def document(result: Any, expiration: datetime | None = None) -> bytes:
    metadata = {
        "storage_key": "/home/me/.prefect/storage/k",
        "expiration": expiration and expiration.isoformat(),
        "serializer": {"type": "pickle", "picklelib": "cloudpickle", "picklelib_version": None},
        "prefect_version": "3.1.0",
        "storage_block_id": None,
    }
    return json.dumps({"metadata": metadata, "result": base64.encodebytes(pickle.dumps(result)).decode()}).encode()


def run_import(storage: PostgresStorage, place: Path) -> list[Imported]:
    source = source_of(str(place))
    return list(import_files(storage, source, source.names()))


def test_records_come_with_their_expiration_and_times(
    storage: PostgresStorage, store: ResultStore, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    file = tmp_path / "folder" / "k"
    file.write_bytes(document({"a": 1}, SOON))
    os.utime(file, (1_700_000_000, 1_700_000_000))
    assert run_import(storage, tmp_path) == [Imported("folder/k", "imported")]
    record = store.read("folder/k")
    assert (record.result, record.expiration) == ({"a": 1}, SOON)
    assert record.metadata.storage_key == "/home/me/.prefect/storage/k"
    [entry] = store.history("folder/k")
    assert (entry.action, entry.provenance["import"]["modified_at"]) == ("import", "2023-11-14T22:13:20+00:00")  # type: ignore[index]
    assert store.verify().intact


def test_an_import_is_taken_up_where_it_stopped(storage: PostgresStorage, tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).write_bytes(document(name))
    source = source_of(str(tmp_path))
    next(iter(import_files(storage, source, source.names())))
    assert [one.outcome for one in run_import(storage, tmp_path)] == ["present", "imported", "imported"]
    assert [one.outcome for one in run_import(storage, tmp_path)] == ["present"] * 3


def test_what_postgres_has_or_had_is_not_replaced(storage: PostgresStorage, store: ResultStore, tmp_path: Path) -> None:
    store.write("newer", key="a")
    store.write("gone", key="b")
    store.delete("b")
    for name in "ab":
        (tmp_path / name).write_bytes(document("older"))
    assert [one.outcome for one in run_import(storage, tmp_path)] == ["kept", "kept"]
    assert store.read("a").result == "newer"
    assert not store.exists("b")


def test_unreadable_files_are_reported_and_do_not_stop_the_rest(
    storage: PostgresStorage, store: ResultStore, tmp_path: Path
) -> None:
    (tmp_path / "cut").write_bytes(document("x")[:-5])
    (tmp_path / "empty").touch()
    (tmp_path / "new\nline").write_bytes(b"bare")
    (tmp_path / "good").write_bytes(document("good"))
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    outcomes = {one.name: one.outcome for one in run_import(storage, tmp_path)}
    assert outcomes["good"] == "imported"
    assert outcomes["cut"] == outcomes["empty"] == "unreadable"
    assert store.read("good").result == "good"


def test_what_is_no_record_is_imported_as_it_is(storage: PostgresStorage, tmp_path: Path) -> None:
    (tmp_path / "bare").write_bytes(b"\x00bare")
    run_import(storage, tmp_path)
    assert storage.read_path("bare") == b"\x00bare"


def test_a_place_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="is no directory"):
        source_of("/does/not/exist")


def test_the_command_says_what_it_did(storage: PostgresStorage, tmp_path: Path) -> None:
    (tmp_path / "good").write_bytes(document("good"))
    (tmp_path / "empty").touch()
    program = "from pgresults.cli import main; main()"
    command = (sys.executable, "-c", program, "--storage", storage.name, "import", "prefect", str(tmp_path))
    environment = {**os.environ, "PGRESULTS_DATABASE_URL": psycopg_url(storage.database.url())}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.stdout == "2 files: 1 imported, 0 there already, 0 older than what is there, 1 unreadable\n"
    assert "empty: empty" in ended.stderr
    assert ended.returncode == 1
