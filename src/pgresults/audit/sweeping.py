"""Taking payloads away that need not be kept, in batches that anybody may run and interrupt."""

from collections.abc import Callable
from datetime import timedelta
from typing import Self

from pgresults.arguments import require_number
from pgresults.audit.retention import carry_out
from pgresults.database.programs import Program, call
from pgresults.errors import InvalidArgument
from pgresults.operations import history as operations
from pgresults.operations.locks import forget
from pgresults.records.provenance import actor, default_holder
from pgresults.storage.postgres import PostgresStorage

_KEYS_A_PAGE = 500


class Taken(int):
    """How many results or payloads were taken away, or would be; ``held`` is how many more a hold kept.

    ``by_rules`` is how many payloads went by rules of retention besides, or would.
    """

    held: int
    by_rules: int

    def __new__(cls, number: int, held: int = 0, by_rules: int = 0) -> Self:
        """The number, with that of what was kept and of what rules took."""
        taken = super().__new__(cls, number)
        taken.held = held
        taken.by_rules = by_rules
        return taken

    def __reduce__(self) -> tuple[type[Self], tuple[int, int, int]]:
        return type(self), (int(self), self.held, self.by_rules)


def sweep(
    storage: PostgresStorage, batch_size: int, dry_run: bool, progress: Callable[[int], None] | None
) -> Program[Taken]:
    """Take what has expired, and what rules let go; see `ResultStore.sweep`."""
    require_number(batch_size, "batch_size", 100_000)
    if dry_run:
        free, held = yield from call(storage.database, lambda _: operations.expired(storage.id, default_holder()))
        carried = yield from carry_out(storage, batch_size, True, progress)
        return Taken(free, held + carried.held, carried.gone)
    parameters = {
        "batch_size": batch_size,
        "storage_id": storage.id,
        "actor": actor(),
        "holder": default_holder(),
    }
    total = 0
    while swept := (yield from call(storage.database, lambda _: operations.sweep(parameters))):
        total += swept
        if progress:
            progress(swept)
    # Each batch took some with it; what is left are the rows of more locks than results.
    while (yield from call(storage.database, lambda _: forget(storage.id, batch_size))):
        pass
    _, held = yield from call(storage.database, lambda _: operations.expired(storage.id, default_holder()))
    carried = yield from carry_out(storage, batch_size, False, progress)
    return Taken(total, held + carried.held, carried.gone)


def retain(
    storage: PostgresStorage,
    versions: int | None,
    age: timedelta | None,
    dry_run: bool,
    progress: Callable[[int], None] | None,
) -> Program[Taken]:
    """Take the payloads of superseded versions away; see `ResultStore.retain`."""
    bounds = _bounds(versions, age)
    page = {"storage_id": storage.id, "holder": default_holder(), "after": "", "limit": _KEYS_A_PAGE, **bounds}
    total = held = 0
    while keys := (yield from call(storage.database, lambda _: operations.superfluous(page))):
        page["after"], looked_at = keys[-1].key, len(keys)
        held += sum(key.payloads for key in keys if key.held)
        keys = [key for key in keys if not key.held]
        if dry_run:
            total += sum(key.payloads for key in keys)
        elif any(key.payloads for key in keys):
            total += yield from _drop(storage, keys)
        if progress:
            progress(looked_at)
    return Taken(total, held)


def _drop(storage: PostgresStorage, keys: list[operations.Superfluous]) -> Program[int]:
    entry = {
        "storage_id": storage.id,
        "action": "retain",
        "actor": actor(),
        "holder": default_holder(),
        "fence": None,
    }
    return call(storage.database, lambda _: operations.retain(entry, keys), atomic=True)


_LONGEST_AGE = timedelta(days=2_000_000)
"""Nothing is older, and it can still be taken from the time now."""


def _bounds(versions: int | None, age: timedelta | None) -> dict[str, object]:
    if versions is None and age is None:
        raise InvalidArgument("say what to keep: a number of versions, or an age", argument="versions")
    if versions is not None:
        require_number(versions, "versions")
    if age is not None and (not isinstance(age, timedelta) or age < timedelta(0)):
        raise InvalidArgument("age is a timedelta of 0 or more", argument="age", value=age)
    return {"versions": versions, "age": age and min(age, _LONGEST_AGE)}
