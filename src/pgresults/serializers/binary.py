"""Serializers whose payloads are files of a known format, or bytes as they are."""

import base64
import io
import math
from abc import abstractmethod
from importlib import import_module
from typing import Any

from pgresults.errors import ConfigurationError
from pgresults.serializers.base import Serializer
from pgresults.serializers.parts import Arrived, Dumped, Parts, PartsFile, opened


def library(name: str, serializer: str, install: str) -> Any:
    """A library that only a serializer needs.

    Raises: ConfigurationError, which says what to install, where it is missing.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise ConfigurationError(
            f"the serializer {serializer!r} needs {name.partition('.')[0]}, which is not installed: "
            f"pip install '{install}'"
        ) from error


class BinarySerializer(Serializer[Any]):
    """What serializers have whose payloads are no text."""

    @abstractmethod
    def _made(self, obj: Any) -> Dumped:
        """The payload of an object."""

    def dumps(self, obj: Any) -> bytes:
        made = self._made(obj)
        return made.joined() if isinstance(made, Parts) else made

    def _dump(self, obj: Any) -> Dumped:
        return self._made(obj)

    def _to_text(self, payload: bytes) -> str:
        return base64.b64encode(payload).decode()

    def _from_text(self, text: str) -> bytes:
        return base64.b64decode(text)


class BytesSerializer(BinarySerializer):
    """Keeps bytes as they are, and gives them back as ``bytes``; takes whatever has a buffer, and nothing else."""

    type: str = "bytes"

    def _made(self, obj: Any) -> Dumped:
        view = memoryview(obj)
        return Parts((view.cast("B"),), view.nbytes) if view.c_contiguous and view.nbytes else view.tobytes()

    def loads(self, blob: bytes) -> Any:
        return bytes(blob)

    def _load(self, payload: Arrived, *, spend: bool) -> Any:
        return opened(payload, spend=spend).read(len(payload)) if isinstance(payload, memoryview) else bytes(payload)


class NpySerializer(BinarySerializer):
    """Keeps an array of NumPy's as a ``.npy`` file, and nothing else; no code is run when it is read.

    An array that would come back as another one is refused: of objects, of a subclass, of a type that the format
    does not know.
    """

    type: str = "npy"

    def _made(self, obj: Any) -> Dumped:
        numpy = _numpy()
        if type(obj) is not numpy.ndarray:
            raise TypeError(f"npy keeps arrays of NumPy's own class, no {type(obj).__qualname__}: use pickle")
        form = numpy.lib.format
        described = form.dtype_to_descr(obj.dtype) if _is_plain(obj.dtype, numpy.void) else None
        if described is None or form.descr_to_dtype(described) != obj.dtype:
            raise TypeError(f"npy cannot keep the type {obj.dtype}: use pickle")
        header, file = io.BytesIO(), PartsFile()
        turned = obj.flags.f_contiguous and not obj.flags.c_contiguous
        form.write_array_header_2_0(header, {"descr": described, "fortran_order": turned, "shape": obj.shape})
        file.write(header.getvalue())
        if obj.nbytes:
            lying = obj.T if turned else numpy.ascontiguousarray(obj)
            file.write(lying.reshape(-1).view("u1"))
        return file.parts()

    def loads(self, blob: bytes) -> Any:
        return self._read(bytearray(blob))

    def _load(self, payload: Arrived, *, spend: bool) -> Any:
        # The array can be written into, and nobody else must see that.
        return self._read(payload if spend and not isinstance(payload, bytes) else bytearray(payload))

    def _read(self, payload: bytearray | memoryview) -> Any:
        numpy = _numpy()
        file = io.BytesIO(payload[:_LONGEST_HEADER])
        shape, turned, dtype = _read_header(numpy.lib.format, file)
        if len(payload) - file.tell() != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"the payload holds not what its header says, {shape} of {dtype}")
        order = "F" if turned else "C"
        return numpy.ndarray(shape, dtype, buffer=payload, offset=file.tell(), order=order)


_LONGEST_HEADER = 1024 * 1024


def _numpy() -> Any:
    return library("numpy", "npy", "pgresults[npy]")


def _is_plain(dtype: Any, structure: type) -> bool:
    """Whether a type has nothing that a description of it would leave out."""
    if dtype.hasobject or dtype.metadata or dtype.isalignedstruct or (dtype.names and dtype.type is not structure):
        return False
    parts = [part for part, *_ in (dtype.fields or {}).values()] + list((dtype.subdtype or ())[:1])
    return all(_is_plain(part, structure) for part in parts)


def _read_header(form: Any, file: io.BytesIO) -> Any:
    version = form.read_magic(file)
    read = {(1, 0): form.read_array_header_1_0, (2, 0): form.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"npy in version {version} is not known here")
    return read(file, max_header_size=_LONGEST_HEADER)
