"""Files that become results, and results that become files: a piece at a time is in memory."""

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from pgresults.cli.output import replacing
from pgresults.cli.payloads import head_of_live
from pgresults.cli.progress import copying
from pgresults.database.programs import perform
from pgresults.errors import PgResultsError
from pgresults.records.records import ResultRecordMetadata
from pgresults.serializers import BytesSerializer
from pgresults.serializers.preview import described_type
from pgresults.storage.postgres import PostgresStorage
from pgresults.store import ResultStore
from pgresults.store.stream_reading import ResultReader
from pgresults.store.stream_writing import ResultWriter, StreamOptions

_PIECE = 1024 * 1024


class FileSource:
    """A file whose bytes are to be stored.

    Parameters:
        file: it, open.
        path: what it is called.
    """

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file, self._path = file, path
        self._is_read = False

    def store(self, store: ResultStore, key: str, options: StreamOptions) -> ResultRecordMetadata:
        """Store the bytes as the next version of a key; may be called again where the file can be read again.

        Raises: what `ResultStore.open_write` and its file raise; PgResultsError; OSError. Nothing is stored then.
        """
        with copying("Reading", "Storing", total=self._size()) as (reading, storing):
            writer = ResultWriter(perform(store._open_write(key, options._replace(sent=storing))))
            with writer:
                self._begin()
                copied(self._file, writer.write, reading)
        assert writer.metadata is not None  # noqa: S101 (it was closed)
        return writer.metadata

    def _size(self) -> int | None:
        if not self._file.seekable():
            return None
        size = self._file.seek(0, io.SEEK_END)
        self._file.seek(0)
        return size

    def _begin(self) -> None:
        if self._is_read and not self._file.seekable():
            raise PgResultsError(
                f"the lock of the key was taken while {self._path} was read, which can be read only once: "
                "write it to a file first"
            )
        self._is_read = True


def get_file(storage: PostgresStorage, key: str, output: Path | None, *, plain: bool) -> bool:
    """Write a result that is the bytes of a file to a file or to standard output, once all of it was checked.

    Parameters:
        storage: where it is.
        key: its key.
        output: where to; None: standard output.
        plain: whether only bytes count, and not the files that arrays and frames are kept as.

    Returns: whether it is one: of anything else nothing is written.
    Raises: MissingResult; IntegrityError; OSError.
    """
    head = head_of_live(storage, key)
    kinds = {None, "bytes"} if plain else {None, "bytes", "npy", "arrow"}
    if described_type(head.serializer) not in kinds:
        return False
    # What has no metadata is bytes, too.
    store = ResultStore(result_storage=storage, serializer=BytesSerializer())
    with (
        copying("Checking", "Writing", total=head.size) as (checking, writing),
        ResultReader(perform(store._open_read(key, None, checking))) as source,
    ):
        if source.metadata.serializer.type not in kinds:
            return False  # somebody wrote a further version meanwhile
        if output is None:
            copied(source, sys.stdout.buffer.write, writing)
            sys.stdout.buffer.flush()
            return True
        with replacing(output) as beside, beside.open("wb") as target:
            copied(source, target.write, writing)
    return True


def copied(source: IO[bytes], write: Callable[[bytes], Any], moved: Callable[[int], None]) -> None:
    """Copy what is left of a file; ``moved`` is told how many bytes there were so far."""
    size = 0
    while piece := source.read(_PIECE):
        write(piece)
        size += len(piece)
        moved(size)
