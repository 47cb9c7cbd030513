"""Changing what is stored under a key without a new version: delete, touch, redact, invalidate."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, TypeAlias

from pgresults.arguments import require_moment, require_text
from pgresults.audit.past import entries_of
from pgresults.database.database import Database, Start
from pgresults.database.programs import Program, call, calling, together
from pgresults.errors import InvalidArgument, MissingResult
from pgresults.locking.postgres import PostgresLockManager
from pgresults.locking.proofs import prove
from pgresults.operations import history as operations
from pgresults.operations import lineage, results
from pgresults.operations.requests import Operation
from pgresults.records.keys import require_key, require_keys
from pgresults.records.provenance import actor, default_holder
from pgresults.sql.digests import content_digest
from pgresults.sql.guards import Guard
from pgresults.storage.current import read_all_current, read_current
from pgresults.storage.finding import bound, chosen_conditions
from pgresults.storage.keyspace import Keyspace
from pgresults.storage.misses import never_written, require_live, went_meanwhile
from pgresults.storage.pointers import pointed_to
from pgresults.storage.postgres import PostgresStorage

Place: TypeAlias = tuple[PostgresStorage, str]
"""A key in a storage."""

Change: TypeAlias = Callable[[dict[str, Any], Guard], Operation[Any]]
"""An operation that changes a key's place, given the parameters of its statements and what they prove."""


def delete(keyspace: Keyspace, key: str, reason: str | None) -> Program[bool]:
    """Take the live result of a key away; see `ResultStore.delete`."""
    entry = _said("delete", require_text(reason, "reason"))
    try:
        places = yield from _places(keyspace, key)
    except MissingResult:
        return False
    return bool((yield from _changing(keyspace, places, entry, results.delete)))


def delete_many(keyspace: Keyspace, keys: Iterable[str], reason: str | None) -> Program[int]:
    """Take the live results of several keys away; see `ResultStore.delete_many`."""
    entry, storage = _said("delete", require_text(reason, "reason")), keyspace.entries
    wanted = sorted(set(calling(lambda: list(require_keys(keys)))))
    guards = {Guard.NONE: list[str](), Guard.NOT_HELD: list[str]()}
    steps: list[tuple[Database, Start[int]]] = []
    for key in wanted:
        proof = yield from prove(keyspace.locks, key, entry["holder"], storage.database, storage.id)
        if proof.guard is Guard.FENCE:
            steps.append(_step(storage, key, {**entry, **proof.parameters}, results.delete, proof.guard))
        else:
            guards[proof.guard].append(key)
    steps += [_step_of_many(storage, some, entry, guard) for guard, some in guards.items() if some]
    counted = len(steps)
    if keyspace.apart is not None:
        pointers = yield from read_all_current(keyspace.apart, keyspace.serializer, wanted)
        payloads = sorted(pointed_to(pointer) for pointer in pointers.values())
        steps.append(_step_of_many(keyspace.payloads, payloads, entry, Guard.NONE))
    return sum((yield from together(steps, atomic=True))[:counted]) if steps else 0


def _step_of_many(
    storage: PostgresStorage, keys: list[str], entry: dict[str, Any], guard: Guard
) -> tuple[Database, Start[int]]:
    parameters = {**entry, "content": content_digest(entry), "storage_id": storage.id}
    guarded = guard is Guard.NOT_HELD
    return storage.database, lambda _: operations.delete_all(parameters, keys, guarded=guarded)


def touch(keyspace: Keyspace, key: str, expiration: datetime | None) -> Program[None]:
    """Give a live result another expiration; see `ResultStore.touch`."""
    moment = None if expiration is None else require_moment(expiration, "expiration")
    places = yield from _places(keyspace, key)
    entry = {**_said("touch"), "expires_at": moment}
    if not (yield from _changing(keyspace, places, entry, operations.touch, atomic=True)):
        require_live((yield from places[0][0]._fetch(key)), key)
        raise went_meanwhile(key)


def redact(keyspace: Keyspace, key: str, reason: str) -> Program[int]:
    """Erase the payloads of all versions of a key for good; see `ResultStore.redact`."""
    if require_text(reason, "reason") is None:
        raise InvalidArgument("say why the result is erased: reason is kept", argument="reason", value=reason)
    places = yield from _past_places(keyspace, key)
    erased: int | None = yield from _changing(keyspace, places, _said("redact", reason), operations.redact, atomic=True)
    if erased is None:
        raise never_written(key)
    return erased


