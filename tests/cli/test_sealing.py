"""Seals that the program keeps: where, whole or not at all, and again and again."""

import json
import os
import signal
import subprocess
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from threading import Event

import pytest

from pgresults.audit.seals import Seal
from pgresults.cli import sealing
from pgresults.cli.serving import serve, until_signalled
from pgresults.errors import IntegrityError, StorageUnavailable
from pgresults.serializers import JSONSerializer
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.cli import PROGRAM, Cli, refused, succeeded
from tests.support.database import psycopg_url


@pytest.fixture
def cli(signing_cli: Cli) -> Cli:
    return signing_cli


@pytest.fixture
def store(storage: PostgresStorage) -> ResultStore:
    store = ResultStore(result_storage=storage, serializer=JSONSerializer())
    store.write(1, key="k")
    return store


def seals_in(directory: Path) -> list[Seal]:
    return [Seal.load_bytes(file.read_bytes()) for file in sorted(directory.iterdir())]


def test_seals_in_a_directory_continue_one_another(cli: Cli, store: ResultStore, tmp_path: Path) -> None:
    kept = f"{tmp_path}/kept/"
    for _ in range(3):
        assert f"{kept}seal-2" in succeeded(cli("seal", "--to", kept))
    first, second, third = seals_in(Path(kept))
    assert (first.previous, second.previous, third.previous) == (None, first.digest, second.digest)
    followed = succeeded(cli("verify", "--chain", kept))
    assert "chain: 3 seals of" in followed
    assert "recomputed from the database" in followed
    (Path(kept) / "seal-0.json").write_text("{}")
    assert "seal-0.json: this is no seal" in refused(cli("seal", "--to", kept))


def test_a_file_has_the_newest_seal(cli: Cli, store: ResultStore, tmp_path: Path) -> None:
    kept, before = tmp_path / "kept.json", tmp_path / "before.json"
    succeeded(cli("seal", "--to", str(kept)))
    kept.rename(before)
    succeeded(cli("seal", "--to", str(kept), "--after", str(before)))
    first, second = (Seal.load_bytes(file.read_bytes()) for file in (before, kept))
    assert second.previous == first.digest
    succeeded(cli("seal", "--to", str(kept)))
    assert Seal.load_bytes(kept.read_bytes()).previous == second.digest
    told = cli("verify", "--chain", str(before), "--chain", str(kept))
    assert told.exit_code == 1
    assert "does not name the one before it" in told.stdout


def test_a_command_keeps_what_it_reads(cli: Cli, store: ResultStore, tmp_path: Path) -> None:
    kept = tmp_path / "kept.json"
    succeeded(cli("seal", "--to", f"| cat > '{kept}'"))
    assert Seal.load_bytes(kept.read_bytes()).previous is None
    assert "ended with 3" in refused(cli("seal", "--to", "| exit 3"))
    assert "ended by signal 9" in refused(cli("seal", "--to", "| kill -9 $$"))
    assert "ended with 127" in refused(cli("seal", "--to", "| no-such-command 2> /dev/null"))


