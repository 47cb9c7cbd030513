"""Writing any number of results in bounded memory: in one transaction, or batch by batch."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple, TypeAlias

from pgresults.database.observing import BATCH, SIZE, observed
from pgresults.database.programs import Program, call, calling, compute, is_small, wait_for
from pgresults.errors import InvalidArgument, SerializationError
from pgresults.locking.proofs import NO_PROOF, prove
from pgresults.operations.bulk import write_runs
from pgresults.operations.requests import Operation
from pgresults.operations.results import Upload, Written
from pgresults.records.keys import require_key
from pgresults.records.lineage import GivenParent, Origin, names_of, require_parents
from pgresults.records.outlines import outline_of
from pgresults.records.records import ResultRecordMetadata, payload_of
from pgresults.serializers.permits import Permit, within_permit
from pgresults.sql.guards import Guard
from pgresults.storage.encoding import Said
from pgresults.storage.keyspace import Keyspace
from pgresults.storage.postgres import PostgresStorage
from pgresults.store.spool import Spool
from pgresults.store.writing import (
    Draft,
    Staged,
    ancestry_of,
    columns_of,
    describe,
    draft_of,
    encode_described,
    encoded,
    store_staged,
    stored_metadata,
)

_MOST_ITEMS = 1000
_MOST_BYTES = 2 * 1024 * 1024

Item: TypeAlias = tuple[str, Any] | tuple[str, Any, Mapping[str, Any]]
"""A key with its object, and with options of its own."""


class WriteProgress(NamedTuple):
    """How far `ResultStore.write_many` has come: what is counted is stored for good."""

    stored: int
    """Items: those from the beginning of what was given."""
    bytes: int
    """Bytes of their payloads."""


@dataclass(frozen=True, slots=True)
class ItemOptions:
    """What can be said of an item alone; see `ResultStore.write`."""

    expiration: datetime | None = None
    expires_in: timedelta | None = None
    tags: Iterable[str] | None = None
    provenance: Mapping[str, Any] | None = None
    derived_from: Iterable[GivenParent] | None = None


class Writing(NamedTuple):
    """How items are to be written.

    Parameters:
        options: of the items that have none of their own.
        holder: who writes; None: this thread.
        atomic: all of them or none.
        progress: told after each transaction.
    """

    options: ItemOptions
    holder: str | None
    atomic: bool
    progress: Callable[[WriteProgress], None] | None


class _Given:
    """What is said of items beside their keys and objects."""

    def __init__(self, keyspace: Keyspace, draft: Draft, described: dict[str, Any]) -> None:
        storage = keyspace.payloads
        self.draft = draft._replace(storage_block_id=storage.storage_block_id)
        self.described = described
        entries = keyspace.entries
        own = Origin("", entries.database.place, entries.id)
        named = names_of(draft.ancestry.parents, own, complete=True)
        columns = {**columns_of(self.draft, ""), **described, "derived_from": named}
        self._said = Said(storage._trust, columns, storage.settings.max_payload_bytes)
        self.parents = {one.key if isinstance(one, Origin) else one[0] for one in draft.ancestry.parents}
        """The keys of what each is derived from, which has to be written before."""
        self._derived_from = named
        self._permit = Permit.of(storage.settings)

    def staged(self, storage: PostgresStorage, key: str, obj: Any, guard: Guard) -> Staged:
        """An item that is kept in one place and proves no fence; its draft is the one of all such items."""
        with within_permit(self._permit):
            payload = payload_of(obj, self.draft.serializer)
        outline = outline_of(obj, storage.settings.record_columns)
        if outline is not None:  # it goes into a provenance of the item's own
            done = self.draft._replace(storage_key=key, payload=payload, outline=outline)
            return encoded(storage, key, done, {**self.described, "derived_from": self._derived_from}, guard)
        return Staged(storage, self._said.upload(key, payload, guard), self.draft)


_Stored: TypeAlias = tuple[Written, Written]
"""What was written of an item: its payload, and what stands under its key, which may be the same."""


class _Run(NamedTuple):
    """Items ready to be stored."""

    versions: list[Staged]
    """What is to be stored for them, one after the other; what points to a payload that lies elsewhere comes second."""
    each: int
    """How many there are of each item."""

    @property
    def uploads(self) -> list[Upload]:
        """What is to be stored."""
        return [version.upload for version in self.versions]

    @property
    def size(self) -> int:
        """Bytes of payload."""
        return sum(version.upload.own.size for version in self.versions[:: self.each])

    def described(self) -> Iterator[tuple[str, Staged]]:
        """The keys of the items, each with what its metadata is made of: without its payload."""
        for (storage, upload, draft), last in zip(
            self.versions[:: self.each], self.versions[self.each - 1 :: self.each], strict=True
        ):
            key = last.upload.key
            bare = draft._replace(result=None, payload=None, storage_key=draft.storage_key or key)
            yield key, Staged(storage, upload._replace(own=upload.own._replace(data=b"")), bare)


class _Items:
    """The items, one after the other, with their places."""

    def __init__(self, keyspace: Keyspace, items: Any, new_key: Callable[[], str], writing: Writing) -> None:
        if isinstance(items, str | bytes | bytearray) or not isinstance(items, Iterable):
            raise InvalidArgument(
                f"items are pairs of keys and objects, or a mapping, not a {type(items).__name__}",
                argument="items",
                value=items,
            )
        self._items: Iterator[Any] = iter(items.items() if isinstance(items, Mapping) else items)
        usual = writing.options  # which every item is asked for that has options of its own
        if usual.derived_from is not None:
            usual = replace(usual, derived_from=require_parents(usual.derived_from))
        if isinstance(usual.tags, Iterator):
            usual = replace(usual, tags=list(usual.tags))
        writing = writing._replace(options=usual)
        self._keyspace, self._new_key, self._writing = keyspace, new_key, writing
        self._usual = self._given({})
        self._next: Any = None
        self.taken = 0

    def run(self) -> Program[_Run]:
        """The next items ready to be stored, of which no two have one key; none: there are no more."""
        run = _Run([], 1 if self._keyspace.apart is None else 2)
        keys: set[str] = set()
        size = 0
        while len(keys) < _MOST_ITEMS and size < _MOST_BYTES:
            item = self._next or calling(self._fetched)
            self._next = None
            if item is None:
                break
            key = item[0]
            try:
                given = self._usual if len(item) < 3 else self._given(item[2])
                if key in keys or not keys.isdisjoint(given.parents):
                    self._next = item
                    break
                staged = self._at_once(key, item[1], given) or (yield from self._encoded(key, item[1], given))
            except Exception as error:
                _name(error, self.taken, key)
                raise
            run.versions.extend(staged)
            keys.add(key)
            size += staged[0].upload.size
            self.taken += 1
        return run

    def _fetched(self) -> tuple[Any, ...] | None:
        item = next(self._items, None)
        if item is None:
            return None
        if not isinstance(item, tuple | list) or len(item) not in (2, 3) or not isinstance(item[0], str):
            raise InvalidArgument(
                f"item {self.taken} is no (key, object) or (key, object, options): {item!r:.200}",
                argument="items",
                value=item,
            )
        return tuple(item)

    def _at_once(self, key: str, obj: Any, given: _Given) -> tuple[Staged] | None:
        """An item that nothing has to be waited for; None: something has."""
        keyspace = self._keyspace
        if keyspace.locks is not None or keyspace.apart is not None:
            return None
        storage = keyspace.payloads
        if not is_small(obj, storage.settings.offload_bytes):
            return None
        return (given.staged(storage, require_key(key), obj, NO_PROOF.guard),)

    def _encoded(self, key: str, obj: Any, given: _Given) -> Program[Sequence[Staged]]:
        keyspace, storage, described = self._keyspace, self._keyspace.payloads, given.described
        if keyspace.apart is None:
            holder = described["holder"]
            proof = yield from prove(keyspace.locks, require_key(key), holder, storage.database, storage.id)
            if proof.guard is not Guard.FENCE:
                small = is_small(obj, storage.settings.offload_bytes)
                return [(yield from compute(lambda: given.staged(storage, key, obj, proof.guard), small=small))]
        draft = given.draft._replace(result=obj, storage_key=key)
        return (yield from encode_described(keyspace, draft, self._new_key, described))

    def _given(self, options: Any) -> _Given:
        names = ItemOptions.__slots__
        if not isinstance(options, Mapping) or not options.keys() <= set(names):
            raise InvalidArgument(
                f"the options of an item are an object with some of {', '.join(names)}", argument="items", value=options
            )
        usual = {name: getattr(self._writing.options, name) for name in names}
        if options.keys() & {"expiration", "expires_in"}:
            usual |= {"expiration": None, "expires_in": None}
        said = ItemOptions(**{**usual, **options})
        ancestry = ancestry_of(said.derived_from)
        draft = draft_of(None, "", self._keyspace.serializer, said.expiration, said.expires_in, ancestry)
        tags = said.tags if said.tags is None or isinstance(said.tags, str) else list(said.tags)
        return _Given(self._keyspace, draft, describe(self._writing.holder, tags, said.provenance))


def _name(error: Exception, place: int, key: str) -> None:
    """Say of which item a failure is."""
    if isinstance(error, SerializationError) and error.key is None:
        error.key = key
    error.add_note(f"This came of item {place}, {key!r}.")


def write_many(
    keyspace: Keyspace, items: Any, new_key: Callable[[], str], writing: Writing
) -> Program[dict[str, ResultRecordMetadata] | int]:
    """Store objects under their keys; see `ResultStore.write_many`."""
    for storage in filter(None, (keyspace.payloads, keyspace.apart)):
        yield from storage._register()
        yield from storage._trusted(register=True)
    given = _Items(keyspace, items, new_key, writing)
    kept: dict[str, ResultRecordMetadata] | None = {} if isinstance(items, Mapping) else None
    if writing.atomic and _is_one_database(keyspace):
        yield from _together(keyspace, given, kept, writing)
    else:
        yield from _in_batches(keyspace, given, kept, writing)
    return given.taken if kept is None else kept


def _said(done: WriteProgress) -> Mapping[str, Any]:
    return {SIZE: done.bytes} | ({BATCH: done.stored} if done.stored != 1 else {})


_observed = observed("BATCH write", lambda keyspace, *_: keyspace.payloads._about(), _said)


@_observed
def _together(
    keyspace: Keyspace, items: _Items, kept: dict[str, ResultRecordMetadata] | None, writing: Writing
) -> Program[WriteProgress]:
    """Make all ready first: no code of the caller's runs while the transaction is open, which can be repeated."""
    waiting: list[tuple[str, Staged]] = []
    size = 0
    with Spool() as spool:
        while (run := (yield from items.run())).versions:
            spool.add(run.uploads)
            size += run.size
            if kept is not None:
                waiting += run.described()
            yield from _let_others_run()
        if items.taken:
            _keep(kept, keyspace, waiting, (yield from _stored(keyspace, spool, keep=kept is not None)))
            _tell(writing, items.taken, size)
    return WriteProgress(items.taken, size)


