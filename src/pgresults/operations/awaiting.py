"""Versions that are stored together, of which one was computed from another: that has its number first."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from pgresults.records.lineage import Origin, Parent, names_of, require_stored
from pgresults.sql.digests import framed_later


class Ancestry(NamedTuple):
    """What a version was computed from, and what others know it by.

    Parameters:
        parents: what it was computed from; those without a number may be stored together with it.
        origin: the version itself; None: nobody is to know it.
        complete: whether each parent must be a version in the end; else those that are none are left out.
    """

    parents: tuple[Parent, ...] = ()
    origin: Origin | None = None
    complete: bool = False

    def awaiting(self, covered: bytes) -> "Awaiting | None":
        """What it awaits; None where all of its parents have their number. ``covered``: see `Awaiting`."""
        if not self.parents:
            return None
        waits = self.origin is not None and any(isinstance(one, Origin) and one.version is None for one in self.parents)
        return Awaiting(self, covered) if waits else None


UNKNOWN = Ancestry()
"""Nothing is said of what a version was computed from."""


class Awaiting(NamedTuple):
    """A version that was computed from what has no number before it is stored, perhaps together with it.

    Parameters:
        lineage: what it was computed from.
        covered: what the content digest covers beside that.
    """

    lineage: Ancestry
    covered: bytes

    def completed(self, written: Mapping[Origin, int]) -> tuple[list[str] | None, bytes]:
        """How the version names its parents once some are written, as which versions, and its content digest then.

        Raises: InvalidArgument where all must be versions and one was not stored.
        """
        parents = [_numbered(one, written) for one in self.lineage.parents]
        if self.lineage.complete:
            require_stored(parents)
        own = self.lineage.origin
        assert own is not None  # noqa: S101 (else it awaits nothing)
        named = names_of(parents, own, complete=self.lineage.complete)
        return named, hashlib.sha256(self.covered + framed_later({"derived_from": named})).digest()


def _numbered(parent: Parent, written: Mapping[Origin, int]) -> Parent:
    if not isinstance(parent, Origin) or parent not in written:
        return parent
    return Origin(parent.key, parent.place, parent.storage_id, written[parent])


def generations(versions: Sequence[tuple[Origin | None, Awaiting | None]]) -> Iterator[list[int]]:
    """The numbers of versions, those first that await none of the others, then those that await only these, and so on.

    Parameters:
        versions: what others know each by, and what it awaits.
    """
    made = {origin for origin, _ in versions if origin is not None}
    awaited = [
        set[object]() if awaiting is None else made.intersection(awaiting.lineage.parents) for _, awaiting in versions
    ]
    left = list(range(len(versions)))
    while left:
        ready = [number for number in left if not awaited[number] & made] or left
        yield ready
        made.difference_update(versions[number][0] for number in ready)
        left = [number for number in left if number not in ready] if len(ready) < len(left) else []
