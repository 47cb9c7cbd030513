"""Holds: what nobody takes away while they stand."""

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any
from uuid import UUID

from pgresults.arguments import require_moment
from pgresults.audit.scopes import require_reason, scope_of
from pgresults.database.programs import Program, call
from pgresults.errors import ConfigurationError, InvalidArgument
from pgresults.operations import holds as operations
from pgresults.operations.holds import Hold
from pgresults.records.provenance import actor
from pgresults.storage.keyspace import Keyspace
from pgresults.storage.postgres import PostgresStorage


def hold(
    keyspace: Keyspace,
    key: str | None,
    prefix: str | None,
    tags: Iterable[str] | None,
    reason: str,
    until: datetime | None,
) -> Program[UUID]:
    """Place a hold; see `ResultStore.hold`."""
    covers = _covers(key=key, prefix=prefix, tags=tags)
    moment = None if until is None else require_moment(until, "until")
    said = {**_said(keyspace, covers, reason), "until": moment}
    storage = keyspace.entries
    return (yield from call(storage.database, lambda _: operations.place(said), repeatable=False))


def release(
    keyspace: Keyspace,
    key: str | None,
    prefix: str | None,
    tags: Iterable[str] | None,
    reason: str,
    id: UUID | None,  # noqa: A002 (the column's name)
) -> Program[int]:
    """Release holds; see `ResultStore.release_hold`."""
    if id is None:
        covers = _covers(key=key, prefix=prefix, tags=tags)
    elif (key, prefix, tags) == (None, None, None):
        covers = {"id": str(require_id(id))}
    else:
        raise InvalidArgument("name a hold by its id alone, or say what it covers", argument="id", value=id)
    said, storage = _said(keyspace, covers, reason), keyspace.entries
    return (yield from call(storage.database, lambda _: operations.release(said), repeatable=False))


def holds(keyspace: Keyspace) -> Program[list[Hold]]:
    """The holds that stand; see `ResultStore.holds`."""
    storage = only_storage(keyspace)
    return (yield from call(storage.database, lambda _: operations.holds(storage.id)))


def _said(keyspace: Keyspace, covers: dict[str, Any], reason: str) -> dict[str, Any]:
    storage = only_storage(keyspace)
    said = {"storage_id": storage.id, "covers": json.dumps(covers), "actor": actor()}
    return {**said, "reason": require_reason(reason)}


def _covers(*, key: str | None, prefix: str | None, tags: Iterable[str] | None) -> dict[str, Any]:
    advice = "say what is on hold by one of key, prefix and tags"
    return scope_of(advice, "key", key=key, prefix=prefix, tags=tags)


def require_id(id_: object) -> UUID:
    """An id as the database gave it; raises InvalidArgument for what is none."""
    if not isinstance(id_, UUID):
        raise InvalidArgument("id is the UUID that a hold or a rule has", argument="id", value=id_)
    return id_


def only_storage(keyspace: Keyspace) -> PostgresStorage:
    """The storage of all there is: where metadata lies apart, a hold on one of two would let the other's part go.

    Raises: ConfigurationError where there are two.
    """
    if keyspace.apart is not None:
        raise ConfigurationError(
            "metadata and payloads of this store lie in two storages, under keys of their own: hold, and set rules, "
            "by a store for each of them, `ResultStore(result_storage=…)`",
            setting="metadata_storage",
        )
    return keyspace.payloads
