"""Digests of values that are the same for equal values in every process, and others for all others."""

from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

from pydantic import BaseModel

from pgresults.errors import SerializationError
from pgresults.objects.arrays import array_kinds
from pgresults.objects.containers import CONTAINERS
from pgresults.objects.definitions import DEFINITIONS, GivesToken, Token, class_token
from pgresults.objects.frames import frame_kinds
from pgresults.objects.instances import (
    KINDS_OF_THEIR_OWN,
    enum_token,
    exception_token,
    instance_token,
    model_token,
    set_subclass_token,
)
from pgresults.objects.tokens import PLAIN, digest_of, flaw_told_by

Encoder = Callable[[Any, Token], bytes]

_EXACT: Final[dict[type, Encoder]] = {**CONTAINERS, **DEFINITIONS, **KINDS_OF_THEIR_OWN}

_KINDS: Final[list[tuple[type, Encoder]]] = [
    (GivesToken, lambda value, token: value._token(token)),
    (type, class_token),
    (Enum, enum_token),
    (BaseModel, model_token),
    (set, set_subclass_token),
    (frozenset, set_subclass_token),
    (BaseException, exception_token),
]
"""What is told by an ancestor, in this order."""

_ENCODERS: WeakKeyDictionary[type, Encoder] = WeakKeyDictionary()
_CLASSES: WeakKeyDictionary[type, bytes] = WeakKeyDictionary()

_WORTH_KEEPING = 16  # values inside: to keep the token of every value would take more memory than the values do


def stable_digest(value: Any, what: str, advice: str = "") -> str:
    """The digest of an object: of types and values alone, whatever the order of sets and dicts.

    Parameters:
        value: the object.
        what: how to call it in an error.
        advice: what to do about it, there.

    Raises: SerializationError when it has none that is the same in every process.
    """
    plain = PLAIN.get(type(value))
    if plain is not None:
        return digest_of(plain(value))
    try:
        return digest_of(Digester()(value))
    except Exception as error:  # of the value's own code, too
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        flaw = flaw_told_by(error)
        raise SerializationError(
            f"{what}, of type {kind}, has no digest that is the same in every process ({flaw}). {advice}".rstrip(),
            result_type=kind,
        ) from error


class Digester:
    """Gives the tokens of values; one that is met again is not taken apart again.

    A value inside of itself is given by how many levels it is up from there. The token of a value that holds such a
    sign, of a level above itself, counts only below the same visit, at the same level.
    """

    def __init__(self) -> None:
        self._levels: dict[int, int] = {}  # of the values around, by id
        self._visits: list[int] = []  # the number of the visit at each level
        self._count = 0
        self._above = 0  # the levels that were met again, as bits
        self._known: dict[int, _Known] = {}

    def __call__(self, value: Any) -> bytes:
        """The token of a value.

        Raises: NoToken; RecursionError; what the code of a value raises.
        """
        kind = type(value)
        if (plain := PLAIN.get(kind)) is not None:
            return plain(value)
        if isinstance(value, type) and (kept := _kept(value)) is not None:
            return kept
        key, level = id(value), len(self._visits)
        if (around := self._levels.get(key)) is not None:
            self._above |= 1 << around
            return b"^%d;" % (level - around)
        known = self._known.get(key)
        if known is not None and known.counts_at(level, self._visits):
            self._above |= known.above
            return known.token
        encode = _EXACT.get(kind) or _ENCODERS.get(kind) or _encoder_of(kind)
        before, self._above = self._above, 0
        self._count += 1
        count = self._count
        self._levels[key] = level
        self._visits.append(count)
        try:
            token = encode(value, self)
        finally:
            del self._levels[key]
            self._visits.pop()
            above = self._above & ((1 << level) - 1)
            self._above = before | above
        self._keep(value, token, above, self._count - count)
        return token

    def _keep(self, value: Any, token: bytes, above: int, inside: int) -> None:
        if inside >= _WORTH_KEEPING:
            visit = self._visits[above.bit_length() - 1] if above else 0
            self._known[id(value)] = _Known(value, token, len(self._visits), above, visit)
        if isinstance(value, type) and not above:
            with suppress(TypeError):  # a class without a hash
                _CLASSES[value] = token


class _Known(NamedTuple):
    """The token of a value that was taken apart."""

    value: Any  # kept, so that no other has its id
    token: bytes
    level: int
    above: int
    visit: int

    def counts_at(self, level: int, visits: list[int]) -> bool:
        """Whether what it says of the values around is true of those around now."""
        if not self.above:
            return True
        lowest = self.above.bit_length() - 1
        return level == self.level and lowest < level and visits[lowest] == self.visit


def _kept(cls: type) -> bytes | None:
    try:
        return _CLASSES.get(cls)
    except TypeError:  # without a hash
        return None


def _encoder_of(kind: type) -> Encoder:
    kinds = (*_KINDS, *array_kinds(), *frame_kinds())
    encoder = next((encoder for ancestor, encoder in kinds if issubclass(kind, ancestor)), instance_token)
    with suppress(TypeError):
        _ENCODERS[kind] = encoder
    return encoder
