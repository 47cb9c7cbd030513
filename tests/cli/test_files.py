"""Files put and got piece by piece: whole or not at all, in little memory."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from pgresults.cli import files
from pgresults.errors import MissingResult
from pgresults.serializers import NpySerializer, PickleSerializer
from pgresults.sql.schema import CHUNK_SIZE
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.cli import PROGRAM, Cli, on_terminal, refused, succeeded

CONTENT = bytes(range(256)) * (2 * CHUNK_SIZE // 256) + b"and more"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file of several chunks."""
    file = tmp_path / "source"
    file.write_bytes(CONTENT)
    return file


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A file in a directory of its own, where nothing else must be."""
    (tmp_path / "target").mkdir()
    return tmp_path / "target" / "file"


def pipe_of(content: bytes) -> str:
    """The name of a pipe that gives a few bytes once."""
    reading, writing = os.pipe()
    os.write(writing, content)
    os.close(writing)
    return f"/dev/fd/{reading}"


@pytest.mark.parametrize("content", [b"", b"\x80few", CONTENT], ids=["nothing", "few", "many"])
def test_a_file_comes_back_byte_by_byte(cli: Cli, store: ResultStore, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "in").write_bytes(content)
    said = succeeded(cli("put", "k", "--file", str(tmp_path / "in"), "--tag", "t", "--expires-in", "1h"))
    assert f"version 1, {len(content):,} bytes, expires" in said
    record = store.read("k")
    assert (record.result, record.metadata.size, record.serializer.type) == (content, len(content), "bytes")
    assert [found.key for found in store.find(tags=["t"])] == ["k"]
    for options in ((), ("--raw",)):
        assert cli("get", "k", *options).stdout_bytes == content
        assert cli("get", "k", *options, "-o", str(tmp_path / "out")).stdout == ""
        assert (tmp_path / "out").read_bytes() == content


def test_a_pipe_is_a_file(cli: Cli, store: ResultStore) -> None:
    succeeded(cli("put", "k", "--file", pipe_of(b"from a pipe")))
    assert store.read("k").result == b"from a pipe"
    assert cli("get", "k", "-o", "/dev/stdout").exit_code == 0


OTHERS: dict[str, tuple[Any, bytes]] = {
    "pickled bytes": (b"\x00pickled", b"\x00pickled"),
    "a pickled text": ("text", b"'text'\n"),
    "a large one": (CONTENT, CONTENT),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_no_file_is_written_as_it_is_printed(cli: Cli, store: ResultStore, target: Path, kind: str) -> None:
    obj, expected = OTHERS[kind]
    store.model_copy(update={"serializer": PickleSerializer()}).write(obj, "k")
    assert cli("get", "k", "-o", str(target)).exit_code == 0
    assert target.read_bytes() == expected


def test_a_locked_key_is_left_alone_or_taken(cli: Cli, storage: PostgresStorage, source: Path) -> None:
    locks = storage.lock_manager()
    locks.acquire_lock("k", "another")
    assert "another" in refused(cli("put", "k", "--file", str(source)))
    succeeded(cli("put", "k", "--file", pipe_of(b"once"), "--force", "--reason", "a test"))
    assert ResultStore(result_storage=storage).read("k").result == b"once"


@pytest.mark.parametrize("again", [True, False], ids=["a file", "a pipe"])
def test_a_lock_that_is_taken_meanwhile(
    cli: Cli, storage: PostgresStorage, source: Path, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    """Of a file all is stored in the end; a pipe's bytes are gone, and nothing must be stored in their place."""
    locks, copied = storage.lock_manager(), files.copied

    def taking(source: Any, write: Callable[[bytes], Any], moved: Callable[[int], None]) -> None:
        monkeypatch.setattr(files, "copied", copied)
        copied(source, write, moved)
        locks.acquire_lock("k", "another")

    monkeypatch.setattr(files, "copied", taking)
    done = cli("put", "k", "--file", str(source) if again else pipe_of(b"once"), "--force", "--reason", "a test")
    store = ResultStore(result_storage=storage)
    if again:
        succeeded(done)
        assert store.read("k").result == CONTENT
    else:
        assert "can be read only once" in done.stderr
        assert (done.exit_code, store.exists("k")) == (1, False)


