"""The beginnings of arrays and frames, read by libraries that run nothing of what they read."""

import io
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

_ROWS, _COLUMNS = 10, 30
_LONGEST = 80


class Sample(NamedTuple):
    """The first rows of a table: the columns, each with its type, the rows, and how many rows and columns there are."""

    columns: Sequence[tuple[str, str]]
    rows: Sequence[Sequence[str]]
    height: int | None
    width: int


def sample_of(kind: str | None, payload: bytes) -> Sample | None:
    """The head of an array or a frame; None for anything else, and for what cannot be read here.

    Parameters:
        kind: the type of the serializer.
        payload: the payload.
    """
    read = {"npy": _of_array, "arrow": _of_frame}.get(kind or "")
    if read is None:
        return None
    try:
        return read(payload)
    except Exception:  # whatever damaged bytes cause in a library, or that it is not there: the rest is shown
        return None


def _of_array(payload: bytes) -> Sample | None:
    import numpy

    file = io.BytesIO(payload)
    read = {(1, 0): numpy.lib.format.read_array_header_1_0, (2, 0): numpy.lib.format.read_array_header_2_0}
    shape, turned, dtype = read[numpy.lib.format.read_magic(file)](file)
    if dtype.hasobject or len(payload) - file.tell() != math.prod(shape) * dtype.itemsize:
        return None
    array = numpy.ndarray(shape, dtype, payload, file.tell(), order="F" if turned else "C")
    if array.ndim == 0:
        return Sample([("", str(dtype))], [[_short(array[()])]], 1, 1)
    table = array.reshape(array.shape[0], -1)[:_ROWS, :_COLUMNS]
    width = math.prod(shape[1:])
    columns = [(str(number), str(dtype)) for number in range(table.shape[1])]
    return Sample(columns, [[_short(one) for one in row] for row in table], shape[0], width)


def _of_frame(payload: bytes) -> Sample | None:
    import pyarrow

    reader = pyarrow.ipc.open_file(pyarrow.py_buffer(payload))
    schema = reader.schema
    columns = [(name, str(of)) for name, of in zip(schema.names, schema.types, strict=True)][:_COLUMNS]
    # What is compressed may become anything: of that only the columns are told.
    if _is_compressed(pyarrow, payload) or not reader.num_record_batches:
        return Sample(columns, [], None, len(schema.names))
    batch = reader.get_batch(0)
    batch.validate(full=True)  # nobody else looks whether it points beyond itself
    batch = batch.slice(0, _ROWS)
    cells = [[_short(value.as_py()) for value in batch.column(number)] for number in range(len(columns))]
    height = sum(reader.get_batch(number).num_rows for number in range(reader.num_record_batches))
    return Sample(columns, list(zip(*cells, strict=True)), height, len(schema.names))


_BEGINNING = 8  # bytes before the first message of a file
_COMPRESSION = 3  # the field of a batch that says how it is compressed


def _is_compressed(arrow: Any, payload: bytes) -> bool:
    """Whether any batch of a file says that it is compressed; so does one that cannot be understood."""
    messages = arrow.ipc.MessageReader.open_stream(arrow.py_buffer(payload)[_BEGINNING:])
    for message in messages:
        if message.type == "schema":
            continue
        if message.type != "record batch":
            return True
        if _has_field(message.metadata.to_pybytes(), _COMPRESSION):
            return True
    return False


def _has_field(message: bytes, field: int) -> bool:
    """Whether the header of a message, which is a flatbuffer, has a field."""

    def number(at: int, size: int, *, signed: bool = False) -> int:
        return int.from_bytes(message[at : at + size], "little", signed=signed)

    def place(table: int, field: int) -> int:
        described = table - number(table, 4, signed=True)
        entry = 4 + 2 * field
        return number(described + entry, 2) if entry < number(described, 2) else 0

    root = number(0, 4)
    at = root + place(root, 2)  # the header of the message
    batch = at + number(at, 4)
    return place(batch, field) != 0


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
