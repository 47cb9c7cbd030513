"""Peak memory of one of Prefect's results through a block and through its own files; needs Linux's ``/proc``.

``python -m benchmarks.prefect_memory`` prints by how many MB a call raises a process's peak beyond what it is given: a
call of the block, given Prefect's document, and one of Prefect's own ``ResultStore``, given the object. Each is made in
a process of its own.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from uuid import uuid4

from prefect.filesystems import LocalFileSystem
from prefect.results import ResultStore
from prefect.serializers import Serializer
from rich.console import Console
from rich.table import Table

from benchmarks.memory import peak
from pgresults.integrations.prefect import PostgresResultStorage
from pgresults.server.embedded import EmbeddedPostgres

MB = 1_000_000
SIZE = 200 * MB
SERIALIZERS = ("pickle", "json")


def _result(serializer: str) -> Any:
    """An object of the size, as large when it is serialized: random bytes, or texts in a list."""
    return os.urandom(SIZE) if serializer == "pickle" else [os.urandom(500).hex() for _ in range(SIZE // 1000)]


def _block(kind: str, directory: str) -> Any:
    place = f"{directory}/{kind}"
    block: Any = LocalFileSystem(basepath=place) if kind == "files" else PostgresResultStorage(path=place)
    block._block_document_id = uuid4()  # as if saved
    return block


def _call(kind: str, directory: str, whose: str, operation: str, serializer: str) -> int:
    """The bytes by which one call raises the peak of this process."""
    block = _block(kind, directory)
    theirs = ResultStore(result_storage=block, serializer=Serializer(type=serializer), cache_result_in_memory=False)
    theirs.write("connect and import first", key="warm up")
    theirs.read("warm up")
    if operation == "read":
        before = peak()
        found = theirs.read("key") if whose == "Prefect" else block.read_path("key", _sync=True)
    elif whose == "Prefect":
        result = _result(serializer)
        before = peak()
        found = theirs.write(result, key="key")
    else:
        document = Path(directory, "files", "document").read_bytes()
        before = peak()
        found = block.write_path("key", document, _sync=True)
    after = peak()
    del found  # until here it counts
    return after - before


def _prepare(directory: str, serializer: str) -> None:
    """Have Prefect write a document, which the block alone is given later."""
    ResultStore(result_storage=_block("files", directory), serializer=Serializer(type=serializer)).write(
        _result(serializer), key="document"
    )


def _in_a_process(*arguments: str) -> str:
    command = [sys.executable, "-m", "benchmarks.prefect_memory", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main() -> None:
    """Measure and print a table."""
    table = Table("serializer", "call", "files, MB", "Postgres, MB")
    for serializer in SERIALIZERS:
        with tempfile.TemporaryDirectory() as directory:
            _in_a_process("prepare", directory, serializer)
            server = EmbeddedPostgres(Path(directory, "postgres"))
            for whose in ("block", "Prefect"):
                for operation in ("write", "read"):
                    call = (whose, operation, serializer)
                    peaks = [int(_in_a_process(kind, directory, *call)) for kind in ("files", "postgres")]
                    table.add_row(serializer, f"{operation}, {whose}", *(f"{bytes_ / MB:.0f}" for bytes_ in peaks))
            server.stop()
    Console().print(table)


if __name__ == "__main__":
    if sys.argv[1:2] == ["prepare"]:
        _prepare(*sys.argv[2:])
    elif sys.argv[1:]:
        print(_call(*sys.argv[1:]))
    else:
        main()
