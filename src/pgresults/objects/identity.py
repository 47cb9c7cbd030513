"""Whose results a function's are, and which code it is."""

import dis
from collections.abc import Iterator
from types import CellType, CodeType, FunctionType
from typing import Any, Final

from pgresults.errors import SerializationError
from pgresults.objects.codes import code_token
from pgresults.objects.definitions import (
    GivesToken,
    Token,
    decorating_cells,
    enclosed_cells,
    known_name,
    named_token,
    possible_token,
    unnamed_token,
)
from pgresults.objects.digests import Digester
from pgresults.objects.names import defined_once, label_of, layers_of, leads_to, module_of, qualname_of
from pgresults.objects.sources import source_of
from pgresults.objects.tokens import NoToken, digest_of, flaw_told_by, joined, text_token

_EMPTY: Final = object()


class Identity(GivesToken):
    """What tells a function from all others, in every process alike.

    That is its name, where the name leads to it and is defined at one place, with what decorators keep for it. Else it
    is its code and what it was made with. All of that is taken here and now: an object that changes later does not make
    another function; another object in its place does.

    Parameters:
        fn: the function, or anything else that can be called.
    """

    def __init__(self, fn: Any) -> None:
        self._fn = fn
        self._text: str | None = None
        self._label = label_of(fn if qualname_of(fn) else type(fn))
        self._code = b""
        self._named: bool | None = False
        self._enclosed: list[_Variable] = []
        self._decoration: list[_Variable] = []
        if isinstance(fn, FunctionType):
            self._code = code_token(fn.__code__)
            self._named = None if defined_once(fn) else False
            assigned = set(map(id, _assigned_cells(fn)))
            self._enclosed = [_Variable(cell, id(cell) in assigned) for cell in enclosed_cells(fn)]
            self._decoration = [_Variable(cell, id(cell) in assigned) for cell in decorating_cells(fn)]

    def text(self) -> str:
        """The identity: program or module and name and, where that does not say all, a digest.

        Raises: SerializationError where something that belongs to the function has no stable digest.
        """
        text = self._text
        if text is None or any(variable.has_changed() for variable in self._variables):
            for variable in self._variables:
                variable.look()
            text = self._made()
            if isinstance(self._fn, FunctionType):  # partials and instances may change at any time
                self._text = text
        return text

    def received_with(self, fn: Any) -> "Identity":
        """The identity that came from another process, of the function that came with it."""
        self._fn = fn
        if isinstance(fn, FunctionType):
            cells = (*enclosed_cells(fn), *decorating_cells(fn))
            for variable, cell in zip((*self._enclosed, *self._decoration), cells, strict=False):
                variable.receive(cell)
        return self

    @property
    def _is_named(self) -> bool:
        if self._named is None:  # asked when the module is done: at first the name is not bound yet
            self._named = leads_to(self._fn)
        return self._named

    @property
    def _variables(self) -> list["_Variable"]:
        return self._decoration if self._is_named else self._enclosed

    def _made(self) -> str:
        if self._is_named and not self._decoration:
            return self._label
        try:
            if not self._enclosed and (name := known_name(self._fn)) is not None:
                return name
            return f"{self._label}#{digest_of(Digester()(self))}"
        except Exception as error:
            raise SerializationError(
                f"the name of {self._label} does not say which function it is, and what it was made with has no digest "
                f"that is the same in every process ({flaw_told_by(error)}). Give that as a parameter, or define the "
                "function at the top of a module"
            ) from error

    def _token(self, token: Token) -> bytes:
        if not self._enclosed:
            return token(self._fn)
        if self._is_named:
            return named_token(self._label, [possible_token(variable, token) for variable in self._decoration])
        return unnamed_token(self._label, self._code, map(token, self._enclosed))

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_named": self._is_named, "_fn": None, "_text": None}


class _Variable(GivesToken):
    """A cell, and what it held when a task was made.

    Parameters:
        cell: of the function's.
        assigned: whether the function itself gives it other values, as counters do: these do not make it another one.
    """

    def __init__(self, cell: CellType, assigned: bool) -> None:
        self._cell = cell
        self._assigned = assigned
        self._first: Any = _content(cell)
        self._seen: Any = _EMPTY
        self._kept: bytes | str | None = None if self._first is _EMPTY else _token_or_flaw(cell)

    def has_changed(self) -> bool:
        """Whether the cell holds another object than at the last look."""
        return not self._assigned and _content(self._cell) is not self._seen

    def look(self) -> None:
        """Remember what the cell holds."""
        self._seen = _content(self._cell)
        if self._assigned and self._kept is None:
            self._kept = _token_or_flaw(self._cell)

    def receive(self, cell: CellType) -> None:
        """Take the cell of this process for the one that held the same elsewhere."""
        self._cell = cell
        self._first = _content(cell)
        self._seen = _EMPTY

    def _token(self, token: Token) -> bytes:
        if self._kept is None or not (self._assigned or _content(self._cell) is self._first):
            return token(self._cell)
        if isinstance(self._kept, str):
            raise NoToken(self._kept)
        return self._kept

    def __getstate__(self) -> dict[str, Any]:
        kept = self._kept if self._assigned or _content(self._cell) is self._first else None
        return {"_assigned": self._assigned, "_kept": kept}


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return _EMPTY


def _token_or_flaw(cell: CellType) -> bytes | str:
    try:
        return Digester()(cell)
    except Exception as error:
        return flaw_told_by(error)


def _assigned_cells(fn: FunctionType) -> Iterator[CellType]:
    """The cells to which a function, those inside of it, or its decorators assign."""
    for layer in layers_of(fn):
        if isinstance(layer, FunctionType) and layer.__closure__:
            names = set(_assigned_names(layer.__code__))
            for name, cell in zip(layer.__code__.co_freevars, layer.__closure__, strict=True):
                if name in names:
                    yield cell


def _assigned_names(code: CodeType) -> Iterator[str]:
    for step in dis.get_instructions(code):
        if step.opname in ("STORE_DEREF", "DELETE_DEREF") and step.argval in code.co_freevars:
            yield step.argval
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from set(_assigned_names(constant)).intersection(code.co_freevars)


def code_digest(fn: Any) -> str:
    """The digest of a function's code, and of its decorators as far as they say so.

    It is the digest of its text, where that is what the running code was made of; else of the code.
    """
    layers = [layer for layer in layers_of(fn) if isinstance(layer, FunctionType)]
    if not layers:
        return digest_of(text_token(label_of(fn if qualname_of(fn) else type(fn))))
    return digest_of(joined(b"t", map(_text_or_code, layers)))


def _text_or_code(fn: FunctionType) -> bytes:
    source = source_of(fn.__code__.co_filename, module_of(fn))
    text = None if source is None else source.text_of(fn.__code__)
    if text is not None:
        return text_token(text)
    return joined(b"C", [code_token(fn.__code__), possible_token((fn.__defaults__, fn.__kwdefaults__), Digester())])
