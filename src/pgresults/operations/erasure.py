"""Erasing everything of somebody in one transaction."""

from collections.abc import Callable, Mapping
from typing import Any

from pgresults.operations.history import redact
from pgresults.operations.prove import history
from pgresults.operations.requests import Execute, Operation, T
from pgresults.sql.erasure import PICK
from pgresults.sql.guards import Guard


def erase(
    entry: Mapping[str, Any], scope: str, guard: Guard, keep: Callable[[list[dict[str, Any]]], T]
) -> Operation[list[T]]:
    """Erase the payloads of all versions of all keys of a scope. To be run in a transaction.

    Parameters:
        entry: what to say of each, with the values of the scope.
        scope: which of `PICK`.
        guard: what is proven of each key's lock.
        keep: makes of a key's history what is returned of it; what it raises undoes everything.

    Raises: LockedError; OnHold; then nothing is erased.
    """
    kept = []
    for (key,) in (yield Execute(PICK[scope], entry)):
        yield from redact({**entry, "key": key}, guard)
        kept.append(keep((yield from history(entry["storage_id"], key))))
    return kept
