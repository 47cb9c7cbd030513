"""Peak memory of one write and of one read, each in a process of its own; needs Linux's ``/proc``."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.bare import Bare
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore

URL = "PGRESULTS_DATABASE_URL"
_KEY = "memory"


def peak_bytes(subject: str, operation: str, size: int, url: str, schema: str) -> int:
    """Bytes by which a call raises a process's peak memory: for a write, beyond the object it is given.

    Parameters:
        subject: ``store`` or ``bare``.
        operation: ``write``, or ``read`` of what was written.
    """
    command = [sys.executable, "-m", "benchmarks.memory", subject, operation, str(size), schema]
    environment = os.environ | {URL: url}
    return int(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


def peak() -> int:
    """The peak of this process's memory so far, in bytes."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))


def _contestant(subject: str, url: str, schema: str) -> tuple[Callable[[str, bytes], Any], Callable[[str], Any]]:
    if subject == "bare":
        bare = Bare(psycopg.connect(url, autocommit=True), schema)
        return bare.write, bare.read
    store = ResultStore(result_storage=PostgresStorage(url, "benchmarks", schema), cache_result_in_memory=False)
    return lambda key, data: store.write(data, key=key), store.read


def _main(subject: str, operation: str, size: int, schema: str) -> None:
    write, read = _contestant(subject, os.environ[URL], schema)
    write("warm up", b"connect and import first")
    read("warm up")
    data = os.urandom(size) if operation == "write" else b""
    before = peak()
    found = write(_KEY, data) if operation == "write" else read(_KEY)
    after = peak()
    del found  # until here it counts
    print(after - before)


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
