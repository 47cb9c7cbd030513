"""The serializer for frames and tables, as Arrow's IPC files."""

import io
import json
from abc import ABC, abstractmethod
from typing import Any, Literal

from pgresults.serializers.binary import BinarySerializer, library
from pgresults.serializers.parts import Arrived, Dumped, Parts, held

Compression = Literal["zstd", "lz4"] | None
_MARK = b"pgresults"


class ArrowSerializer(BinarySerializer):
    """Keeps frames of pandas and polars and tables of pyarrow as Arrow's IPC files, and nothing else.

    What comes back is of the same library and has the same types. A frame that would come back as another one is
    refused: it is read once and compared before it is stored.

    Parameters:
        compression: of the columns: ``"zstd"``, ``"lz4"``, or None.
    """

    type: str = "arrow"
    compression: Compression = None

    def _made(self, obj: Any) -> Dumped:
        name = f"{type(obj).__module__.partition('.')[0]}.{type(obj).__qualname__}"
        kind = next((kind for kind in _KINDS if kind.name == name), None)
        if kind is None:
            raise TypeError(
                f"arrow keeps frames of pandas and polars and tables of pyarrow, no {name}: use pickle, or make one of "
                "these of it (of a Series by to_frame())"
            )
        payload = kind.written(obj, self.compression)
        if (difference := kind.difference(obj, self._read(payload))) is not None:
            raise TypeError(f"arrow would bring the frame back as another one ({difference}): use pickle")
        return Parts((payload.cast("B"),), payload.nbytes)

    def loads(self, blob: bytes) -> Any:
        return self._read(memoryview(blob))

    def _load(self, payload: Arrived, *, spend: bool) -> Any:
        # A table goes on using the memory that it was read from.
        return self._read(memoryview(payload if spend or isinstance(payload, bytes) else held(payload, spend=False)))

    def _read(self, payload: memoryview) -> Any:
        said = _said(payload)
        return next(kind for kind in _KINDS if kind.name == said["kind"]).read(payload, said)


def _said(payload: memoryview) -> dict[str, Any]:
    """What was noted about a payload; nothing stands in what polars writes, of which pyarrow may know no types."""
    arrow = _arrow()
    try:
        metadata = arrow.ipc.open_file(arrow.py_buffer(payload)).schema.metadata or {}
    except arrow.ArrowNotImplementedError:
        metadata = {}
    said: dict[str, Any] = json.loads(metadata.get(_MARK, b"{}"))
    return {"kind": _Polars.name, **said}


class _Kind(ABC):
    """How one library's frames are written, read and compared."""

    name: str

    @abstractmethod
    def written(self, frame: Any, compression: Compression) -> memoryview:
        """A frame as a file."""

    @abstractmethod
    def read(self, payload: memoryview, said: dict[str, Any]) -> Any:
        """The frame of a file, of which something was said."""

    @abstractmethod
    def difference(self, frame: Any, back: Any) -> str | None:
        """In what a frame that was read differs; None: in nothing."""


class _PyArrow(_Kind):
    name = "pyarrow.Table"

    def written(self, frame: Any, compression: Compression) -> memoryview:
        return self._written(frame, compression, {})

    def _written(self, table: Any, compression: Compression, said: dict[str, Any]) -> memoryview:
        arrow = _arrow()
        note = json.dumps({"kind": self.name, **said}).encode()
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), _MARK: note})
        options = arrow.ipc.IpcWriteOptions(compression=compression, unify_dictionaries=True)
        sink = arrow.BufferOutputStream()
        with arrow.ipc.new_file(sink, table.schema, options=options) as writer:
            writer.write_table(table)
        return memoryview(sink.getvalue())

    def read(self, payload: memoryview, _said: dict[str, Any]) -> Any:
        arrow = _arrow()
        table = arrow.ipc.open_file(arrow.py_buffer(payload)).read_all()
        metadata = {name: value for name, value in table.schema.metadata.items() if name != _MARK}
        return table.replace_schema_metadata(metadata or None)

    def difference(self, frame: Any, back: Any) -> str | None:
        same = frame.schema.equals(back.schema, check_metadata=True) and len(frame) == len(back)
        return None if same else "its schema"


class _Polars(_Kind):
    name = "polars.DataFrame"

    def written(self, frame: Any, compression: Compression) -> memoryview:
        file = io.BytesIO()
        frame.write_ipc(file, compression=compression or "uncompressed")
        return file.getbuffer()

    def read(self, payload: memoryview, _said: dict[str, Any]) -> Any:
        polars = library("polars", "arrow", "polars")
        return polars.read_ipc(io.BytesIO(payload))

    def difference(self, frame: Any, back: Any) -> str | None:
        if frame.schema != back.schema:
            return "its schema"
        return None if frame.equals(back, null_equal=True) else "its values"


class _Pandas(_PyArrow):
    name = "pandas.DataFrame"

    def written(self, frame: Any, compression: Compression) -> memoryview:
        columns, freq = frame.columns, getattr(frame.index, "freq", None)
        if columns.nlevels == 1 and columns.inferred_type.startswith("mixed"):
            raise TypeError("arrow keeps no columns whose names are of several types: rename them, or use pickle")
        said: dict[str, Any] = {}
        if type(columns).__name__ == "RangeIndex":
            said["columns"] = [columns.start, columns.stop, columns.step]
        if freq is not None and type(frame.index).__name__ in ("DatetimeIndex", "TimedeltaIndex"):
            said["freq"] = frame.index.freqstr
        return self._written(_arrow().Table.from_pandas(frame), compression, said)

    def read(self, payload: memoryview, said: dict[str, Any]) -> Any:
        pandas = library("pandas", "arrow", "pandas")
        frame = super().read(payload, said).to_pandas()
        for number, dtype in enumerate(frame.dtypes):
            if dtype == "category":  # its codes are the payload's memory, which pandas does not write into
                frame.isetitem(number, frame.iloc[:, number].copy())
        if "columns" in said:
            frame.columns = pandas.RangeIndex(*said["columns"], name=frame.columns.name)
        if "freq" in said:
            frame.index.freq = said["freq"]
        return frame

    def difference(self, frame: Any, back: Any) -> str | None:
        pandas = library("pandas", "arrow", "pandas")
        try:
            pandas.testing.assert_frame_equal(
                frame, back, check_exact=True, check_index_type="exact", check_column_type="exact", check_freq=True
            )
        except AssertionError as error:
            return " ".join(str(error).split())[:200]
        if frame.attrs != back.attrs or frame.flags.allows_duplicate_labels != back.flags.allows_duplicate_labels:
            return "its attrs or flags"
        if getattr(frame.columns, "freq", None) != getattr(back.columns, "freq", None):
            return "the frequency of its columns"
        pairs = zip(_objects(frame), _objects(back), strict=True)
        if all(_is_same(*both) for ones, others in pairs for both in zip(ones, others, strict=True)):
            return None
        return "objects in it"


def _is_same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and repr(one) == repr(other)


def _objects(frame: Any) -> list[Any]:
    """The columns and levels that hold Python's objects, among which comparing takes some for the same that are not."""
    indexes = [one.get_level_values(level) for one in (frame.index, frame.columns) for level in range(one.nlevels)]
    columns = [frame.iloc[:, number] for number in range(frame.shape[1])]
    return [one for one in (*indexes, *columns) if one.dtype == object]


_KINDS = (_PyArrow(), _Polars(), _Pandas())


def _arrow() -> Any:
    return library("pyarrow", "arrow", "pgresults[arrow]")
