"""Prefect's results through three blocks, side by side: Postgres, local files and Redis.

``python -m benchmarks.prefect`` starts an embedded Postgres and, where one is installed, a ``redis-server`` on
loopback, both as they come: Postgres syncs every write to disk, files and Redis do not. Payloads are random bytes, each
call has a key of its own; what is timed is a block's ``write_path`` and ``read_path`` of Prefect's document.
"""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import redis
from prefect.filesystems import LocalFileSystem
from prefect.results import ResultRecord, ResultRecordMetadata
from prefect_redis import RedisDatabase
from rich.console import Console
from rich.table import Table

from benchmarks.timing import Timings, measure
from pgresults.embedded import EmbeddedPostgres
from pgresults.integrations.prefect import PostgresResultStorage

KIB, MIB = 1024, 1024 * 1024
PLANS = (("1 KB", KIB, 100, 7), ("1 MB", MIB, 10, 5), ("64 MB", 64 * MIB, 1, 5))  # label, size, calls, rounds


@contextmanager
def _redis_server() -> Iterator[int]:
    """A Redis of our own on a free port; ends with the block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as directory:
        command = ("redis-server", "--bind", "127.0.0.1", "--port", str(port), "--dir", directory)
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            next(line for line in server.stdout if "Ready to accept connections" in line)
            yield port
        finally:
            with redis.Redis(port=port) as client:
                client.flushall()
            server.terminate()
            server.wait()


@contextmanager
def _postgres(directory: Path) -> Iterator[PostgresResultStorage]:
    """A block on an embedded server of our own."""
    block = PostgresResultStorage(path=str(directory))
    try:
        yield block
    finally:
        block.storage.close()
        EmbeddedPostgres(directory).stop()


def _document(size: int) -> bytes:
    """What Prefect writes for a result of random bytes."""
    record: ResultRecord[Any] = ResultRecord(result=os.urandom(size), metadata=ResultRecordMetadata(storage_key="key"))
    return record.serialize()


def _compare(blocks: dict[str, Any], size: int, calls: int, rounds: int) -> tuple[Timings, Timings]:
    """The times of writes and of reads."""
    document, keys = _document(size), [f"{size}/{number}" for number in range(calls)]
    writes = {name: _writer(block, document) for name, block in blocks.items()}
    reads = {name: _reader(block) for name, block in blocks.items()}
    measure(writes, keys, 1)  # connections open, files exist
    return measure(writes, keys, rounds), measure(reads, keys, rounds)


def _writer(block: Any, document: bytes) -> Any:
    return lambda key: block.write_path(key, document, _sync=True)


def _reader(block: Any) -> Any:
    return lambda key: block.read_path(key, _sync=True)


def main() -> None:
    """Measure and print a table: milliseconds a call, the median over the rounds."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        blocks = {
            "Postgres": stack.enter_context(_postgres(directory / "postgres")),
            "files": LocalFileSystem(basepath=str(directory / "files")),
        }
        if shutil.which("redis-server"):
            blocks["Redis"] = RedisDatabase(port=stack.enter_context(_redis_server()))
        table = Table("size", "call", *(f"{name}, ms" for name in blocks))
        for label, *plan in PLANS:
            for call, timings in zip(("write", "read"), _compare(blocks, *plan), strict=True):
                table.add_row(label, call, *(f"{timings.seconds(name) * 1000:.2f}" for name in blocks))
        Console().print(table)


if __name__ == "__main__":
    main()
