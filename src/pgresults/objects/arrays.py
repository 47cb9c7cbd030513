"""Arrays and scalars of numpy, which is not imported for that: type, shape and content, however it lies in memory."""

import sys
from collections.abc import Callable
from hashlib import sha256
from typing import Any, Final

from pgresults.objects.definitions import Token
from pgresults.objects.tokens import joined, text_token

_BYTES_SAY_ALL: Final = "biufcSUmMV"  # kinds of types whose bytes are their values


def array_kinds() -> list[tuple[type, Callable[[Any, Token], bytes]]]:
    """The types of numpy with what gives their tokens; nothing where numpy is not loaded."""
    numpy: Any = sys.modules.get("numpy")
    if numpy is None:
        return []
    return [
        (numpy.ma.MaskedArray, _masked_token),
        (numpy.ndarray, array_token),
        (numpy.generic, _scalar_token),
        (numpy.dtype, _dtype_token),
    ]


def array_token(array: Any, token: Token) -> bytes:
    """The token of an array: its class, type of items, shape, items, and what a subclass has beside them."""
    own = getattr(array, "__dict__", None)
    numpy: Any = sys.modules["numpy"]
    parts = [token(type(array)), token(array.dtype), token(array.shape), _items(numpy.asarray(array), token)]
    return joined(b"A", [*parts, token(own)] if own else parts)


def _items(array: Any, token: Token) -> bytes:
    dtype = array.dtype
    if dtype.names is not None:  # between fields there may be anything
        return joined(b"t", [_items(array[name], token) for name in dtype.names])
    if dtype.kind not in _BYTES_SAY_ALL or dtype.hasobject:
        return token(array.ravel().tolist())
    if dtype.char in "gG":  # as long as their bytes, but for some that mean nothing
        return token(array.astype("U100").tolist())
    if dtype.kind == "c":
        return joined(b"t", [_items(array.real, token), _items(array.imag, token)])
    if dtype.kind == "f" and (nan := array != array).any():
        array = array.copy()
        array[nan] = float("nan")
    flat = array.reshape(-1) if array.flags.c_contiguous else array.flatten()
    return b"#" + sha256(flat.view("u1") if flat.size and flat.itemsize else b"").digest()


def _masked_token(array: Any, token: Token) -> bytes:
    """The token of a masked array; what is masked may be anything."""
    numpy: Any = sys.modules["numpy"]
    mask = numpy.ma.getmaskarray(array)
    data = numpy.array(array.data)
    if data.dtype.names is None:
        data[mask] = numpy.zeros((), data.dtype)
    return joined(b"A", map(token, (type(array), data, mask, array.fill_value)))


def _scalar_token(scalar: Any, token: Token) -> bytes:
    numpy: Any = sys.modules["numpy"]
    return joined(b"a", [token(type(scalar)), token(scalar.dtype), _items(numpy.asarray(scalar), token)])


def _dtype_token(dtype: Any, token: Token) -> bytes:
    if dtype.names is not None:
        fields = [(name, *dtype.fields[name]) for name in dtype.names]
        return joined(b"Y", [token(fields), token(dtype.itemsize)])
    if dtype.subdtype is not None:
        return joined(b"Y", [token(dtype.subdtype)])
    return joined(b"D", [text_token(dtype.str), text_token(str(dtype))])
