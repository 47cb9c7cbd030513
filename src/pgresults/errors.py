"""The errors of pgresults: one tree, each with fields beside its text.

    PgResultsError
    ├── MissingResult            no live result under the key            (also a ValueError)
    ├── SerializationError       no bytes from an object, or no object from bytes  (also a ValueError)
    ├── IntegrityError           stored bytes, chain or signature do not match
    ├── LockedError              another holder has the key's lock       (also a RuntimeError)
    │   └── DeadlockDetected     and waits itself for who asks
    ├── OnHold                   what was to be taken away is on hold
    ├── LockLostError            the fence of a write is no longer the key's       (also a RuntimeError)
    ├── ConfigurationError       the parts do not fit together, or one is missing
    ├── MissingContextError      asked outside of a run or transaction   (also a RuntimeError)
    │   └── RolledBackError      the transaction went on although a failure in it had taken it back
    ├── StorageUnavailable       the database is out of reach or does not answer
    ├── SchemaVersionError       the database is behind or ahead of this code
    ├── PayloadTooLarge          the payload exceeds the limit           (also a ValueError)
    └── InvalidArgument          an argument is of no use                (also a ValueError)
        └── InvalidKey           the key cannot be stored

Every field is an attribute, is None where it does not apply, and survives pickling.
"""

from datetime import datetime
from typing import Any, Self


class PgResultsError(Exception):
    """Base of every error that pgresults raises on purpose."""

    def __init__(self, message: str, **fields: Any) -> None:
        super().__init__(message)
        vars(self).update(fields)

    def __reduce__(self) -> tuple[Any, ...]:
        return self._rebuild, (str(self), vars(self))

    @classmethod
    def _rebuild(cls, message: str, fields: dict[str, Any]) -> Self:
        return cls(message, **fields)


class MissingResult(PgResultsError, ValueError):  # noqa: N818 (the field's established name)
    """No live result is stored under the key.

    ``reason`` is one of ``"never written"``, ``"expired"``, ``"deleted"``, ``"redacted"``, ``"not retained"``,
    ``"no such version"``; ``at`` is when that happened (aware, UTC) and ``by`` who did it.
    """

    key: str | None = None
    reason: str | None = None
    at: datetime | None = None
    by: str | None = None


class SerializationError(PgResultsError, ValueError):
    """An object could not be turned into bytes, or bytes into an object."""

    key: str | None = None
    result_type: str | None = None
    serializer_type: str | None = None


class IntegrityError(PgResultsError):
    """What is stored does not match its digest, its chain or its signature."""

    key: str | None = None
    version: int | None = None


class LockedError(PgResultsError, RuntimeError):
    """Another holder has the key's lock."""

    key: str | None = None
    holder: str | None = None
    since: datetime | None = None


class DeadlockDetected(LockedError):  # noqa: N818 (the name that databases give it)
    """Some wait for each other's locks: who was the last to wait is told so, and the others go on once it lets go.

    ``keys`` are those of the locks and ``holders`` who has them, in the order of the waiting: each holder waits for
    the next one's key, and the last one for what this one has.
    """

    keys: tuple[str, ...] = ()
    holders: tuple[str, ...] = ()


class OnHold(PgResultsError):  # noqa: N818 (what it is)
    """What was to be deleted, erased or dropped is on hold; nothing was.

    ``reason`` is the hold's, ``until`` when it ends (aware, UTC; None: when it is released), ``by`` who placed it.
    """

    key: str | None = None
    reason: str | None = None
    until: datetime | None = None
    by: str | None = None


class LockLostError(PgResultsError, RuntimeError):
    """A write came with a fence that is no longer the key's; nothing was written."""

    key: str | None = None
    holder: str | None = None
    fence: int | None = None


class ConfigurationError(PgResultsError):
    """The parts given do not fit together, or a needed one is missing."""

    setting: str | None = None


class MissingContextError(PgResultsError, RuntimeError):
    """Something was asked that only a run or a transaction can answer."""


class RolledBackError(MissingContextError):
    """A transaction went on although the failure of what was in it had taken it back; its cause is that failure."""

    key: str | None = None


class StorageUnavailable(PgResultsError):  # noqa: N818 (the field's established name)
    """The database cannot be reached, or does not answer in time.

    ``outcome_unknown`` is True when a change may or may not have been carried out.
    """

    sqlstate: str | None = None
    outcome_unknown: bool = False


class SchemaVersionError(PgResultsError):
    """The database schema is missing, behind or ahead of the code; ``command`` mends it."""

    schema: str | None = None
    found: str | None = None
    expected: str | None = None
    command: str | None = None


class PayloadTooLarge(PgResultsError, ValueError):  # noqa: N818 (the field's established name)
    """The payload exceeds the configured limit, in bytes."""

    key: str | None = None
    size: int | None = None
    limit: int | None = None


class InvalidArgument(PgResultsError, ValueError):  # noqa: N818 (as its kin)
    """An argument is of no use; nothing was done."""

    argument: str | None = None
    value: object = None


class InvalidKey(InvalidArgument):
    """The key cannot be stored; ``reason`` says why."""

    key: object = None
    reason: str | None = None


def reason_of(error: OSError) -> str:
    """What went wrong with which file, in one line."""
    reason = error.strerror or str(error)
    return f"{error.filename}: {reason}" if error.filename else reason
