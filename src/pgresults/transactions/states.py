"""How a transaction may be meant, and how far it may have come."""

from enum import StrEnum
from typing import Self

from pgresults.errors import InvalidArgument


class _Choice(StrEnum):
    """One of a few, equal to its name."""

    @classmethod
    def of(cls, given: object, argument: str) -> Self | None:
        """The member that is given, itself or by its name; None stays.

        Raises: InvalidArgument for what is no member: a misspelt name must not be taken for the default.
        """
        if given is None:
            return None
        name = getattr(given, "name", given)
        if isinstance(name, str) and name in cls.__members__:
            return cls[name]
        known = ", ".join(f"{cls.__name__}.{member}" for member in cls.__members__)
        raise InvalidArgument(f"{argument} is one of {known}, not {given!r}", argument=argument, value=given)


class IsolationLevel(_Choice):
    """Whether others may work under the same key meanwhile."""

    READ_COMMITTED = "READ_COMMITTED"
    """Yes; the last to commit wins."""

    SERIALIZABLE = "SERIALIZABLE"
    """No: the key is locked from begin to end."""


class CommitMode(_Choice):
    """When a transaction stores what was staged."""

    EAGER = "EAGER"
    """At its own end, whatever becomes of its parent."""

    LAZY = "LAZY"
    """At the end of its root, together with the whole tree."""

    OFF = "OFF"
    """Only when told to; at the end of the root it is rolled back."""


class TransactionState(StrEnum):
    """How far a transaction has come, equal to its name."""

    PENDING = "PENDING"
    ACTIVE = "ACTIVE"
    STAGED = "STAGED"
    COMMITTED = "COMMITTED"
    ROLLED_BACK = "ROLLED_BACK"

    @property
    def is_final(self) -> bool:
        """Whether nothing can follow."""
        return self in (TransactionState.COMMITTED, TransactionState.ROLLED_BACK)
