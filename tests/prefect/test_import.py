"""Results that Prefect kept as files, imported into Postgres; the documents are made by hand, no Prefect is needed."""

import base64
import json
import os
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from pgresults.errors import ConfigurationError, InvalidArgument
from pgresults.integrations.prefect.files import Imported, import_files
from pgresults.integrations.prefect.places import source_of
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.database import psycopg_url

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


def run_import(storage: PostgresStorage, place: Path, *, bare: bool = False) -> list[Imported]:
    source = source_of(str(place))
    return list(import_files(storage, source, source.names(), bare=bare))


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


def test_links_are_not_followed_out_of_the_directory(storage: PostgresStorage, tmp_path: Path) -> None:
    place, outside = tmp_path / "place", tmp_path / "outside"
    for directory in (place / "folder", outside):
        directory.mkdir(parents=True)
        (directory / "file").write_bytes(document("x"))
    (place / "out").symlink_to(outside / "file")
    (place / "up").symlink_to("../outside/file")
    (place / "far").symlink_to(place / "hop")
    (place / "hop").symlink_to(outside / "file")
    (place / "inside").symlink_to("folder/file")
    (place / "linked").symlink_to(outside)
    (place / "loop").symlink_to("loop")
    (place / "zero").symlink_to("/dev/zero")
    os.mkfifo(place / "fifo")
    (tmp_path / "also").symlink_to(place)
    reasons = {one.name: (one.outcome, one.reason) for one in run_import(storage, tmp_path / "also")}
    assert {name for name, (outcome, _) in reasons.items() if outcome == "imported"} == {"folder/file", "inside"}
    assert {name for name, (outcome, _) in reasons.items() if outcome == "unreadable"} == {"out", "up", "far", "hop"}
    assert "leads out of the directory" in str(reasons["up"][1])


@pytest.mark.parametrize("swapped", ["folder/file", "folder"])
def test_a_link_that_takes_the_place_of_a_file_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swapped: str
) -> None:
    place, outside = tmp_path / "place", tmp_path / "outside"
    for directory in (place / "folder", outside):
        directory.mkdir(parents=True)
        (directory / "file").write_bytes(document("x"))
    source, resolve = source_of(str(place)), Path.resolve

    def swap(path: Path, strict: bool = False) -> Path:
        """What somebody may do once it was looked where the file is."""
        found = resolve(path, strict=strict)
        (place / swapped).rename(tmp_path / "before")
        (place / swapped).symlink_to(outside / "file" if swapped == "folder/file" else outside)
        return found

    monkeypatch.setattr(Path, "resolve", swap)
    with pytest.raises(OSError, match=r"link|Not a directory"):
        source.read("folder/file")


def test_what_is_no_record_is_imported_as_it_is_when_asked_for(storage: PostgresStorage, tmp_path: Path) -> None:
    (tmp_path / "bare").write_bytes(b"\x00bare")
    assert run_import(storage, tmp_path) == [Imported("bare", "bare")]
    assert run_import(storage, tmp_path, bare=True) == [Imported("bare", "imported")]
    assert storage.read_path("bare") == b"\x00bare"


def test_a_place_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="is no directory"):
        source_of("/does/not/exist")


def test_the_command_says_what_it_did(storage: PostgresStorage, tmp_path: Path) -> None:
    (tmp_path / "good").write_bytes(document("good"))
    (tmp_path / "empty").touch()
    ended = command(storage, "--storage", storage.name, "import", "prefect", str(tmp_path), "--create")
    assert ended.stdout == (
        f"2 files: 1 imported into '{storage.name}', 0 there already, 0 older than what is there, 0 locked, "
        "1 unreadable, 0 no result records\n"
    )
    assert "empty: empty" in ended.stderr
    assert ended.returncode == 1


def command(storage: PostgresStorage, *arguments: str, without: str = "") -> "subprocess.CompletedProcess[str]":
    """Run the program on a storage's database, as if packages were not installed."""
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({without.split()!r})); from pgresults.cli import main; main()"
    )
    environment = {**os.environ, "PGRESULTS_DATABASE_URL": psycopg_url(storage.database.url())}
    command = (sys.executable, "-c", program, *arguments)
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_results_go_where_a_block_looks_for_them(fresh_url: URL, tmp_path: Path) -> None:
    (tmp_path / "good").write_bytes(document("good"))
    storage = PostgresStorage(fresh_url, name="prefect")
    ended = command(storage, "import", "prefect", str(tmp_path), without="prefect fsspec")
    assert (ended.returncode, ended.stderr.strip()) == (0, "")
    assert ResultStore(result_storage=storage).read("good").result == "good"
    storage.close()


