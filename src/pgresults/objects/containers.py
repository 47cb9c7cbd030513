"""Values that hold others: each says its type, and in order only what has one."""

import types
from collections.abc import Callable
from typing import Any, Final

from pgresults.objects.definitions import Token
from pgresults.objects.tokens import PLAIN, joined, shortened, text_token


def tokens_of(values: Any, token: Token) -> list[bytes]:
    """The tokens of values in their order, the common types without a detour."""
    plain = PLAIN
    return [(plain.get(type(value)) or token)(value) for value in values]


def mapping_token(values: Any, token: Token) -> bytes:
    """The token of a mapping in whatever order."""
    plain = PLAIN
    return joined(
        b"d",
        sorted(
            (plain.get(type(key)) or token)(key) + (plain.get(type(value)) or token)(value)
            for key, value in values.items()
        ),
    )


def set_token(values: Any, token: Token) -> bytes:
    """The token of a set, in whatever order."""
    return joined(b"z", sorted(tokens_of(values, token)))


def _view_token(view: memoryview, token: Token) -> bytes:
    return joined(b"v", [text_token(view.format), token(view.shape), token(view.tobytes())])


CONTAINERS: Final[dict[type, Callable[[Any, Token], bytes]]] = {
    list: lambda values, token: joined(b"l", tokens_of(values, token)),
    tuple: lambda values, token: joined(b"t", tokens_of(values, token)),
    dict: mapping_token,
    set: lambda values, token: joined(b"h", [set_token(values, token)]),
    frozenset: set_token,
    bytearray: lambda data, _: shortened(b"y%d:%b" % (len(data), data)),
    memoryview: _view_token,
    types.MappingProxyType: lambda values, token: joined(b"p", [mapping_token(values, token)]),
    type({}.keys()): lambda values, token: joined(b"q", [b"k", set_token(values, token)]),
    type({}.items()): lambda values, token: joined(b"q", [b"i", set_token(values, token)]),
    type({}.values()): lambda values, token: joined(b"q", [b"v", *tokens_of(values, token)]),
}
"""The tokens of containers, by exact type."""