def test_nothing_is_left_by_halves(
    cli: Cli, store: ResultStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "kept" / "seal.json"
    kept.parent.mkdir()
    succeeded(cli("seal", "--to", str(kept)))
    before = kept.read_bytes()

    def write_half(path: Path, data: bytes) -> None:
        with path.open("wb") as file:
            file.write(data[:100])
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", write_half)
    assert f"{kept}: No space left" in refused(cli("seal", "--to", str(kept)))
    assert [file.read_bytes() for file in kept.parent.iterdir()] == [before]


@pytest.mark.parametrize(
    "options", [("--every", "1h"), ("--every", "1h", "-o", "x"), ("--to", "x", "-o", "x")], ids=str
)
def test_what_does_not_fit_together_is_refused(cli: Cli, options: tuple[str, ...]) -> None:
    refused(cli("seal", *options), code=2)


def test_a_file_with_another_storages_seal_is_not_replaced(cli: Cli, store: ResultStore, tmp_path: Path) -> None:
    kept = tmp_path / "kept.json"
    succeeded(cli("seal", "--to", str(kept)))
    other = json.loads(kept.read_bytes()) | {"storage_id": "00000000-0000-0000-0000-000000000009"}
    kept.write_text(json.dumps(other))
    assert "keep this one elsewhere" in refused(cli("seal", "--to", str(kept)))


class Clock(Event):
    """A clock that stands still but when somebody waits; it ends what waits for it the given number of times."""

    def __init__(self, waits: int) -> None:
        super().__init__()
        self.time, self.waits, self.waited = 100.0, waits, list[float]()

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.time += timeout
        self.waited.append(timeout)
        if len(self.waited) == self.waits:
            self.set()
        return self.is_set()

    def now(self) -> float:
        return self.time


def served(*outcomes: float | Exception) -> tuple[list[float], list[float]]:
    """When work was begun and how long was waited, where each piece of it takes so long or fails."""
    clock, left, begun = Clock(len(outcomes)), list(outcomes), list[float]()

    def work() -> None:
        begun.append(clock.time - 100)
        outcome = left.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        clock.time += outcome

    serve(timedelta(hours=1), work, clock, (StorageUnavailable, OSError), clock.now)
    return begun, clock.waited


def test_work_is_done_when_it_is_due(capsys: pytest.CaptureFixture[str]) -> None:
    assert served(0, 600, 0) == ([0, 3600, 7200], [3600, 3000, 3600])
    assert served(9000, 0) == ([0, 10800], [1800, 3600])
    assert capsys.readouterr() == ("", "")


def test_an_outage_is_waited_out_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    away = StorageUnavailable("the database is away")
    begun, waited = served(0, *[away] * 90, 0, OSError(28, "No space left on device", "x"), 0)
    assert begun[1:3] == [3600, 3660]
    assert begun[91:93] == [3600 + 90 * 60, 10800]
    assert waited[91:] == [1800, 60, 3540]
    assert "the database is away" in (said := capsys.readouterr().err)
    assert "x: No space left" in said


def test_what_was_altered_ends_the_service() -> None:
    with pytest.raises(IntegrityError):
        served(0, IntegrityError("it is not as it was"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_wait(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with until_signalled() as enough:
        os.kill(os.getpid(), number)
        assert enough.wait(60)
        assert signal.getsignal(number) is before
    assert signal.getsignal(number) is before


def test_the_service_continues_its_own_seals(
    cli: Cli, store: ResultStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def thrice(every: timedelta, work: Callable[[], None], enough: Event, passing: tuple[type[Exception], ...]) -> None:
        assert every == timedelta(hours=1)
        for _ in range(3):
            work()

    monkeypatch.setattr(sealing, "serve", thrice)
    kept = tmp_path / "kept"
    command = f"| mkdir -p {kept}; cat > {kept}/$(ls {kept} | wc -l)"
    told = cli("seal", "--every", "1h", "--to", command)
    assert succeeded(told).splitlines() == [f"sealing to {command} every 1:00:00"]
    assert told.stderr == ""
    first, second, third = seals_in(kept)
    assert (first.previous, second.previous, third.previous) == (None, first.digest, second.digest)


def test_the_service_ends_well(store: ResultStore, tmp_path: Path) -> None:
    storage = store.result_storage
    assert isinstance(storage, PostgresStorage)
    fifo = tmp_path / "sealed"
    os.mkfifo(fifo)
    url = psycopg_url(storage.database.url())
    process = subprocess.Popen(
        [PROGRAM, "--database-url", url, "--storage", storage.name, "seal", "--every", "1h", "--to", f"| cat > {fifo}"],
        env=os.environ | {"PGRESULTS_SEAL_KEY": str(tmp_path / "seal.pem")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    Seal.load_bytes(fifo.read_bytes())
    process.terminate()
    assert process.communicate(timeout=60)[1] == b""
    assert process.returncode == 0


def test_a_key_is_rotated(cli: Cli, store: ResultStore, tmp_path: Path) -> None:
    kept = f"{tmp_path}/kept/"
    succeeded(cli("seal", "--to", kept))
    assert " follows " in succeeded(cli("rotate-seal-key"))
    succeeded(cli("seal", "--to", kept))
    first, second = seals_in(Path(kept))
    assert [one.by for one in second.endorsements] == [first.public_key]
    succeeded(cli("verify", "--chain", kept))


def test_a_stamp_of_another_seal_is_refused(cli: Cli, store: ResultStore, tmp_path: Path) -> None:
    kept, stamp = str(tmp_path / "kept.json"), tmp_path / "stamp.tsr"
    succeeded(cli("seal", "--to", kept))
    assert succeeded(cli("attach-timestamp", kept)).strip() == Seal.load_bytes(Path(kept).read_bytes()).digest
    stamp.write_bytes(b"nothing")
    assert "no answer" in refused(cli("attach-timestamp", kept, str(stamp)))
