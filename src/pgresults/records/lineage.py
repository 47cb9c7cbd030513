"""Which versions a version was computed from: how they are named, given by callers, and collected during a run."""

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, Protocol, TypeAlias, runtime_checkable
from uuid import UUID

from pgresults.errors import InvalidArgument
from pgresults.records.keys import require_key

MOST_PARENTS = 10_000
"""How many versions one may be derived from."""

_MOST_VERSION = 10**18
_PARENT = re.compile(r"([1-9][0-9]{0,17})(?:@([0-9a-f-]{36}))?:(.+)", re.DOTALL | re.ASCII)
_logger = logging.getLogger("pgresults.lineage")


class Origin:
    """A version as what others are computed from.

    Parameters:
        key: under which key it is.
        place: in which database and schema; see `Database.place`; None until it is ready to be stored.
        storage_id: in which storage; None until then.
        version: its number; None until it is stored, and for ever if it never is.
    """

    __slots__ = ("key", "place", "storage_id", "version")

    def __init__(
        self, key: str, place: str | None = None, storage_id: UUID | None = None, version: int | None = None
    ) -> None:
        self.key, self.place, self.storage_id, self.version = key, place, storage_id, version

    @property
    def identity(self) -> object:
        """What two of the same version have in common; what has no number yet is like no other one."""
        return self if self.version is None else (self.place, self.storage_id, self.key, self.version)

    def __repr__(self) -> str:
        return f"Origin({self.key!r}, version={self.version})"


@runtime_checkable
class HasOrigin(Protocol):
    """What knows which version it is of: a record, its metadata, a transaction."""

    @property
    def _origin(self) -> Origin | None: ...


GivenParent: TypeAlias = HasOrigin | Origin | tuple[str, int]
"""How a caller says what something is derived from."""

Parent: TypeAlias = Origin | tuple[str, int]
"""What something is derived from: a version anywhere, or a key of the same storage with a version."""


def parent_name(key: str, version: int, storage_id: UUID | str | None = None) -> str:
    """A version as another one names it that is derived from it; ``storage_id``: where it is in another storage."""
    return f"{version}{'' if storage_id is None else f'@{storage_id}'}:{key}"


def parsed_parent(name: str, storage_id: str) -> tuple[str, str, int] | None:
    """The storage's id, the key and version that one in a storage names; None for what no write of ours names so."""
    found = _PARENT.fullmatch(name)
    if found is None:
        return None
    version, storage, key = found.groups()
    return storage or storage_id, key, int(version)


def require_parents(given: object, argument: str = "derived_from") -> tuple[Parent, ...]:
    """What a caller says that something is derived from.

    Raises: InvalidArgument for what names no version.
    """
    if given is None:
        return ()
    alone = isinstance(given, tuple) and len(given) == 2 and isinstance(given[0], str)
    if alone or isinstance(given, str | bytes | HasOrigin) or not isinstance(given, Iterable):
        raise InvalidArgument(
            f"{argument} is a list of versions, not {given!r:.100}: give [record] or [(key, version)]",
            argument=argument,
            value=given,
        )
    parents = tuple(_parent(one, argument) for one in given)
    if len(parents) > MOST_PARENTS:
        raise InvalidArgument(
            f"{argument} names {len(parents):,} versions, of which {MOST_PARENTS:,} are allowed: write what joins some "
            "of them first, and derive from that",
            argument=argument,
        )
    return parents


def _parent(one: Any, argument: str) -> Parent:
    if isinstance(one, Origin):
        return one
    if isinstance(one, HasOrigin):
        if (origin := one._origin) is not None:
            return origin
        reason = "it was not read from a store, nor written to one"
    elif isinstance(one, tuple) and len(one) == 2:
        key, version = one
        if type(version) is int and 0 < version < _MOST_VERSION:
            return require_key(key), version
        reason = "a version is a number from 1 on"
    elif isinstance(one, str):
        reason = "a key alone does not say which of its versions was used"
    else:
        reason = f"a {type(one).__name__} is no version"
    raise InvalidArgument(
        f"{argument}: {one!r:.100} names no version ({reason}): give a record or its metadata, as read and write "
        "return them, or (key, version)",
        argument=argument,
        value=one,
    )


def require_stored(parents: Iterable[Parent]) -> None:
    """Refuse to derive something from what is not stored.

    Raises: InvalidArgument.
    """
    for one in parents:
        if isinstance(one, Origin) and one.version is None:
            raise InvalidArgument(
                f"what is computed from the result of the transaction of {one.key!r} cannot say so: that was not "
                "stored, nor is it stored together with it",
                argument="derived_from",
                value=one.key,
            )


def names_of(lineage: Iterable[Parent], own: Origin, *, complete: bool) -> list[str] | None:
    """How a version names those that it was derived from, as far as they are versions; None where none of them is.

    Parameters:
        lineage: what it was derived from.
        own: itself.
        complete: whether none may be in another database; else those are left out.

    Raises: InvalidArgument.
    """
    names: dict[str, None] = {}
    for one in lineage:
        if not isinstance(one, Origin):
            names[parent_name(*one)] = None
        elif one.version is not None and one.place == own.place:
            names[parent_name(one.key, one.version, None if one.storage_id == own.storage_id else one.storage_id)] = (
                None
            )
        elif one.version is not None and complete:
            raise InvalidArgument(
                f"version {one.version} of {one.key!r} is in another database, where no lineage of what is stored here "
                "leads: say so in the provenance",
                argument="derived_from",
                value=(one.key, one.version),
            )
    return list(names) or None


class Sources:
    """What a run has read and called so far; any thread and coroutine of it may add to that."""

    def __init__(self) -> None:
        self._found: dict[object, Origin] = {}
        self._told = False

    def add(self, origins: Iterable[Origin | None]) -> None:
        """Take further versions in, up to so many as one may be derived from."""
        for one in origins:
            if one is None:
                continue
            if len(self._found) < MOST_PARENTS:
                self._found.setdefault(one.identity, one)
            elif not self._told:
                self._told = True
                _logger.warning(
                    "a run used more than %s versions: its result will name no more of them", f"{MOST_PARENTS:,}"
                )

    def __iter__(self) -> Iterator[Origin]:
        return iter(list(self._found.values()))

    def __reduce__(self) -> Any:
        return Sources, ()  # what is used in another process is told by what comes back from there


SOURCES: ContextVar[Sources | None] = ContextVar("pgresults.sources", default=None)
"""What the enclosing run has used."""


def note(origins: Sequence[Origin | None]) -> None:
    """Say that the enclosing run, if there is one, uses some versions."""
    if (sources := SOURCES.get()) is not None:
        sources.add(origins)
