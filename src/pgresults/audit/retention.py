"""Rules of retention: which payloads are kept, how long, and what a sweep takes by them."""

import json
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any
from uuid import UUID

from pgresults.arguments import require_number, require_span
from pgresults.audit.holding import only_storage, require_id
from pgresults.audit.scopes import require_reason, scope_of
from pgresults.database.programs import Program, call
from pgresults.errors import InvalidArgument
from pgresults.operations import retention as operations
from pgresults.operations.retention import Carried, Due, RetentionRule
from pgresults.records.provenance import actor, default_holder
from pgresults.storage.keyspace import Keyspace
from pgresults.storage.postgres import PostgresStorage


def set_rule(
    keyspace: Keyspace,
    prefix: str | None,
    tags: Iterable[str] | None,
    task: str | None,
    versions: int | None,
    age: timedelta | None,
    redact_after: timedelta | None,
    reason: str,
) -> Program[UUID]:
    """Set a rule; see `ResultStore.set_retention`."""
    advice = "say what the rule is for by one of prefix, tags and task"
    covers = scope_of(advice, "prefix", prefix=prefix, tags=tags, task=task)
    keeps: dict[str, Any] = {} if versions is None else {"versions": require_number(versions, "versions")}
    keeps |= {
        name: f"PT{span // timedelta(seconds=1)}.{span.microseconds:06}S"
        for name, given in (("age", age), ("redact_after", redact_after))
        if given is not None and (span := _require_span(given, name))
    }
    if not keeps:
        raise InvalidArgument("say what is kept, or redacted when: versions, age or redact_after", argument="versions")
    storage = only_storage(keyspace)
    said = {
        "storage_id": storage.id,
        "covers": json.dumps(covers),
        "keeps": json.dumps(keeps),
        "reason": require_reason(reason),
        "actor": actor(),
    }
    return (yield from call(storage.database, lambda _: operations.set_rule(said), repeatable=False))


def end_rule(keyspace: Keyspace, id_: UUID, reason: str) -> Program[bool]:
    """End a rule; see `ResultStore.end_retention`."""
    storage = only_storage(keyspace)
    said = {"storage_id": storage.id, "id": require_id(id_), "reason": require_reason(reason), "actor": actor()}
    return (yield from call(storage.database, lambda _: operations.end_rule(said), repeatable=False))


def rules(keyspace: Keyspace) -> Program[list[RetentionRule]]:
    """The rules that stand; see `ResultStore.retention`."""
    storage = only_storage(keyspace)
    return (yield from call(storage.database, lambda _: operations.rules(storage.id)))


def due(keyspace: Keyspace, within: timedelta, limit: int | None) -> Program[list[Due]]:
    """What goes; see `ResultStore.retention_due`."""
    if within != timedelta():
        require_span(within, "within")
    if limit is not None:
        require_number(limit, "limit")
    storage = only_storage(keyspace)
    return (yield from call(storage.database, lambda _: operations.due(storage.id, within, limit)))


def carry_out(
    storage: PostgresStorage, batch_size: int, dry_run: bool, progress: Callable[[int], None] | None
) -> Program[Carried]:
    """Have go what the rules of a storage let go, so many keys in one transaction; what is done is done."""
    gone = held = 0
    if not (yield from call(storage.database, lambda _: operations.rules(storage.id))):
        return Carried(0, 0)
    begin = operations.going if dry_run else operations.carry_out
    entry: dict[str, Any] = {"storage_id": storage.id, "actor": actor(), "holder": default_holder(), "fence": None}
    place = {"storage_id": storage.id, "after": "", "limit": batch_size}
    while keys := (yield from call(storage.database, lambda _: operations.keys_after(place))):
        place["after"], entry["keys"] = keys[-1], keys
        carried = yield from call(storage.database, lambda _: begin(entry), atomic=True)
        gone, held = gone + carried.gone, held + carried.held
        if progress and carried.gone:
            progress(carried.gone)
    return Carried(gone, held)


_LONGEST = timedelta(days=365_000)


def _require_span(span: object, argument: str) -> timedelta:
    if require_span(span, argument) > _LONGEST:
        raise InvalidArgument(f"{argument} is at most {_LONGEST.days:,} days", argument=argument, value=span)
    assert isinstance(span, timedelta)  # noqa: S101 (as was just seen)
    return span
