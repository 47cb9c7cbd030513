"""What arrays cost in memory beside themselves, seen in processes of their own."""

import subprocess
import sys

import pytest

from pgresults.store import ResultStore
from tests.support.database import psycopg_url

SIZE = 256 << 20

PROGRAM = """
import os, sys
from pathlib import Path
import numpy
from pgresults import PostgresStorage, ResultStore

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))

operation, url, name, serializer, size = sys.argv[1:]
store = ResultStore(result_storage=PostgresStorage(url, name), serializer=serializer)
small = numpy.arange(300_000, dtype="i8")  # several chunks: imports and connects
store.write(small, "small")
assert (store.read("small").result == small).all()
array = numpy.arange(int(size) // 8, dtype="i8") if operation == "write" else None
Path("/proc/self/clear_refs").write_text("5")
before = peak()
if operation == "write":
    store.write(array, "large")
else:
    array = store.read("large").result
    assert array[-1] == len(array) - 1 and array.flags.writeable
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("serializer", ["pickle", "npy"])
def test_an_array_is_written_beside_little_and_read_into_one_buffer(store: ResultStore, serializer: str) -> None:
    storage = store.result_storage

    def raised(operation: str) -> int:
        arguments = (operation, psycopg_url(storage.database.url()), storage.name, serializer, str(SIZE))  # type: ignore[union-attr]
        done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return int(done.stdout)

    assert raised("write") < 40 << 20
    assert raised("read") < SIZE + (40 << 20)
