"""Processes that are killed while they write a result piece by piece: all of it is there, or nothing, and no file."""

import os
import random
import signal
import tempfile
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import URL

from pgresults.database.programs import perform
from pgresults.sql.schema import CHUNK_SIZE
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from pgresults.store.stream_writing import ResultWriter, StreamOptions
from tests.faults.conftest import Tell
from tests.faults.test_faults import wait_for_backends
from tests.support.chains import HALVES
from tests.support.database import psycopg_url

CHUNKS = 6


def content(number: int) -> bytes:
    """What is written under a key."""
    return random.Random(number).randbytes(1 << 16) * (CHUNKS * CHUNK_SIZE >> 16)


def write_until_killed(url: URL, directory: Path, prefix: str, acknowledge: int) -> None:
    """Write one key after the other, and say of each what is written, what has left, and that it is stored."""

    def sent(_: int) -> None:
        os.write(acknowledge, b"sent\n")

    tempfile.tempdir = str(directory)
    store = ResultStore(result_storage=PostgresStorage(url))
    for number in range(1_000_000):
        whole = content(number)
        with ResultWriter(perform(store._open_write(f"{prefix}/{number}", StreamOptions(sent=sent)))) as file:
            for start in range(0, len(whole), CHUNK_SIZE):
                file.write(whole[start : start + CHUNK_SIZE])
                os.write(acknowledge, b"written\n")
        os.write(acknowledge, b"stored\n")


def killed(url: URL, directory: Path, prefix: str, lines: int) -> int:
    """Kill a writer when it has said so many lines; gives how many keys it had stored."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            write_until_killed(url, directory, prefix, writer)
        finally:
            os._exit(1)
    os.close(writer)
    with os.fdopen(reader) as output:
        said = [output.readline() for _ in range(lines)]
        os.kill(pid, signal.SIGKILL)
        said += output
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    return said.count("stored\n")


MOMENTS = (CHUNKS // 2, CHUNKS + CHUNKS // 2, 2 * CHUNKS, 2 * CHUNKS + 1)
"""While it writes, while its bytes leave, when all have left and it is about to commit, and when it is stored."""


def kill_writers(url: URL, directory: Path, times: int, tell: Tell) -> None:
    """Kill writers at the moments in turn, and look at what is there."""
    chance, store = random.Random(times), ResultStore(result_storage=PostgresStorage(url))
    done = lost = 0
    with psycopg.connect(psycopg_url(url), autocommit=True) as connection:
        for round_ in range(times):
            acknowledged = killed(url, directory, f"{round_}", MOMENTS[round_ % 4] + chance.randrange(2))
            wait_for_backends(connection)
            assert connection.execute(HALVES).fetchall() == []
            there = {found.key for found in store.find(prefix=f"{round_}/")}
            assert there <= {f"{round_}/{number}" for number in range(acknowledged + 1)}
            lost += len({f"{round_}/{number}" for number in range(acknowledged)} - there)
            for key in there:
                with store.open_read(key) as file:
                    assert file.read() == content(int(key.partition("/")[2]))
            assert list(directory.iterdir()) == []
            done += acknowledged
            store.close()
    tell("a writer of a stream is killed", rounds=times, acknowledged=done, lost=lost, stuck=0)


def test_a_killed_stream_is_whole_or_nothing(fresh_url: URL, tmp_path: Path, tell: Tell) -> None:
    kill_writers(fresh_url, tmp_path, 4, tell)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_many_killed_streams_are_whole_or_nothing(fresh_url: URL, tmp_path: Path, tell: Tell) -> None:
    kill_writers(fresh_url, tmp_path, 60, tell)
