"""``pgresults import prefect`` takes what are results of Prefect's, and no directory by mistake."""

import base64
import json
import pickle
from pathlib import Path

import pytest
from sqlalchemy import URL

from pgresults.store import ResultStore
from tests.support.cli import Cli, refused, succeeded
from tests.support.database import psycopg_url


def record(result: object) -> bytes:
    serializer = {"type": "pickle", "picklelib": "cloudpickle", "picklelib_version": None}
    metadata = {"storage_key": "k", "expiration": None, "serializer": serializer, "prefect_version": "3.1.0",
                "storage_block_id": None}  # fmt: skip
    return json.dumps({"metadata": metadata, "result": base64.b64encode(pickle.dumps(result)).decode()}).encode()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A record among files of other kinds, some of which look a little like one."""
    (tmp_path / "record").write_bytes(record({"a": 1}))
    (tmp_path / "notes.txt").write_text("nothing of Prefect's")
    (tmp_path / "settings.json").write_text('{"metadata": {}, "result": "x"}')
    (tmp_path / "bundle").write_bytes(b"\x89PNG")
    (tmp_path / "list.json").write_text('[{"metadata": 1}]')
    return tmp_path


def test_what_is_no_record_is_left_out(cli: Cli, store: ResultStore, place: Path) -> None:
    said = succeeded(cli("import", "prefect", str(place)))
    assert "5 files: 1 imported" in said
    assert "4 no result records" in said
    assert [row.key for row in store.find()] == ["record"]


def test_records_of_every_form_are_taken(cli: Cli, store: ResultStore, tmp_path: Path) -> None:
    metadata = json.loads(record(1))["metadata"]
    old = {"data": "gAVLAS4=", "serializer": metadata["serializer"], "prefect_version": "2.19.0", "expiration": None}
    (tmp_path / "old").write_text(json.dumps(old))
    (tmp_path / "metadata").write_text(json.dumps(metadata))
    (tmp_path / "spaced").write_text(json.dumps(json.loads(record(1)), indent=2))
    assert "3 files: 3 imported" in succeeded(cli("import", "prefect", str(tmp_path)))


def test_everything_is_taken_when_asked_for(cli: Cli, store: ResultStore, place: Path) -> None:
    assert "5 files: 5 imported" in succeeded(cli("import", "prefect", str(place), "--bare"))
    assert store.result_storage.read_path("bundle") == b"\x89PNG"


@pytest.mark.parametrize("bare", [(), ("--bare",)])
def test_a_dry_run_stores_nothing_and_says_the_same(
    cli: Cli, store: ResultStore, place: Path, bare: tuple[str, ...]
) -> None:
    (place / "cut").write_bytes(record("x")[:-5])
    dry = cli("import", "prefect", str(place), "--dry-run", *bare)
    assert store.find() == []
    assert store.verify().storages[0].empty
    done = cli("import", "prefect", str(place), *bare)
    assert dry.stdout == done.stdout.replace(" imported into", " would be imported into")
    assert dry.exit_code == done.exit_code == 1
    again = cli("import", "prefect", str(place), "--dry-run", *bare).stdout
    assert ("0 would be imported" in again, f"{5 if bare else 1} there already" in again) == (True, True)


def test_a_dry_run_registers_no_storage(cli: Cli, place: Path, fresh_url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    url = psycopg_url(fresh_url)
    for key in (None, "0" * 64):
        if key:
            monkeypatch.setenv("PGRESULTS_SIGNING_KEY", key)
        assert "1 would be imported into 'prefect'" in succeeded(
            cli("import", "prefect", str(place), "--dry-run", url=url)
        )
        assert succeeded(cli("storages", url=url)) == ""
    succeeded(cli("import", "prefect", str(place), "--vouch", url=url))
    assert succeeded(cli("storages", url=url)).startswith("prefect\t")


@pytest.mark.parametrize("below", ["", "storage"])
def test_prefects_home_is_no_place_of_results(cli: Cli, store: ResultStore, place: Path, below: str) -> None:
    (place / "storage").mkdir()
    (place / "prefect.db").write_bytes(b"SQLite format 3\0")
    (place / "storage" / "k").write_bytes(record("kept"))
    if below:
        assert "1 files: 1 imported" in succeeded(cli("import", "prefect", str(place / below)))
        return
    for option in ((), ("--bare",), ("--dry-run",)):
        error = refused(cli("import", "prefect", str(place), *option))
        assert f"{place} is Prefect's own directory" in error
        assert f"{place}/storage" in error
    assert store.find() == []


def test_many_files_are_asked_about(cli: Cli, store: ResultStore, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgresults.cli.importing.MANY", 4)
    for answer in (None, "n\n"):
        ended = cli("import", "prefect", str(place), stdin=answer)
        assert (ended.exit_code, store.find()) == (1, [])
        assert f"Import 5 files from {place} into '{store.result_storage.name}'?" in ended.stderr
    assert "1 would be imported" in succeeded(cli("import", "prefect", str(place), "--dry-run"))
    assert "1 imported" in succeeded(cli("import", "prefect", str(place), "--yes"))
    assert "1 there already" in succeeded(cli("import", "prefect", str(place), stdin="y\n"))
