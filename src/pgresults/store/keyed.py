"""Results written, read and deleted under keys."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID, uuid4

from pydantic import Field, SerializeAsAny, field_validator

from pgresults.arguments import require_text
from pgresults.audit.entries import HistoryEntry
from pgresults.audit.methods import HistoryMethods, Place, said
from pgresults.audit.past import exists_as_of
from pgresults.audit.queries import require_moment
from pgresults.database.programs import Program, aperform, compute, is_small, perform
from pgresults.errors import MissingResult
from pgresults.operations.results import delete
from pgresults.records.keys import require_key
from pgresults.records.provenance import recorded
from pgresults.records.records import ResultRecord, ResultRecordMetadata
from pgresults.serializers import Serializer
from pgresults.settings import current_settings
from pgresults.storage.encoding import decode, metadata_of, require_live, require_signed
from pgresults.storage.postgres import NullStorage, PostgresStorage
from pgresults.storage.registry import require_postgres, resolving, resolving_default, storage_at
from pgresults.store.cache import ResultCache
from pgresults.store.deprecation import warn_deprecated
from pgresults.store.metadata_apart import past_record, pointed_to, same_payload
from pgresults.store.uploads import (
    Draft,
    Staged,
    encoded,
    pointer_to,
    require_aware,
    require_tags,
    store_staged,
    stored_metadata,
)

R = TypeVar("R")


def _new_key() -> str:
    return uuid4().hex


class KeyedStore(HistoryMethods):
    """Reads and writes results under keys; see ``docs/results.md``.

    Every method that touches the database exists twice: ``name`` blocks, ``aname`` is for an event loop.

    Parameters:
        result_storage: where results go: a storage, its registered name or id, a URL or a directory; None: the
            default storage.
        metadata_storage: where metadata goes; None: beside the payload. Another storage keeps it under the key, with
            the payload under a key of its own; a `NullStorage` keeps no metadata. Keys are then looked up there, also
            by `history`, `find` and `invalidate`; `retain`, `verify` and `seal` look after ``result_storage`` alone.
        persist_result: deprecated, without effect.
        serializer: turns objects into payloads.
        storage_key_fn: gives a key when none is given.
        cache_result_in_memory: keep records that were read; a later read asks the database only whether its
            version is still the current one, and returns the same object.
        cache: the memory, bounded by entries and by bytes.
    """

    result_storage: PostgresStorage | UUID | str | Path | None = None
    metadata_storage: PostgresStorage | NullStorage | UUID | str | Path | None = None
    persist_result: bool | None = None
    cache_result_in_memory: bool = True
    serializer: SerializeAsAny[Serializer] = Field(default_factory=lambda: default_serializer())
    storage_key_fn: Callable[[], str] = _new_key
    cache: ResultCache = Field(default_factory=lambda: _default_cache(), repr=False)

    @field_validator("result_storage", mode="before")
    @classmethod
    def _result_storage(cls, spec: Any) -> Any:
        return None if spec is None else spec if (found := storage_at(spec)) is None else require_postgres(found)

    @field_validator("metadata_storage", mode="before")
    @classmethod
    def _metadata_storage(cls, spec: Any) -> Any:
        return None if spec is None else storage_at(spec) or spec

    @field_validator("persist_result")
    @classmethod
    def _deprecated(cls, persist: bool | None) -> bool | None:
        if persist is not None:
            warn_deprecated(
                "persist_result of a ResultStore is deprecated and has no effect: set it on the flow or task"
            )
        return persist

    @property
    def result_storage_block_id(self) -> UUID | None:
        """The id of the registered storage where results go; None when it is not registered."""
        storage = self.result_storage
        return storage.storage_block_id if isinstance(storage, PostgresStorage) else None

    def create_result_record(
        self, obj: R, key: str | None = None, expiration: datetime | None = None
    ) -> ResultRecord[R]:
        """Make a record of an object, without storing it.

        Parameters:
            obj: the result.
            key: where it is to be stored; None: a new key.
            expiration: when it ceases to be live (aware); None: never.

        Raises: InvalidKey; InvalidArgument for a naive time.
        """
        draft = self.draft(obj, key, expiration)
        require_key(draft.storage_key)
        return ResultRecord(result=obj, metadata=draft.metadata())

    def write(
        self,
        obj: Any,
        key: str | None = None,
        expiration: datetime | None = None,
        holder: str | None = None,
        tags: Iterable[str] | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> ResultRecordMetadata:
        """Store an object as the next version of a key; metadata, payload and history appear together.

        Parameters:
            obj: the result.
            key: where to store it; None: a new key, given by `storage_key_fn`.
            expiration: when it ceases to be live (aware); None: never.
            holder: who writes; None: this thread.
            tags: words to find it by.
            provenance: a JSON object to keep with the version, beside what is recorded anyway.

        Returns: the metadata as stored, with version, time, size and digest.
        Raises: InvalidKey; InvalidArgument; SerializationError; PayloadTooLarge; StorageUnavailable.
        """
        return perform(self._store(self.draft(obj, key, expiration), holder, tags, provenance))

    async def awrite(
        self,
        obj: Any,
        key: str | None = None,
        expiration: datetime | None = None,
        holder: str | None = None,
        tags: Iterable[str] | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> ResultRecordMetadata:
        """Store an object as the next version of a key; see `write`."""
        return await aperform(self._store(self.draft(obj, key, expiration), holder, tags, provenance))

    def persist_result_record(
        self, result_record: ResultRecord[Any], holder: str | None = None
    ) -> ResultRecordMetadata:
        """Store a record under its own key; see `write`."""
        return perform(self.persisting(result_record, holder))

    async def apersist_result_record(
        self, result_record: ResultRecord[Any], holder: str | None = None
    ) -> ResultRecordMetadata:
        """Store a record under its own key; see `write`."""
        return await aperform(self.persisting(result_record, holder))

    def read(
        self, key: str, holder: str | None = None, version: int | None = None, as_of: datetime | None = None
    ) -> ResultRecord[Any]:
        """Read the current result of a key, or what it was.

        Parameters:
            key: where it is.
            holder: who reads; None: this thread.
            version: a version, current or not, as long as its payload is kept; None: the current one.
            as_of: a moment (aware) whose live result to read; None: now.

        Returns: the record, with version, time, size and digest in its metadata.
        Raises: MissingResult with the reason; IntegrityError; SerializationError; StorageUnavailable.
        """
        return perform(self.reading(key, holder, version, as_of))

    async def aread(
        self, key: str, holder: str | None = None, version: int | None = None, as_of: datetime | None = None
    ) -> ResultRecord[Any]:
        """Read the current result of a key, or what it was; see `read`."""
        return await aperform(self.reading(key, holder, version, as_of))

    def exists(self, key: str, as_of: datetime | None = None) -> bool:
        """Whether a key has a live result: neither expired nor deleted. Reads no payload.

        Parameters:
            key: where it is.
            as_of: a moment (aware) to ask about; None: now.

        Raises: InvalidKey; InvalidArgument; StorageUnavailable (an outage is not an answer).
        """
        return perform(self._exists(key, as_of))

    async def aexists(self, key: str, as_of: datetime | None = None) -> bool:
        """Whether a key has a live result; see `exists`."""
        return await aperform(self._exists(key, as_of))

    def delete(self, key: str, reason: str | None = None) -> bool:
        """Take the live result of a key away; its history stays.

        Returns: whether there was one: what has expired is gone already, and its history will say so.
        Raises: InvalidKey; InvalidArgument for a reason that cannot be kept; LockedError; StorageUnavailable.
        """
        return perform(self._delete(key, reason))

    async def adelete(self, key: str, reason: str | None = None) -> bool:
        """Take the live result of a key away; see `delete`."""
        return await aperform(self._delete(key, reason))

    def storage(self) -> PostgresStorage:
        """Where results go, resolved on first use."""
        return perform(self.ready())

    def draft(self, obj: Any, key: str | None = None, expiration: datetime | None = None) -> Draft:
        """An object that is to be stored; its key is yet to be looked at.

        Raises: InvalidArgument for a naive time.
        """
        key = self.storage_key_fn() if key is None else key
        return Draft(obj, key, self.serializer, require_aware(expiration), self.result_storage_block_id)

    def persisting(self, record: ResultRecord[Any], holder: str | None = None) -> Program[ResultRecordMetadata]:
        """`persist_result_record` as a program."""
        return self._store(Draft.of(record), holder, None, None)

    def _store(
        self, draft: Draft, holder: str | None, tags: Iterable[str] | None, provenance: Mapping[str, Any] | None
    ) -> Program[ResultRecordMetadata]:
        staged = yield from self.encode(draft, holder, tags, provenance)
        written = yield from store_staged(staged)
        return stored_metadata(staged[0], written[0])

    def encode(
        self,
        draft: Draft,
        holder: str | None = None,
        tags: Iterable[str] | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> Program[list[Staged]]:
        """Make a draft ready to be stored, with the proof of its key's lock; what points to it comes second.

        Raises: what `write` raises before anything is written.
        """
        storage, keys = yield from self.storages()
        key, holder = require_key(draft.storage_key), self._named_holder(holder)
        if draft.storage_block_id is None and storage.storage_block_id is not None:
            draft = draft._replace(storage_block_id=storage.storage_block_id)
        locked = keys or storage
        proof = yield from self._prove(key, holder, locked.database, locked.id)
        described = {"holder": holder, "tags": require_tags(tags), "provenance": recorded(provenance)}
        proven = {**described, **proof.parameters}
        small = is_small(draft.result, storage.settings.offload_bytes)
        if keys is None:
            bare = self.metadata_storage is not None
            return [
                (yield from compute(lambda: encoded(storage, key, draft, proven, proof.guard, bare=bare), small=small))
            ]
        elsewhere = require_key(self.storage_key_fn())
        moved = draft._replace(storage_key=elsewhere)
        staged = yield from compute(lambda: encoded(storage, elsewhere, moved, described), small=small)
        return [staged, encoded(keys, key, pointer_to(moved, staged.upload, key), proven, proof.guard)]

    def storages(self) -> Program[tuple[PostgresStorage, PostgresStorage | None]]:
        """Where results go, and where metadata is kept apart; see `ready` and `keys`."""
        storage = self.result_storage if isinstance(self.result_storage, PostgresStorage) else (yield from self.ready())
        return storage, None if self.metadata_storage is None else (yield from self.keys())

    def ready(self) -> Program[PostgresStorage]:
        """Where results go, looked up without blocking an event loop."""
        if self.result_storage is None:
            self.result_storage = yield from resolving_default()
        elif not isinstance(self.result_storage, PostgresStorage):
            self.result_storage = require_postgres((yield from resolving(self.result_storage)))
        return self.result_storage

    def keys(self) -> Program[PostgresStorage | None]:
        """Where metadata is kept apart; None: beside the payload, or not at all."""
        if self.metadata_storage is None or isinstance(self.metadata_storage, NullStorage):
            return None
        if not isinstance(self.metadata_storage, PostgresStorage):
            self.metadata_storage = yield from resolving(self.metadata_storage)
        return self.metadata_storage if isinstance(self.metadata_storage, PostgresStorage) else None

    def _named_holder(self, holder: str | None) -> str:
        return require_text(holder, "holder") or self.generate_default_holder()

    def _exists(self, key: str, as_of: datetime | None) -> Program[bool]:
        storage = yield from self.indexed()
        if as_of is None:
            return (yield from storage.has(require_key(key)))
        return (yield from exists_as_of(storage, key, require_moment(as_of, "as_of")))

    def reading(
        self, key: str, holder: str | None = None, version: int | None = None, as_of: datetime | None = None
    ) -> Program[ResultRecord[Any]]:
        """`read` as a program."""
        storage, keys = yield from self.storages()
        if version is None and as_of is None:
            if self.lock_manager is not None:
                yield from self._await_others(
                    require_key(key), self._holder(holder), storage.settings.read_lock_timeout
                )
            if keys is not None:
                key = pointed_to((yield from self._read_in(keys, key)))
            return (yield from self._read_in(storage, key))
        record = yield from past_record(keys or storage, self.serializer, key, version, as_of)
        if keys is None:
            return record
        return same_payload((yield from self._read_in(storage, pointed_to(record))), record, key)

    def _read_in(self, storage: PostgresStorage, key: str) -> Program[ResultRecord[Any]]:
        place = (storage.id, require_key(key))
        known = self.cache.payload_id(place) if self.cache_result_in_memory else None
        found = require_live((yield from storage.fetch(key, known)), key)
        if found.head.payload_id == known and (kept := self.cache.record(place, known)):
            require_signed(found.head, key, storage.trust)
            return kept.model_copy(update={"metadata": metadata_of(found.head, key, self.serializer)})
        if found.payload is None:  # the memory forgot it between the question and the answer
            found = require_live((yield from storage.fetch(key)), key)
        record = yield from compute(
            lambda: decode(found, key, self.serializer, storage.trust), small=storage.is_small(found.payload or b"")
        )
        if self.cache_result_in_memory:
            self.cache.keep(place, found.head, record)
        return record

    def _delete(self, key: str, reason: str | None) -> Program[bool]:
        entry = said("delete", self.generate_default_holder(), require_text(reason, "reason"))
        try:
            places = yield from self.places(key)
        except MissingResult:
            return False
        return bool((yield from self.changing(places, entry, delete)))

    def indexed(self) -> Program[PostgresStorage]:
        """Where keys are looked up: where results go, unless their metadata is kept apart."""
        storage, keys = yield from self.storages()
        return keys or storage

    def places(self, key: str) -> Program[list[Place]]:
        """Where something of a live result lies; its own key's place comes first.

        Raises: MissingResult where the metadata that says so is gone.
        """
        storage, keys = yield from self.storages()
        if keys is None:
            return [(storage, require_key(key))]
        return [(keys, key), (storage, pointed_to((yield from self._read_in(keys, require_key(key)))))]

    def past_places(self, key: str) -> Program[list[Place]]:
        """Where something of any version lies; its own key's place comes first."""
        storage, keys = yield from self.storages()
        if keys is None:
            return [(storage, require_key(key))]
        entries = yield from super()._history(key, with_results=True)
        payloads = dict.fromkeys(entry.result["storage_key"] for entry in entries if entry.has_result)
        return [(keys, key), *((storage, payload) for payload in payloads)]

    def _history(self, key: str, with_results: bool) -> Program[list[HistoryEntry]]:
        entries = yield from super()._history(key, with_results)
        if not with_results or (yield from self.keys()) is None:
            return entries
        shown = []
        for entry in entries:
            shown.append((yield from self._with_own_result(key, entry)))  # noqa: PERF401 (it yields)
        return shown

    def _with_own_result(self, key: str, entry: HistoryEntry) -> Program[HistoryEntry]:
        """An entry with the result that its metadata points to."""
        try:
            found = (yield from self.reading(key, version=entry.version)) if entry.has_result else None
        except MissingResult:
            found = None
        return replace(entry, result=found and found.result, has_result=found is not None)


def default_serializer() -> Serializer:
    """The serializer of the settings."""
    return Serializer.model_validate(current_settings().results.default_serializer)


def _default_cache() -> ResultCache:
    settings = current_settings()
    return ResultCache(settings.cache_max_entries, settings.cache_max_bytes)