@pytest.mark.parametrize(
    ("place", "advice"),
    [
        pytest.param("s3://bucket/results", "pip install fsspec", marks=pytest.mark.slow),
        ("block:a/b", "pip install 'pgresults[prefect]'"),
    ],
)
def test_what_is_missing_is_named(storage: PostgresStorage, place: str, advice: str) -> None:
    ended = command(storage, "import", "prefect", place, without="prefect fsspec")
    assert ended.returncode == 1
    assert advice in ended.stderr


def test_the_core_does_without_prefect() -> None:
    program = (
        "import pkgutil, sys; sys.modules.update(prefect=None, fsspec=None); import pgresults, importlib\n"
        "for module in pkgutil.walk_packages(pgresults.__path__, 'pgresults.', onerror=lambda name: None):\n"
        "    if 'alembic' not in module.name:\n"
        "        try: importlib.import_module(module.name)\n"
        "        except ImportError: print(module.name)\n"
        "try: from pgresults.integrations.prefect import PostgresResultStorage\n"
        "except ImportError as error: print(error)\n"
    )
    ended = subprocess.run((sys.executable, "-c", program), capture_output=True, text=True, check=True)
    *without, advice = ended.stdout.splitlines()
    assert without == [f"pgresults.integrations.prefect.{name}" for name in ("block", "locks", "saved_blocks", "trees")]
    assert advice == "Prefect is not installed: pip install 'pgresults[prefect]'"


class SlowSource:
    """A place whose files are read by several at the same moment."""

    def __init__(self, place: Path, readers: int) -> None:
        self.source = source_of(str(place))
        self.barrier = threading.Barrier(readers)

    def names(self) -> list[str]:
        return self.source.names()

    def read(self, name: str) -> bytes:
        self.barrier.wait()
        return self.source.read(name)

    def modified(self, name: str) -> datetime | None:
        return self.source.modified(name)


def test_imports_at_the_same_time_store_a_file_once(
    storage: PostgresStorage, store: ResultStore, tmp_path: Path
) -> None:
    names = [f"{number:02}" for number in range(20)]
    for name in names:
        (tmp_path / name).write_bytes(document(name if name != "07" else b"x" * 2_000_000))
    source = SlowSource(tmp_path, 3)
    with ThreadPoolExecutor(3) as pool:
        runs = list(pool.map(lambda _: list(import_files(storage, source, names)), range(3)))
    for name in names:
        outcomes = sorted(one.outcome for run in runs for one in run if one.name == name)
        assert outcomes == ["imported", "present", "present"]
        assert len(store.history(name)) == 1
    assert store.verify().intact


def test_a_locked_key_is_left_to_its_holder(storage: PostgresStorage, store: ResultStore, tmp_path: Path) -> None:
    (tmp_path / "k").write_bytes(document("older"))
    storage.lock_manager().acquire_lock("k", "somebody")
    [left_out] = run_import(storage, tmp_path)
    assert (left_out.outcome, "somebody" in str(left_out.reason)) == ("locked", True)
    storage.lock_manager().release_lock("k", "somebody")
    assert run_import(storage, tmp_path) == [Imported("k", "imported")]


def test_a_file_system_of_fsspecs(storage: PostgresStorage, store: ResultStore) -> None:
    files = pytest.importorskip("fsspec").filesystem("memory")
    files.pipe({"/far/folder/k": document("far away", SOON), "/far/cut": document("x")[:-5]})
    source = source_of("memory://far")
    try:
        assert {one.name: one.outcome for one in import_files(storage, source, source.names())} == {
            "cut": "unreadable",
            "folder/k": "imported",
        }
    finally:
        files.rm("/far", recursive=True)
    assert store.read("folder/k").expiration == SOON
    assert store.history("folder/k")[0].provenance["import"]["modified_at"]  # type: ignore[index]


def test_an_object_store(storage: PostgresStorage, store: ResultStore, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    for name, value in {"ENDPOINT_URL": address, "ACCESS_KEY_ID": "me", "SECRET_ACCESS_KEY": "secret"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    try:
        files = pytest.importorskip("fsspec").filesystem("s3")
        files.mkdir("bucket")
        files.pipe({f"bucket/results/{name}": document(name) for name in "abc"})
        source = source_of("s3://bucket/results")
        names = source.names()
        files.rm("bucket/results/b")
        outcomes = {one.name: one.outcome for one in import_files(storage, source, names)}
        assert outcomes == {"a": "imported", "b": "unreadable", "c": "imported"}
        assert {one.outcome for one in import_files(storage, source, ["a", "c"])} == {"present"}
        with pytest.raises(ConfigurationError, match="cannot be listed"):
            source_of("s3://no-such-bucket/results").names()
    finally:
        server.stop()
    assert store.read("c").result == "c"
