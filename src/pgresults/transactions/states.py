"""How a transaction may be meant, and how far it may have come."""

from enum import Enum, auto


class IsolationLevel(Enum):
    """Whether others may work under the same key meanwhile."""

    READ_COMMITTED = auto()
    """Yes; the last to commit wins."""

    SERIALIZABLE = auto()
    """No: the key is locked from begin to end."""


class CommitMode(Enum):
    """When a transaction stores what was staged."""

    EAGER = auto()
    """At its own end, whatever becomes of its parent."""

    LAZY = auto()
    """At the end of its root, together with the whole tree."""

    OFF = auto()
    """Only when told to; at the end of the root it is rolled back."""


class TransactionState(Enum):
    """How far a transaction has come."""

    PENDING = "PENDING"
    ACTIVE = "ACTIVE"
    STAGED = "STAGED"
    COMMITTED = "COMMITTED"
    ROLLED_BACK = "ROLLED_BACK"

    @property
    def is_final(self) -> bool:
        """Whether nothing can follow."""
        return self in (TransactionState.COMMITTED, TransactionState.ROLLED_BACK)
