"""What is ready to be stored and has to wait: in memory while it is little, else in a file that has no name."""

import pickle
import tempfile
from collections.abc import Iterator
from types import TracebackType
from typing import IO, Self

from pgresults.operations.bulk import Run
from pgresults.operations.results import Upload

_IN_MEMORY = 4 * 1024 * 1024
"""Bytes of payload that wait in memory."""


class Spool:
    """Runs of versions, to be gone through as often as needed; a context that ends with its file."""

    def __init__(self) -> None:
        self._kept: list[Run] = []
        self._bytes = 0
        self._file: IO[bytes] | None = None
        self._places: list[int] = []

    def add(self, run: Run) -> None:
        """Have a run wait behind those that are there.

        Raises: OSError when the disk is full.
        """
        self._bytes += sum(upload.size for upload in run)
        if self._bytes <= _IN_MEMORY:
            self._kept.append(run)
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="pgresults-")  # noqa: SIM115 (it ends with the spool)
        self._places.append(self._file.seek(0, 2))
        pickle.dump([tuple(upload) for upload in run], self._file, protocol=5)

    def runs(self) -> Iterator[Run]:
        """The runs in their order."""
        yield from self._kept
        for place in self._places:
            assert self._file is not None  # noqa: S101 (it has places)
            self._file.seek(place)
            yield [Upload(*parts) for parts in pickle.load(self._file)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()
