"""Several results written or read at once, in few round trips."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import accumulate
from typing import Any, TypeAlias

from pgresults.database.observing import BATCH, SIZE, About, observed
from pgresults.database.programs import Program, call, compute
from pgresults.errors import InvalidArgument, MissingResult, SerializationError
from pgresults.operations.results import Found, read_all
from pgresults.records.keys import require_key
from pgresults.records.records import ResultRecord, ResultRecordMetadata
from pgresults.serializers import Serializer
from pgresults.storage.encoding import decode
from pgresults.storage.keyspace import Keyspace
from pgresults.storage.misses import require_live
from pgresults.storage.pointers import pointed_to
from pgresults.storage.postgres import PostgresStorage
from pgresults.store.writing import Staged, draft_of, encode, store_staged, stored_metadata


def _about_many(keyspace: Keyspace, items: Any, *_: Any) -> About:
    number = len(items) if isinstance(items, Mapping) else 1
    return keyspace.payloads._about(**{BATCH: number} if number != 1 else {})


@observed("write", _about_many, lambda stored: {SIZE: sum(one.size or 0 for one in stored.values())})
def write_many(
    keyspace: Keyspace,
    items: Mapping[str, Any],
    new_key: Callable[[], str],
    expiration: datetime | None,
    holder: str | None,
    tags: Iterable[str] | None,
    provenance: Mapping[str, Any] | None,
    expires_in: timedelta | None = None,
) -> Program[dict[str, ResultRecordMetadata]]:
    """Store objects under their keys, all of them or none; see `ResultStore.write_many`."""
    if not isinstance(items, Mapping):
        raise InvalidArgument(
            f"items are a mapping of keys to objects, not a {type(items).__name__}", argument="items", value=items
        )
    drafts = {key: draft_of(obj, key, keyspace.serializer, expiration, expires_in) for key, obj in items.items()}
    given = None if tags is None else list(tags) if not isinstance(tags, str) else tags
    staged: list[list[Staged]] = []
    for draft in drafts.values():
        staged.append((yield from encode(keyspace, draft, new_key, holder, given, provenance)))  # noqa: PERF401 (it yields)
    if not staged:
        return {}
    written = yield from store_staged([version for versions in staged for version in versions])
    firsts = accumulate(map(len, staged[:-1]), initial=0)
    return {
        key: stored_metadata(versions[0], written[first])
        for key, versions, first in zip(drafts, staged, firsts, strict=True)
    }


Unreadable: TypeAlias = Callable[[str, SerializationError], None]
"""Told of a key whose result cannot be loaded, and why."""


def _of_many(records: Mapping[str, ResultRecord[Any]]) -> Mapping[str, Any]:
    return {"pgresults.found": len(records), SIZE: sum(one.metadata.size or 0 for one in records.values())}


@observed("read_many", lambda keyspace, *_: keyspace.payloads._about(), _of_many)
def read_many(
    keyspace: Keyspace, keys: Iterable[str], unreadable: Unreadable | None = None
) -> Program[dict[str, ResultRecord[Any]]]:
    """Read the current results of keys, as they were at one moment; see `ResultStore.read_many`.

    Parameters:
        keyspace: where they are.
        keys: of which.
        unreadable: told of what cannot be loaded, which then is left out; None: that raises.
    """
    if isinstance(keys, str):  # its characters would pass for keys
        raise InvalidArgument("keys are several: give a list of them", argument="keys", value=keys)
    wanted = [require_key(key) for key in keys]
    storage, serializer = keyspace.payloads, keyspace.serializer
    if keyspace.apart is None:
        return (yield from _read_all(storage, serializer, wanted, unreadable))
    pointers = yield from _read_all(keyspace.apart, serializer, wanted)
    targets = {key: pointed_to(pointer) for key, pointer in pointers.items()}
    found = yield from _read_all(storage, serializer, list(targets.values()), unreadable)
    return {key: found[target] for key, target in targets.items() if target in found}


def _read_all(
    storage: PostgresStorage, serializer: Serializer, keys: Sequence[str], unreadable: Unreadable | None = None
) -> Program[dict[str, ResultRecord[Any]]]:
    if not keys:
        return {}
    trust = yield from storage._trusted()
    found = yield from call(storage.database, lambda _: read_all(storage.id, keys), atomic=True)
    live = {key: found[key] for key in keys if key in found and _is_live(found[key], key)}
    size = sum(len(one.payload or b"") for one in live.values())

    def decode_all() -> dict[str, ResultRecord[Any]]:
        records = {}
        for key, one in live.items():
            try:
                records[key] = decode(one, key, serializer, trust)
            except SerializationError as error:
                if unreadable is None:
                    raise
                unreadable(key, error)
        return records

    return (yield from compute(decode_all, small=size <= storage.settings.offload_bytes))


def _is_live(found: Found, key: str) -> bool:
    try:
        require_live(found, key)
    except MissingResult:
        return False
    return True
