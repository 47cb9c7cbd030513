"""What a payload is, found out without running any code that it names."""

import bz2
import gzip
import json
import lzma
import pickletools
import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pgresults.errors import PayloadTooLarge
from pgresults.serializers.compression import decompress
from pgresults.serializers.permits import permit
from pgresults.serializers.plain_pickles import NotPlain, plain_value, written

_COMPRESS = {"bz2": bz2, "gzip": gzip, "lzma": lzma, "zlib": zlib}
_BYTES_ONLY = {"PROTO", "FRAME", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "MEMOIZE", "STOP"}
_IGNORED = {"PROTO", "FRAME", "MARK"}


@dataclass(frozen=True, slots=True)
class Content:
    """A payload as it can be shown: ``kind`` is ``json``, ``bytes``, ``text`` (an object as Python writes it),
    ``pickle`` or ``unknown``; ``data`` is what goes to a file, ``document`` the object, where it is known.
    """

    kind: str
    data: bytes
    document: Any = None

    @property
    def is_opaque(self) -> bool:
        """Whether only running code that it names can tell what it is."""
        return self.kind in ("pickle", "unknown")

    def lines(self) -> list[str] | None:
        """What can be compared line by line; None: nothing can."""
        if self.kind == "json":
            return json.dumps(self.document, indent=2, ensure_ascii=False, sort_keys=True).splitlines()
        try:
            return None if self.is_opaque else self.data.decode().splitlines()
        except UnicodeDecodeError:
            return None


def described_type(description: str | None) -> str | None:
    """The type of a serializer by its description; None: there is none, and an empty text where it says none."""
    if description is None:
        return None
    try:
        return str(json.loads(description)["type"])
    except (ValueError, TypeError, KeyError):
        return ""


def content_of(description: str | None, payload: bytes) -> Content:
    """What a payload holds.

    Parameters:
        description: the serializer's description as the database has it; None: the payload is plain bytes. Nothing
            that it names is imported.
        payload: the payload, already verified.
    """
    if description is None:
        return Content("bytes", payload)
    try:
        serializer = json.loads(description)
        while (library := _COMPRESS.get(serializer.get("compressionlib"))) is not None:
            payload = decompress(library, payload, permit().max_bytes)
            serializer = serializer["serializer"]
        if serializer["type"] == "bytes":
            return Content("bytes", payload)
        if serializer["type"] == "json":
            return Content("json", payload, json.loads(payload))
        if serializer["type"] == "pickle":
            return _pickled(payload)
    except PayloadTooLarge:
        raise
    except (
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        RecursionError,
        OSError,
        zlib.error,
        lzma.LZMAError,
        EOFError,
    ):
        pass  # not what its serializer's name says: shown as it is
    return Content("unknown", payload)


def _pickled(payload: bytes) -> Content:
    """What a pickle holds, as far as that can be told without running what it names."""
    plain = _plain_bytes(payload)
    if plain is not None:
        return Content("bytes", plain)
    try:
        value = plain_value(payload)
        return Content("text", f"{written(value)}\n".encode(errors="backslashreplace"), value)
    except NotPlain:
        return Content("pickle", payload)


def _plain_bytes(payload: bytes) -> bytes | None:
    """The bytes of a pickle that is nothing but bytes."""
    found = None
    for opcode, argument, _ in pickletools.genops(payload):
        if opcode.name not in _BYTES_ONLY:
            return None
        if isinstance(argument, bytes):
            found = argument
    return found


def imports(payload: bytes) -> list[str]:
    """The names that a pickle would import and may call, ``?`` where only running it could tell."""
    try:
        return sorted(set(_imports(payload)))
    except ValueError:
        return ["? (no readable pickle)"]


def _imports(payload: bytes) -> Iterator[str]:
    memo: dict[int, str | None] = {}
    pushed: deque[str | None] = deque((None, None), maxlen=2)
    argument: Any
    for opcode, argument, _ in pickletools.genops(payload):
        name = opcode.name
        if name in ("GLOBAL", "INST"):
            yield argument.replace(" ", ".")
        elif name == "STACK_GLOBAL":
            yield ".".join(part or "?" for part in pushed)
        elif name.startswith("EXT"):
            yield f"copyreg extension {argument}"
        if name == "MEMOIZE":
            memo[len(memo)] = pushed[-1]
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[argument] = pushed[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            pushed.append(memo.get(argument))
        elif name not in _IGNORED:
            pushed.append(argument if isinstance(argument, str) and "UNICODE" in name else None)


def hexdump(content: bytes, limit: int = 256) -> Iterator[str]:
    """The first bytes in lines of sixteen, and how many there are beyond."""
    for start in range(0, min(len(content), limit), 16):
        row = content[start : min(start + 16, limit)]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        yield f"{start:08x}  {row.hex(' '):<47}  {text}"
    if len(content) > limit:
        yield f"… and {len(content) - limit:,} bytes more"
