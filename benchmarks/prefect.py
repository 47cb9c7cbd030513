"""Prefect's results through three blocks, side by side: Postgres, local files and Redis.

``python -m benchmarks.prefect`` starts an embedded Postgres and, where one is installed, a ``redis-server`` on
loopback, both as they come: Postgres syncs every write to disk, files and Redis do not. Payloads are random bytes, each
call has a key of its own. What is timed is a block's ``write_path`` and ``read_path`` of Prefect's document, and the
same through Prefect's own ``ResultStore``, which turns the result into that document and back.
"""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import redis
from prefect.filesystems import LocalFileSystem
from prefect.results import ResultRecord, ResultRecordMetadata, ResultStore
from prefect_redis import RedisDatabase
from rich.console import Console
from rich.table import Table

from benchmarks.timing import Timings, measure
from pgresults.integrations.prefect import PostgresResultStorage
from pgresults.server.embedded import EmbeddedPostgres

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


def _compare(blocks: dict[str, Any], size: int, calls: int, rounds: int) -> dict[str, Timings]:
    """The times of each kind of call."""
    keys, document, result = [f"{size}/{number}" for number in range(calls)], _document(size), os.urandom(size)
    kinds: dict[str, Callable[[Any], Callable[[str], Any]]] = {
        "write": lambda block: lambda key: block.write_path(key, document, _sync=True),
        "read": lambda block: lambda key: block.read_path(key, _sync=True),
        "write by Prefect": lambda block: lambda key: _store(block).write(result, key=key),
        "read by Prefect": lambda block: lambda key: _store(block).read(key),
    }
    subjects = {kind: {name: call(block) for name, block in blocks.items()} for kind, call in kinds.items()}
    measure(subjects["write"], keys, 1)  # connections open, files exist
    return {kind: measure(subjects[kind], keys, rounds) for kind in kinds}


def _store(block: Any) -> ResultStore:
    return ResultStore(result_storage=block, cache_result_in_memory=False)


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
        for block in blocks.values():
            block._block_document_id = uuid4()  # as if saved: Prefect asks others for a path that Redis does not have
        table = Table("size", "call", *(f"{name}, ms" for name in blocks))
        for label, *plan in PLANS:
            for call, timings in _compare(blocks, *plan).items():
                table.add_row(label, call, *(f"{timings.seconds(name) * 1000:.2f}" for name in blocks))
        Console().print(table)


if __name__ == "__main__":
    main()