@_observed
def _in_batches(
    keyspace: Keyspace, items: _Items, kept: dict[str, ResultRecordMetadata] | None, writing: Writing
) -> Program[WriteProgress]:
    stored = size = 0
    try:
        while (run := (yield from items.run())).versions:
            if _is_one_database(keyspace):
                with Spool() as spool:
                    spool.add(run.uploads)
                    written = yield from _stored(keyspace, spool, keep=kept is not None)
            else:
                written = _paired((yield from store_staged(run.versions)), run.each)
            _keep(kept, keyspace, run.described(), written)
            stored, size = items.taken, size + run.size
            _tell(writing, stored, size)
            yield from _let_others_run()
    except Exception as error:
        error.add_note(f"The first {stored:,} items are stored.")
        raise
    return WriteProgress(stored, size)


def _is_one_database(keyspace: Keyspace) -> bool:
    return keyspace.apart is None or keyspace.apart.database == keyspace.payloads.database


def _paired(written: Sequence[Written], each: int) -> list[_Stored]:
    return list(zip(written[::each], written[each - 1 :: each], strict=True))


def _stored(keyspace: Keyspace, spool: Spool, *, keep: bool) -> Program[list[_Stored]]:
    """Store what waits in a spool, in one transaction; what was written of each item is given if it is wanted."""
    each = 1 if keyspace.apart is None else 2
    kept: list[_Stored] = []

    def start(repeated: bool) -> Operation[None]:
        kept.clear()
        return write_runs(
            spool.runs, (lambda written: kept.extend(_paired(written, each) if keep else ())), repeated=repeated
        )

    yield from call(keyspace.payloads.database, start, atomic=True)
    return kept


def _keep(
    kept: dict[str, ResultRecordMetadata] | None,
    keyspace: Keyspace,
    items: Iterable[tuple[str, Staged]],
    written: Iterable[_Stored],
) -> None:
    if kept is not None:
        place, storage_id = keyspace.entries.database.place, keyspace.entries.id
        for (key, staged), (own, entry) in zip(items, written, strict=True):
            kept[key] = stored_metadata(staged, own, Origin(key, place, storage_id, entry.version))


def _tell(writing: Writing, stored: int, size: int) -> None:
    if (progress := writing.progress) is not None:
        calling(lambda: progress(WriteProgress(stored, size)))


def _let_others_run() -> Program[None]:
    """Have an event loop look after others between two runs."""
    return wait_for(lambda: None, lambda: asyncio.sleep(0))