def test_what_is_damaged_replaces_nothing(
    cli: Cli, store: ResultStore, source: Path, target: Path, connection: psycopg.Connection[Any]
) -> None:
    succeeded(cli("put", "k", "--file", str(source)))
    connection.execute(
        "UPDATE pgresults.payload SET data = 'x' WHERE chunk = 1 AND storage_id = %s",
        [store.result_storage.id],  # type: ignore[union-attr]
    )
    target.write_text("as before")
    assert "not what was written" in refused(cli("get", "k", "-o", str(target)))
    assert "not what was written" in refused(cli("get", "k"))
    assert (target.read_text(), list(target.parent.iterdir())) == ("as before", [target])


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")], ids=["^C", "full"])
def test_an_end_in_the_midst_leaves_nothing(
    cli: Cli, store: ResultStore, source: Path, target: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    store.write(b"stored", "k")
    succeeded(cli("put", "large", "--file", str(source)))

    def ending(source: Any, write: Callable[[bytes], Any], moved: Callable[[int], None]) -> None:
        write(source.read(CHUNK_SIZE + 1))
        raise error

    monkeypatch.setattr(files, "copied", ending)
    code = 130 if isinstance(error, KeyboardInterrupt) else 1
    assert cli("put", "k", "--file", str(source)).exit_code == code
    assert cli("get", "large", "-o", str(target)).exit_code == code
    assert list(target.parent.iterdir()) == []
    assert store.read("k").result == b"stored"


def test_ctrl_c_while_a_file_is_read(
    environment: dict[str, str], store: ResultStore, tmp_path: Path, connection: psycopg.Connection[Any]
) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "temporary").mkdir()
    mine = store.result_storage.id  # type: ignore[union-attr]
    command = [str(PROGRAM), "--storage", store.result_storage.name, "put", "k", "--file", str(tmp_path / "fifo")]  # type: ignore[union-attr]
    process = subprocess.Popen(
        command, env=environment | {"TMPDIR": str(tmp_path / "temporary")}, stderr=subprocess.PIPE, text=True
    )
    with (tmp_path / "fifo").open("wb", buffering=0) as fifo:
        for _ in range(4):
            fifo.write(bytes(CHUNK_SIZE))  # more than a pipe holds: it was read
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (130, "")
    with pytest.raises(MissingResult):
        store.read("k")
    assert connection.execute("SELECT FROM pgresults.payload WHERE storage_id = %s", [mine]).fetchall() == []
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize("content", ["bytes", "json"])
def test_what_was_there_keeps_its_readers_and_its_links(
    cli: Cli, store: ResultStore, target: Path, content: str
) -> None:
    store.write(b"secret" if content == "bytes" else "secret", "k")
    target.write_text("before")
    target.chmod(0o640)
    link = target.with_name("link")
    link.symlink_to(target.name)
    assert cli("get", "k", "-o", str(link)).exit_code == 0
    assert link.is_symlink()
    assert b"secret" in target.read_bytes()
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_a_terminal_gets_a_bar(environment: dict[str, str], store: ResultStore, source: Path, tmp_path: Path) -> None:
    at_once = "import pgresults.cli.progress as p; p._SOON = 0; from pgresults.cli.app import run; run()"
    program = [sys.executable, "-c", at_once, "--storage", store.result_storage.name]  # type: ignore[union-attr]
    printed = on_terminal([*program, "put", "k", "--file", str(source)], environment)
    assert "Reading" in printed
    assert "Storing" in printed
    printed = on_terminal([*program, "get", "k", "-o", str(tmp_path / "out")], environment)
    assert "Checking" in printed
    assert "Writing" in printed
    assert (tmp_path / "out").read_bytes() == CONTENT


PEAK = """
import atexit, sys
from pathlib import Path
from pgresults.cli.app import run

@atexit.register
def tell():
    lines = Path("/proc/self/status").read_text().splitlines()
    sys.stderr.write("peak " + next(line.split()[1] for line in lines if line.startswith("VmHWM:")))

run()
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_gibibyte_takes_little_memory(environment: dict[str, str], store: ResultStore, tmp_path: Path) -> None:
    def peak(*arguments: str) -> int:
        command = [sys.executable, "-c", PEAK, "--storage", store.result_storage.name, *arguments]  # type: ignore[union-attr]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=500)
        assert done.returncode == 0, done.stderr
        return int(done.stderr.rpartition("peak ")[2]) << 10

    small, large, out = tmp_path / "small", tmp_path / "large", tmp_path / "out"
    small.write_bytes(b"x")
    piece = os.urandom(1 << 20)
    with large.open("wb") as file:
        for number in range(1 << 10):
            file.write(number.to_bytes(4) + piece[4:])
    usual = peak("put", "small", "--file", str(small)), peak("get", "small", "-o", str(out))
    whole = peak("put", "large", "--file", str(large)), peak("get", "large", "-o", str(out))
    with large.open("rb") as one, out.open("rb") as other:
        while (piece := one.read(1 << 20)) == other.read(1 << 20) and piece:
            pass
        assert piece == b""
    assert out.stat().st_size == 1 << 30
    raised = [large - small for large, small in zip(whole, usual, strict=True)]
    assert max(raised) < 64 << 20, raised


def test_an_array_is_got_as_its_file(cli: Cli, store: ResultStore, target: Path) -> None:
    array = np.arange(CHUNK_SIZE)
    store.model_copy(update={"serializer": NpySerializer()}).write(array, "k")
    assert cli("get", "k", "-o", str(target)).output == ""
    assert (np.load(target) == array).all()
    assert "numpy.ndarray" in succeeded(cli("get", "k"))
    assert "neither a text nor bytes" in refused(cli("get", "k", "--raw", "-o", str(target)))
