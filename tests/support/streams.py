"""Writing and reading a result piece by piece, over either kind of file."""

import io
from typing import Any

from pgresults import ResultStore
from pgresults.results import ResultRecordMetadata
from pgresults.store.stream_writing import ResultWriter
from tests.support.calls import Call

_PIECE = 300_000


async def write_pieces(
    call: Call, store: ResultStore, key: str, content: bytes, **options: Any
) -> ResultRecordMetadata:
    """Write content in pieces; gives the metadata as stored."""
    file = await call(store, "open_write", key, **options)
    pieces = [content[start : start + _PIECE] for start in range(0, len(content), _PIECE)]
    if isinstance(file, ResultWriter):
        with file:
            for piece in pieces:
                assert file.write(piece) == len(piece)
    else:
        async with file:
            for piece in pieces:
                assert await file.write(piece) == len(piece)
    assert file.tell() == len(content)
    return file.metadata  # type: ignore[no-any-return]


async def read_all(call: Call, store: ResultStore, key: str) -> bytes:
    """Read content in pieces."""
    file = await call(store, "open_read", key)
    if isinstance(file, io.BufferedReader):
        with file:
            return b"".join(iter(lambda: file.read(_PIECE), b""))
    async with file:
        return b"".join([piece async for piece in file])
