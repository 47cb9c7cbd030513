"""What a verification covered, and what it found."""

from dataclasses import dataclass
from datetime import datetime

from pgresults.audit.checks import Finding
from pgresults.operations.verify import Window


@dataclass(frozen=True, slots=True)
class Covered:
    """A storage that was checked: how much of it.

    ``sealed_at`` is when the newest seal given that covers it was made (aware, UTC), None where there is none, and
    ``newer`` how many entries that one does not cover, the oldest of them of ``newer_since`` (aware, UTC): what
    happens to these no seal would tell. ``empty``: it holds nothing at all.
    """

    storage: str
    keys: int
    entries: int
    payloads: int
    sealed_at: datetime | None = None
    newer: int | None = None
    newer_since: datetime | None = None
    empty: bool = False


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was checked, and what was found.

    ``storages`` are those that were checked; ``unchecked`` names others that are registered in the same database;
    ``windows`` are the transactions for which an owner had opened the history, since the seal or time that was given,
    else ever. ``chain`` says of which times the seals are that were followed one after the other. ``unseen`` is what of
    functions, views, rights and so on could not be compared with what they should be, because the role may not read it.
    """

    storages: tuple[Covered, ...]
    findings: tuple[Finding, ...]
    unchecked: tuple[str, ...] = ()
    windows: tuple[Window, ...] = ()
    chain: tuple[datetime, ...] = ()
    unseen: tuple[str, ...] = ()

    @property
    def keys(self) -> int:
        """How many keys were checked."""
        return sum(one.keys for one in self.storages)

    @property
    def entries(self) -> int:
        """How many entries of their histories."""
        return sum(one.entries for one in self.storages)

    @property
    def payloads(self) -> int:
        """How many payloads."""
        return sum(one.payloads for one in self.storages)

    @property
    def empty(self) -> bool:
        """Whether there was nothing, of which nothing can be said: neither that it is intact nor that it is not."""
        return all(one.empty for one in self.storages)

    @property
    def intact(self) -> bool:
        """Whether something was there, and all of it as it was written."""
        return not self.findings and not self.empty
