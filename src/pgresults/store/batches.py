"""Several results read at once, in few round trips."""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from functools import partial
from itertools import islice
from typing import Any

from pgresults.database.following import Wanted
from pgresults.database.observing import FOUND, SIZE, observed
from pgresults.database.programs import Program, calling
from pgresults.database.standbys import current, reading
from pgresults.operations.bulk import exist
from pgresults.operations.requests import Operation
from pgresults.records.keys import require_keys
from pgresults.records.lineage import note
from pgresults.records.records import ResultRecord
from pgresults.storage.current import Unreadable, read_all_current
from pgresults.storage.keyspace import Keyspace
from pgresults.storage.pointers import known_by, pointed_to
from pgresults.storage.postgres import PostgresStorage

_KEYS_A_STATEMENT = 1000
"""Keys that are looked at by one statement."""


def _of_many(records: Mapping[str, ResultRecord[Any]]) -> Mapping[str, Any]:
    return {FOUND: len(records), SIZE: sum(one.metadata.size or 0 for one in records.values())}


@observed("read_many", lambda keyspace, *_: keyspace.payloads._about(), _of_many)
def read_many(
    keyspace: Keyspace,
    keys: Iterable[str],
    unreadable: Unreadable | None = None,
    stale_ok: timedelta | None = None,
) -> Program[dict[str, ResultRecord[Any]]]:
    """Read the current results of keys, of which the run around takes note; see `ResultStore.read_many`.

    Parameters:
        keyspace: where they are.
        keys: of which.
        unreadable: told of what cannot be loaded, which then is left out; None: that raises.
        stale_ok: by how much they may be behind; None: not at all.
    """
    records = yield from _read_many(keyspace, list(require_keys(keys)), unreadable, current(stale_ok))
    note([record._origin for record in records.values()])
    return records


def _read_many(
    keyspace: Keyspace, asked: list[str], unreadable: Unreadable | None, wanted: Wanted | None
) -> Program[dict[str, ResultRecord[Any]]]:
    storage, serializer = keyspace.payloads, keyspace.serializer
    if keyspace.apart is None:
        return (yield from read_all_current(storage, serializer, asked, unreadable, wanted))
    pointers = yield from read_all_current(keyspace.apart, serializer, asked, None, wanted)
    targets = {key: pointed_to(pointer) for key, pointer in pointers.items()}
    found = yield from read_all_current(storage, serializer, list(targets.values()), unreadable, wanted)
    return {key: known_by(pointers[key], found[target]) for key, target in targets.items() if target in found}


@observed("exists_many", lambda keyspace, *_: keyspace.payloads._about(), lambda found: {FOUND: len(found)})
def exists_many(keyspace: Keyspace, keys: Iterable[str], stale_ok: timedelta | None = None) -> Program[set[str]]:
    """Which of the keys have a live result; see `ResultStore.exists_many`."""
    wanted = current(stale_ok)
    storage, left, live = keyspace.entries, require_keys(keys), set[str]()
    while page := calling(lambda: list(islice(left, _KEYS_A_STATEMENT))):
        live |= yield from reading(
            storage.database, partial(_existing, storage, page), wanted, believed=partial(_is_all, page)
        )
    return live


def _is_all(keys: list[str], found: set[str]) -> bool:
    return found == set(keys)


def _existing(storage: PostgresStorage, keys: list[str], *_: object) -> Operation[set[str]]:
    return exist(storage.id, keys)
