"""Digests of code: the same in every process, whatever the file and its lines."""

from types import CodeType
from typing import Any

from pgresults.objects.tokens import PLAIN, bytes_token, joined, text_token


def code_token(code: CodeType) -> bytes:
    """The token of what a code object does: its instructions, and the names and constants that they use."""
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    numbers = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    return joined(
        b"C",
        (
            bytes_token(code.co_code),
            bytes_token(code.co_exceptiontable),
            *(joined(b"t", map(text_token, some)) for some in names),
            *(PLAIN[int](number) for number in numbers),
            joined(b"t", map(_constant, code.co_consts)),
        ),
    )


def _constant(value: Any) -> bytes:
    if isinstance(value, CodeType):
        return code_token(value)
    if isinstance(value, tuple):
        return joined(b"t", map(_constant, value))
    if isinstance(value, frozenset):
        return joined(b"z", sorted(map(_constant, value)))
    if isinstance(value, slice):
        return joined(b"/", map(_constant, (value.start, value.stop, value.step)))
    return PLAIN[type(value)](value)
