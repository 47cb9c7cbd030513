"""Changing a key although somebody else has its lock: only by taking that away first, which its history keeps."""

from collections.abc import Callable
from typing import Annotated, TypeVar

import typer

from pgresults.arguments import require_text
from pgresults.cli.output import note
from pgresults.errors import InvalidArgument, LockedError
from pgresults.locking import PostgresLockManager

T = TypeVar("T")

Force = Annotated[
    bool,
    typer.Option("--force", help="Take the key's lock away from who has it; the --reason is kept in the history."),
]


def require_forcing(force: bool, reason: str | None) -> None:
    """Refuse force without a reason; raises BadParameter."""
    if force and not require_text(reason, "reason"):
        raise typer.BadParameter("--force takes a lock away from its holder: give the --reason as well")


def despite_locks(locks: PostgresLockManager, key: str, force: bool, reason: str | None, change: Callable[[], T]) -> T:
    """Carry the change of a key out.

    Parameters:
        locks: knows who has the key's lock.
        key: the key.
        force: whether a lock of somebody else is broken first, as often as somebody takes it.
        reason: why; kept in the entry of the broken lock.
        change: changes it.

    Raises: LockedError, with the way to have it done all the same; what ``change`` raises.
    """
    while True:
        try:
            return change()
        except LockedError as error:
            if not force:
                said = f"{error}; --force with a --reason takes the lock away"
                raise LockedError(said, key=error.key, holder=error.holder, since=error.since) from error
        _break(locks, key, reason or "")


def _break(locks: PostgresLockManager, key: str, reason: str) -> None:
    try:
        broken = locks.break_lock(key, reason)
    except InvalidArgument as error:
        if error.argument != "key":
            raise
        return  # its holder has let it go meanwhile
    note(f"{key}: the lock of {broken.holder}, fence {broken.fence}, is taken away")
