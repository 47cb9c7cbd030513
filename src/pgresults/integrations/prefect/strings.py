"""Payloads as the JSON strings of Prefect's documents, and back, piece by piece: nothing large is there twice."""

import binascii
import json
import re
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO

_LINE = 76
"""The length of a line of base64; in a JSON string two more characters end it."""

_LINES = 512 * (_LINE + 2)
"""How much base64 is decoded at a time: whole lines, or a multiple of four characters."""

_PIECE = 48 * 1024
"""How much is made text at a time, in bytes: a multiple of three, which stays in the processor's cache."""

_ESCAPE = 6
"""The length of the longest escape in a JSON string."""

_UNFINISHED = re.compile(rb"(?<!\\)(?:\\\\)*\\(?:u[0-9a-fA-F]{0,3}|u[dD][89abAB][0-9a-fA-F]{2})?\Z")
"""An escape that goes on, or the first one of a pair."""

_TRIES = 100


def joined(pieces: Iterable[bytes]) -> bytes:
    """All pieces as one; unlike ``join`` it does not keep them until it has the last."""
    whole = BytesIO()
    whole.writelines(pieces)
    return whole.getvalue()


def from_base64(text: memoryview) -> bytes:
    """The bytes of a base64 text as it stands in a JSON string, with or without lines.

    Raises: ValueError for anything else.
    """
    if bytes(text[-2:]) == b"\\n":
        text = text[:-2]
    return joined(_decoded_lines(text[start : start + _LINES]) for start in range(0, len(text), _LINES))


def from_text(text: memoryview) -> bytes:
    """The UTF-8 of what stands between the quotes of a JSON string.

    Raises: ValueError for what is none.
    """
    return joined(json.loads(f'"{str(piece, "utf-8")}"').encode() for piece in _pieces(text, _cuts_escape))


def to_base64(payload: bytes) -> Iterator[bytes]:
    """The pieces of a base64 text without lines."""
    view = memoryview(payload)
    for start in range(0, len(view), _PIECE):
        yield binascii.b2a_base64(view[start : start + _PIECE], newline=False)


def to_text(payload: bytes) -> Iterator[bytes]:
    """The pieces of what stands for UTF-8 between the quotes of a JSON string.

    Raises: UnicodeDecodeError for other payloads.
    """
    for piece in _pieces(memoryview(payload), _cuts_character):
        yield json.dumps(str(piece, "utf-8"), ensure_ascii=False).encode()[1:-1]


def _decoded_lines(text: memoryview) -> bytes:
    """Where lines end is known without looking for it."""
    piece = bytearray(text)
    ends = len(piece[_LINE :: _LINE + 2])
    if piece[_LINE :: _LINE + 2] == b"\\" * ends and piece[_LINE + 1 :: _LINE + 2] == b"n" * ends:
        del piece[_LINE + 1 :: _LINE + 2]
        del piece[_LINE :: _LINE + 1]
    return binascii.a2b_base64(piece, strict_mode=True)


def _pieces(text: memoryview, cuts: Callable[[bytes, int], bool]) -> Iterator[memoryview]:
    """A text in pieces that end where it may be cut; what can be cut nowhere is no text, and its rest one piece."""
    start = 0
    while start < len(text):
        wished = min(start + _PIECE, len(text))
        ends = range(wished, min(wished + _TRIES, len(text)))
        end = next((end for end in ends if not cuts(bytes(text[start:end]), text[end])), len(text))
        yield text[start:end]
        start = end


def _cuts_character(_before: bytes, following: int) -> bool:
    return following & 0xC0 == 0x80


def _cuts_escape(before: bytes, following: int) -> bool:
    begin = len(before[:-_ESCAPE].rstrip(b"\\"))  # whether a backslash escapes depends on how many precede it
    return _cuts_character(before, following) or _UNFINISHED.search(before, begin) is not None