def invalidate(
    keyspace: Keyspace,
    prefix: str | None,
    tags: Iterable[str] | None,
    task: str | None,
    flow: str | None,
    reason: str | None = None,
    downstream: bool = False,
) -> Program[int]:
    """Delete all live results that meet every given condition; see `ResultStore.invalidate`."""
    given = chosen_conditions(prefix=prefix, tags=tags, task=task, flow=flow)
    if not given:
        raise InvalidArgument("say what to invalidate: a prefix, tags, a task or a flow", argument="prefix")
    return (yield from _invalidate(keyspace, given, require_text(reason, "reason"), downstream=downstream))


def downstream_of(keyspace: Keyspace, given: dict[str, Any]) -> Program[list[str]]:
    """The keys of live results that meet every given condition, and of what is live of what was computed from them."""
    storage = keyspace.entries
    parameters = {"storage_id": storage.id, **bound(given)}
    found = yield from call(
        storage.database, lambda _: lineage.downstream(parameters, frozenset(given)), atomic=True, repeatable=True
    )
    return [key for _, key, _ in found]


def invalidate_downstream(keyspace: Keyspace, given: dict[str, Any], reason: str | None) -> Program[int]:
    """Delete the live results that meet every given condition, keys or others, and what was computed from them."""
    return _invalidate(keyspace, given, require_text(reason, "reason"), downstream=True)


def invalidate_task(keyspace: Keyspace, identity: str) -> Program[int]:
    """Delete the live results of one task, and of none that merely has its name; see `Task.invalidate`."""
    return (yield from _invalidate(keyspace, {"identity": identity}))


def _invalidate(
    keyspace: Keyspace, given: dict[str, Any], reason: str | None = None, *, downstream: bool = False
) -> Program[int]:
    storage, manager = keyspace.entries, keyspace.locks
    why = reason or f"invalidated by {', '.join(sorted(given))}"
    entry = _said("delete", why)
    parameters = {**entry, "content": content_digest(entry), "storage_id": storage.id, **bound(given)}
    guarded = isinstance(manager, PostgresLockManager) and manager._guards(storage.database, storage.id)

    def start(_: bool) -> Operation[int]:
        chosen = frozenset(given)
        if downstream:
            return lineage.invalidate_downstream(parameters, chosen, why, guarded=guarded)
        return operations.invalidate(parameters, chosen, guarded=guarded)

    return (yield from call(storage.database, start, atomic=downstream, repeatable=False))


def _said(action: str, reason: str | None = None) -> dict[str, Any]:
    """What an entry says that stores no version."""
    return {"action": action, "actor": actor(), "holder": default_holder(), "fence": None, "reason": reason}


def _places(keyspace: Keyspace, key: str) -> Program[list[Place]]:
    """Where something of a live result lies; its own key's place comes first.

    Raises: MissingResult where the metadata that says so is gone.
    """
    place = (keyspace.entries, require_key(key))
    if keyspace.apart is None:
        return [place]
    pointer = yield from read_current(keyspace.apart, keyspace.serializer, key)
    return [place, (keyspace.payloads, pointed_to(pointer))]


def _past_places(keyspace: Keyspace, key: str) -> Program[list[Place]]:
    """Where something of any version lies; its own key's place comes first."""
    place = (keyspace.entries, require_key(key))
    if keyspace.apart is None:
        return [place]
    entries = yield from entries_of(keyspace.apart, keyspace.serializer, key, with_results=True)
    payloads = dict.fromkeys(entry.result["storage_key"] for entry in entries if entry.has_result)
    return [place, *((keyspace.payloads, payload) for payload in payloads)]


def _changing(
    keyspace: Keyspace, places: Sequence[Place], entry: dict[str, Any], begin: Change, *, atomic: bool = False
) -> Program[Any]:
    """Change every place of a key together; the first one's lock is proven.

    Parameters:
        keyspace: who holds the locks.
        places: where.
        entry: what the history is to say.
        begin: begins the change of a place, given its parameters and what they prove.
        atomic: whether the change of one place has several statements.

    Returns: what the change of the first place gave.
    """
    storage, key = places[0]
    proof = yield from prove(keyspace.locks, key, entry["holder"], storage.database, storage.id)
    steps = [_step(storage, key, {**entry, **proof.parameters}, begin, proof.guard)]
    steps += [_step(where, name, entry, begin, Guard.NONE) for where, name in places[1:]]
    return (yield from together(steps, atomic=atomic))[0]


def _step(
    storage: PostgresStorage, key: str, entry: dict[str, Any], begin: Change, guard: Guard
) -> tuple[Database, Start[Any]]:
    columns = {**entry, "content": content_digest(entry), "storage_id": storage.id, "key": key}
    return storage.database, lambda _: begin(columns, guard)
