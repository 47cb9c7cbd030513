"""Bundles of evidence: whoever has one and Python checks it, and is told what was changed in it."""

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pgresults.serializers import JSONSerializer
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.cli import Cli, refused, succeeded
from tests.support.documents import ROOT
from tests.support.sealing import TOMORROW


@pytest.fixture
def store(storage: PostgresStorage) -> ResultStore:
    store = ResultStore(result_storage=storage, serializer=JSONSerializer())
    store.write_many({f"other/{n}": n for n in range(9)})
    for n in range(12):
        store.write({"n": n}, key="k/ä", tags=["a"], provenance={"x": 1.50})
    store.touch("k/ä", TOMORROW)
    return store


@pytest.fixture
def bundle(cli: Cli, store: ResultStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle, unpacked; what came after the seal is in it, too."""
    monkeypatch.setenv("PGRESULTS_SEAL_KEY", str(tmp_path / "seal.pem"))
    seal, file = str(tmp_path / "seal.json"), str(tmp_path / "evidence.zip")
    while json.loads(succeeded(cli("seal")))["entries"] < 22:
        pass
    succeeded(cli("seal", "-o", seal))
    store.write("later", key="k/ä")
    told = succeeded(cli("evidence", "k/ä", "--seal", seal, "-o", file))
    assert json.loads(Path(seal).read_bytes())["public_key"] in told
    with zipfile.ZipFile(file) as packed:
        packed.extractall(tmp_path / "bundle")
    return tmp_path / "bundle"


def check(bundle: Path) -> "subprocess.CompletedProcess[str]":
    key = json.loads((bundle.parent / "seal.json").read_bytes())["public_key"]
    command = [sys.executable, "-I", "-S", bundle / "verify.py", "--public-key", key]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_bundle_is_checked_by_python_alone(cli: Cli, bundle: Path) -> None:
    done = check(bundle)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert sum("version" in line and "its payload is the one stored" in line for line in lines) == 12
    assert "entry-13.json: touch of 'k/ä'" in done.stdout
    assert lines[-2:] == [
        "history: entries 1 to 13 follow each other up to what was sealed",
        "NOT SEALED: 1 later entries; they follow each other, and nobody vouches for them",
    ]
    assert json.loads((bundle / "payloads" / "12.bin").read_bytes())["n"] == 11
    assert (bundle / "format.md").read_bytes() == (ROOT / "docs" / "format.md").read_bytes()
    assert {file.name for file in bundle.iterdir()} >= {"README.txt", "seal.json", "public_key.txt"}
    proof, payload = str(bundle / "proofs" / "3.json"), str(bundle / "payloads" / "3.bin")
    key = (bundle / "public_key.txt").read_text().strip()
    succeeded(cli("check-proof", proof, "--payload", payload, "--public-key", key))


def edit(name: str, change: Callable[[Any], Any]) -> Callable[[Path], object]:
    def edited(bundle: Path) -> None:
        content = json.loads((bundle / name).read_bytes())
        (bundle / name).write_text(json.dumps(change(content)))

    return edited


def empty(bundle: Path, directory: str) -> None:
    for file in (bundle / directory).iterdir():
        file.unlink()


CHANGES: dict[str, Callable[[Path], object]] = {
    "a payload": lambda bundle: (bundle / "payloads" / "2.bin").write_bytes(b"{}"),
    "payloads exchanged": lambda bundle: (bundle / "payloads" / "2.bin").rename(bundle / "payloads" / "3.bin"),
    "a payload of nothing": lambda bundle: (bundle / "payloads" / "99.bin").write_bytes(b"{}"),
    "an entry": edit("history.json", lambda entries: [entries[0] | {"actor": "x"}, *entries[1:]]),
    "an entry is gone": edit("history.json", lambda entries: entries[:3] + entries[4:]),
    "the first is gone": edit("history.json", lambda entries: entries[1:]),
    "no history": edit("history.json", lambda _: {}),
    "another seal": edit("seal.json", lambda seal: seal | {"bound": seal["bound"] + 1}),
    "no seal": edit("seal.json", lambda _: []),
    "a proof": edit("proofs/4.json", lambda proof: proof | {"path": {**proof["path"], "index": 0, "entries": 1}}),
    "proofs exchanged": lambda bundle: (bundle / "proofs" / "2.json").rename(bundle / "proofs" / "3.json"),
    "no proofs": lambda bundle: [empty(bundle, "proofs"), empty(bundle, "payloads")],
    "nothing": lambda bundle: (bundle / "history.json").unlink(),
}


def test_a_bundle_that_was_changed_is_refused(bundle: Path, tmp_path: Path) -> None:
    original = {file: file.read_bytes() for file in bundle.rglob("*") if file.is_file()}
    for name, change in CHANGES.items():
        change(bundle)
        done = check(bundle)
        assert (done.returncode, done.stderr[:9], "Traceback" in done.stderr) == (1, "REFUSED: ", False), name
        empty(bundle, "payloads")
        for file, content in original.items():
            file.write_bytes(content)
    assert check(bundle).returncode == 0


def test_what_was_stored_can_be_left_out(cli: Cli, bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "without.zip"
    succeeded(cli("evidence", "k/ä", "--no-payloads", "--seal", str(tmp_path / "seal.json"), "-o", str(file)))
    with zipfile.ZipFile(file) as packed:
        assert not [name for name in packed.namelist() if name.startswith("payloads")]
        assert json.loads(packed.read("proofs/1.json"))["payload"] is None
    same = tmp_path / "same.zip"
    succeeded(cli("evidence", "k/ä", "--no-payloads", "--seal", str(tmp_path / "seal.json"), "-o", str(same)))
    assert same.read_bytes() == file.read_bytes()


def test_what_was_never_sealed_has_no_evidence(cli: Cli, bundle: Path, store: ResultStore, tmp_path: Path) -> None:
    store.write(1, key="new")
    seal, file = str(tmp_path / "seal.json"), tmp_path / "none.zip"
    assert "covers nothing of 'new'" in refused(cli("evidence", "new", "--seal", seal, "-o", str(file)))
    assert "never" in refused(cli("evidence", "never", "--seal", seal, "-o", str(file)))
    assert not file.exists()


def test_what_was_erased_has_no_payloads(cli: Cli, bundle: Path, store: ResultStore, tmp_path: Path) -> None:
    store.redact("k/ä", reason="asked to")
    file = tmp_path / "erased.zip"
    succeeded(cli("evidence", "k/ä", "--seal", str(tmp_path / "seal.json"), "-o", str(file)))
    with zipfile.ZipFile(file) as packed:
        assert not [name for name in packed.namelist() if name.startswith("payloads")]
        packed.extractall(tmp_path / "erased")
    assert check(tmp_path / "erased").returncode == 0
