"""Plain values as bytes that say their type, and that no other value's bytes begin with."""

import struct
from collections.abc import Callable, Iterable
from hashlib import sha256
from types import EllipsisType, NoneType, NotImplementedType
from typing import Any, Final

_SHORT = 64  # what is not longer costs less as it is than a digest of it

_double = struct.Struct(">d").pack
_NAN = b"f" + _double(float("nan"))  # whatever its bits: a quotient's are not those of a literal


class NoToken(TypeError):  # noqa: N818 (what is so)
    """A value is another one in every process, or holds such a value."""


def flaw_told_by(error: Exception) -> str:
    """Why a value has no token."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return str(error) if isinstance(error, NoToken) else f"{type(error).__name__}: {error}"


def digest_of(token: bytes) -> str:
    """The digest of a token, in hexadecimal."""
    return sha256(token).hexdigest()


def shortened(token: bytes) -> bytes:
    """A token, or its digest in place of a long one; no other token begins with the sign of a digest."""
    return token if len(token) <= _SHORT else b"#" + sha256(token).digest()


def joined(tag: bytes, parts: Iterable[bytes]) -> bytes:
    """The token of what consists of parts.

    Parameters:
        tag: a letter that says of what kind it is.
        parts: tokens, in an order that means something or else in their own.
    """
    parts = list(parts)
    return shortened(b"%b%d:%b" % (tag, len(parts), b"".join(parts)))


def text_token(text: str) -> bytes:
    """The token of a text."""
    data = text.encode("utf-8", "surrogatepass")
    return shortened(b"s%d:%b" % (len(data), data))


def bytes_token(data: bytes) -> bytes:
    """The token of bytes."""
    return shortened(b"b%d:%b" % (len(data), data))


def _float(value: float) -> bytes:
    return b"f" + _double(value) if value == value else _NAN


def _complex(value: complex) -> bytes:
    return b"c" + _float(value.real) + _float(value.imag)


PLAIN: Final[dict[type, Callable[[Any], bytes]]] = {
    str: text_token,
    int: lambda value: shortened(b"i%x;" % value),
    float: _float,
    bool: lambda value: b"T" if value else b"U",
    NoneType: lambda _: b"N",
    bytes: bytes_token,
    complex: _complex,
    EllipsisType: lambda _: b"E",
    NotImplementedType: lambda _: b"Q",
}
"""The tokens of values that hold no others, by their exact type."""
