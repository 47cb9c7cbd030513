"""`ResultStore`: everything about results under keys, as one class.

What it does with single results and for runs stands here; its methods for many results at once are in `bulk_methods`,
for payloads larger than memory in `stream_methods`, for locks in `lock_methods`, for history, expirations and erasure
in `history_methods`, for what was computed from what in `lineage_methods`, for holds, verifying, seals and proofs in
`evidence_methods`. Each pair is a line over a program.
"""

from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, NoReturn, Self, TypeVar
from uuid import UUID, uuid4

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, SerializeAsAny, field_validator, model_validator

from pgresults.arguments import require_plain
from pgresults.database.programs import Program, aperform, compute, perform
from pgresults.errors import ConfigurationError, InvalidArgument
from pgresults.locking.managers import require_manager
from pgresults.locking.protocol import LockManager
from pgresults.records.keys import require_key
from pgresults.records.lineage import GivenParent
from pgresults.records.provenance import RUN
from pgresults.records.records import ResultRecord, ResultRecordMetadata
from pgresults.serializers import Serializer
from pgresults.settings import Settings, current_settings
from pgresults.storage.cache import ResultCache
from pgresults.storage.keyspace import Keyspace
from pgresults.storage.postgres import NullStorage, PostgresStorage
from pgresults.storage.registry import (
    block_id_of,
    lock_manager_at,
    require_postgres,
    resolving,
    resolving_default,
    storage_at,
)
from pgresults.store import reading, run_options, writing
from pgresults.store.bulk_methods import BulkMethods
from pgresults.store.deprecation import warn_deprecated
from pgresults.store.evidence_methods import EvidenceMethods
from pgresults.store.history_methods import HistoryMethods
from pgresults.store.lifetime_methods import LifetimeMethods
from pgresults.store.lineage_methods import LineageMethods
from pgresults.store.lock_methods import LockMethods
from pgresults.store.persisted import PersistedResult
from pgresults.store.run_options import resolve_serializer
from pgresults.store.stream_methods import StreamMethods
from pgresults.store.writing import Draft, Staged, ancestry_of, draft_of

R = TypeVar("R")

CURRENT_STORE: ContextVar["ResultStore | None"] = ContextVar("pgresults.store", default=None)
"""The store of the enclosing run."""

_ISOLATION_LEVELS = ("READ_COMMITTED", "SERIALIZABLE")


def default_serializer() -> Serializer:
    """The serializer of the settings."""
    return resolve_serializer(current_settings().results.default_serializer)


def _default_cache() -> ResultCache:
    settings = current_settings()
    return ResultCache(settings.cache_max_entries, settings.cache_max_bytes)


def _random_key() -> str:
    return uuid4().hex


def _lock_manager(given: Any) -> LockManager | None:
    return None if given is None else require_manager(given)


class ResultStore(
    BulkMethods,
    StreamMethods,
    LockMethods,
    HistoryMethods,
    LineageMethods,
    EvidenceMethods,
    LifetimeMethods,
    BaseModel,
):
    """Reads and writes results under keys; see ``docs/results.md``.

    Every method that touches the database exists twice: ``name`` blocks, ``aname`` is for an event loop.

    Parameters:
        result_storage: where results go: a storage, its registered name or id, a URL or a directory; None: the
            default storage.
        metadata_storage: where metadata goes; None: beside the payload. Another storage keeps it under the key, with
            the payload under a key of its own. Keys are then looked up there, also by `history`, `find` and
            `invalidate`; `retain`, `verify` and `seal` look after ``result_storage`` alone. A `NullStorage` keeps none
            apart, as None does.
        lock_manager: gives the work on a key to one holder at a time; None: no locks.
        locks: instead of a lock manager: True for that of the storage's own database.
        persist_result: deprecated, without effect.
        cache_result_in_memory: keep payloads that were read; a later read asks the database only whether its version
            is still the current one, and gives an object of its own.
        serializer: turns objects into payloads.
        storage_key_fn: gives a key when none is given.
        cache: the memory, bounded by entries and by bytes.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    result_storage: PostgresStorage | UUID | str | Path | None = None
    metadata_storage: PostgresStorage | NullStorage | UUID | str | Path | None = None
    lock_manager: Annotated[LockManager | None, PlainValidator(_lock_manager)] = None
    locks: bool = Field(default=False, repr=False, exclude=True)
    persist_result: bool | None = None
    cache_result_in_memory: bool = True
    serializer: SerializeAsAny[Serializer] = Field(default_factory=default_serializer)
    storage_key_fn: Callable[[], str] = _random_key
    cache: ResultCache = Field(default_factory=_default_cache, repr=False)

    @field_validator("result_storage", mode="before")
    @classmethod
    def _result_storage(cls, spec: Any) -> Any:
        return None if spec is None else spec if (found := storage_at(spec)) is None else require_postgres(found)

    @field_validator("metadata_storage", mode="before")
    @classmethod
    def _metadata_storage(cls, spec: Any) -> Any:
        return None if spec is None else storage_at(spec) or spec

    @field_validator("serializer", mode="before")
    @classmethod
    def _serializer(cls, given: Any) -> Any:
        if isinstance(given, Serializer | dict):
            return given
        try:
            return resolve_serializer(given)
        except InvalidArgument as error:  # pydantic would make another error of it
            raise ConfigurationError(str(error), setting="serializer") from error

    @field_validator("storage_key_fn")
    @classmethod
    def _storage_key_fn(cls, given: Callable[[], str]) -> Callable[[], str]:
        try:
            require_plain(given, "storage_key_fn")
        except InvalidArgument as error:  # pydantic would make another error of it
            raise ConfigurationError(str(error), setting="storage_key_fn") from error
        return given

    @model_validator(mode="after")
    def _locking(self) -> Self:
        if self.locks:
            if self.lock_manager is not None:
                raise ConfigurationError("give locks=True or a lock_manager, not both", setting="lock_manager")
            self.lock_manager = lock_manager_at(self.result_storage)
        return self

    @field_validator("persist_result")
    @classmethod
    def _deprecated(cls, persist: bool | None) -> bool | None:
        if persist is not None:
            warn_deprecated(
                "persist_result of a ResultStore is deprecated and has no effect: set it on the flow or task"
            )
        return persist

    def __contains__(self, key: object) -> NoReturn:
        raise TypeError("a store is asked for a key with exists(key), or with await aexists(key)")

    def __iter__(self) -> NoReturn:
        raise TypeError("a store is not gone through: find() gives what is in it, exists(key) says whether a key is")

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
        draft = self._draft(obj, key, expiration)._replace(storage_block_id=self.result_storage_block_id)
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
        expires_in: timedelta | None = None,
        derived_from: Iterable[GivenParent] | None = None,
    ) -> ResultRecordMetadata:
        """Store an object as the next version of a key; metadata, payload and history appear together.

        Parameters:
            obj: the result.
            key: where to store it; None: a new key, given by `storage_key_fn`.
            expiration: when it ceases to be live (aware); None: never.
            holder: who writes; None: this thread.
            tags: words to find it by.
            provenance: a JSON object to keep with the version, beside what is recorded anyway.
            expires_in: in place of expiration, how long it is live from now, by the server's clock.
            derived_from: the versions it was computed from: records or metadata as read and write return them, or pairs
                ``(key, version)``.

        Returns: the metadata as stored, with version, time, size and digest.
        Raises: InvalidKey; InvalidArgument; SerializationError; PayloadTooLarge; StorageUnavailable.
        """
        draft = self._draft(obj, key, expiration, expires_in, derived_from)
        return perform(self._write(draft, holder, tags, provenance))

    async def awrite(
        self,
        obj: Any,
        key: str | None = None,
        expiration: datetime | None = None,
        holder: str | None = None,
        tags: Iterable[str] | None = None,
        provenance: Mapping[str, Any] | None = None,
        expires_in: timedelta | None = None,
        derived_from: Iterable[GivenParent] | None = None,
    ) -> ResultRecordMetadata:
        """Store an object as the next version of a key; see `write`."""
        draft = self._draft(obj, key, expiration, expires_in, derived_from)
        return await aperform(self._write(draft, holder, tags, provenance))

    def persist_result_record(
        self, result_record: ResultRecord[Any], holder: str | None = None
    ) -> ResultRecordMetadata:
        """Store a record under its own key; see `write`."""
        return perform(self._write(Draft.of(result_record), holder))

    async def apersist_result_record(
        self, result_record: ResultRecord[Any], holder: str | None = None
    ) -> ResultRecordMetadata:
        """Store a record under its own key; see `write`."""
        return await aperform(self._write(Draft.of(result_record), holder))

    def read(
        self,
        key: str,
        holder: str | None = None,
        version: int | None = None,
        as_of: datetime | None = None,
        stale_ok: timedelta | None = None,
    ) -> ResultRecord[Any]:
        """Read the current result of a key, or what it was.

        Parameters:
            key: where it is.
            holder: who reads; None: this thread.
            version: a version, current or not, as long as its payload is kept; None: the current one.
            as_of: a moment (aware) whose live result to read; None: now.
            stale_ok: by how much the answer may be behind, so that a standby (`PGRESULTS_READ_URL`) may give it; the
                lock of the key is not waited for then. None: not at all, or with version or as_of as the settings say.

        Returns: the record, with version, time, size and digest in its metadata.
        Raises: MissingResult with the reason; IntegrityError; SerializationError; StorageUnavailable.
        """
        return perform(self._read(key, holder, version, as_of, stale_ok))

    async def aread(
        self,
        key: str,
        holder: str | None = None,
        version: int | None = None,
        as_of: datetime | None = None,
        stale_ok: timedelta | None = None,
    ) -> ResultRecord[Any]:
        """Read the current result of a key, or what it was; see `read`."""
        return await aperform(self._read(key, holder, version, as_of, stale_ok))

    def exists(self, key: str, as_of: datetime | None = None, stale_ok: timedelta | None = None) -> bool:
        """Whether a key has a live result: neither expired nor deleted. Reads no payload.

        Parameters:
            key: where it is.
            as_of: a moment (aware) to ask about; None: now.
            stale_ok: by how much the answer may be behind; see `read`.

        Raises: InvalidKey; InvalidArgument; StorageUnavailable (an outage is not an answer).
        """
        return perform(self._exists(key, as_of, stale_ok))

    async def aexists(self, key: str, as_of: datetime | None = None, stale_ok: timedelta | None = None) -> bool:
        """Whether a key has a live result; see `exists`."""
        return await aperform(self._exists(key, as_of, stale_ok))

    # For flows and tasks

    def update_for_flow(self, flow: Any) -> Self:
        """A copy with the flow's own settings, that keeps no metadata apart.

        Parameters:
            flow: anything with ``result_storage``, ``result_serializer`` and ``cache_result_in_memory``.

        Raises: TypeError or ConfigurationError for a storage that cannot be found.
        """
        return perform(self._update_for_flow(flow))

    async def aupdate_for_flow(self, flow: Any) -> Self:
        """A copy with the flow's own settings; see `update_for_flow`."""
        return await aperform(self._update_for_flow(flow))

    def update_for_task(self, task: Any) -> Self:
        """A copy with the task's own settings.

        Parameters:
            task: anything with what a flow has, ``result_storage_key`` (a template) and ``cache_policy``.

        Raises: TypeError or ConfigurationError for a storage that cannot be found.
        """
        return perform(self._update_for_task(task))

    async def aupdate_for_task(self, task: Any) -> Self:
        """A copy with the task's own settings; see `update_for_task`."""
        return await aperform(self._update_for_task(task))

    def store_parameters(self, identifier: UUID, parameters: dict[str, Any]) -> None:
        """Keep the parameters of a run to come.

        Raises: what `write` raises.
        """
        self.write(parameters, f"parameters/{identifier}")

    async def astore_parameters(self, identifier: UUID, parameters: dict[str, Any]) -> None:
        """Keep the parameters of a run to come; see `store_parameters`."""
        await self.awrite(parameters, f"parameters/{identifier}")

    def read_parameters(self, identifier: UUID) -> dict[str, Any]:
        """Give the parameters that `store_parameters` kept.

        Raises: what `read` raises.
        """
        return self.read(f"parameters/{identifier}").result  # type: ignore[no-any-return]

    async def aread_parameters(self, identifier: UUID) -> dict[str, Any]:
        """Give the parameters that were kept; see `read_parameters`."""
        return (await self.aread(f"parameters/{identifier}")).result  # type: ignore[no-any-return]

    @property
    def result_storage_block_id(self) -> UUID | None:
        """The id of the registered storage where results go; None when it is not registered."""
        return block_id_of(self.result_storage)

    def supports_isolation_level(self, level: Any) -> bool:
        """Whether transactions of this isolation level are possible: SERIALIZABLE with a lock manager only.

        Raises: InvalidArgument (a ``ValueError``) for what is no level.
        """
        name = getattr(level, "name", level)
        if name not in _ISOLATION_LEVELS:
            raise InvalidArgument(f"there is no isolation level {level!r}", argument="level", value=level)
        return name == "READ_COMMITTED" or self.lock_manager is not None

    def create_result(self, obj: Any, key: str | None = None, expiration: datetime | None = None) -> PersistedResult:
        """Make a reference to an object, which its `write` stores; deprecated: use `create_result_record`."""
        return perform(self._create_result(obj, key, expiration))

    async def acreate_result(
        self, obj: Any, key: str | None = None, expiration: datetime | None = None
    ) -> PersistedResult:
        """Make a reference to an object; deprecated, see `create_result`."""
        return await aperform(self._create_result(obj, key, expiration))

    # Programs

    def _keyspace(self) -> Program[Keyspace]:
        """Where results lie, looked up without blocking an event loop; what is found stays in the fields."""
        storage, apart = self.result_storage, self.metadata_storage
        if not isinstance(storage, PostgresStorage):
            found = (yield from resolving_default()) if storage is None else (yield from resolving(storage))
            self.result_storage = storage = require_postgres(found)
        if apart is not None and not isinstance(apart, PostgresStorage | NullStorage):
            self.metadata_storage = apart = yield from resolving(apart)
        keys = apart if isinstance(apart, PostgresStorage) else None
        return Keyspace(storage, keys, self.serializer, self.lock_manager)

    def _locks(self) -> LockManager:
        if self.lock_manager is None:
            raise ConfigurationError(
                "this store has no lock manager: give it one, e.g. "
                "ResultStore(result_storage=storage, lock_manager=storage.lock_manager())",
                setting="lock_manager",
            )
        return self.lock_manager

    def _new_key(self) -> str:
        return self.storage_key_fn()

    def _draft(
        self,
        obj: Any,
        key: str | None,
        expiration: datetime | None = None,
        expires_in: timedelta | None = None,
        derived_from: Iterable[GivenParent] | None = None,
    ) -> Draft:
        ancestry = ancestry_of(derived_from)
        return draft_of(obj, self._new_key() if key is None else key, self.serializer, expiration, expires_in, ancestry)

    def _drafted(self, value: Any, key: str) -> Draft:
        """The draft that a value is, or of a record under the key that it names, or of anything else under a key."""
        if isinstance(value, ResultRecord):
            draft = Draft.of(value)
            return draft._replace(storage_key=draft.storage_key or key)
        return value if isinstance(value, Draft) else self._draft(value, key)

    def _taken(self, draft: Draft) -> Draft:
        """A draft with its payload, or with why there is none, and with its run: what comes later changes nothing."""
        return draft.taken(self._bounds())._replace(run=RUN.get())

    def _taking(self, draft: Draft) -> Program[Draft]:
        """The same; an event loop has a thread do it unless the object is small."""
        return compute(lambda: self._taken(draft), small=draft.is_small(self._bounds().offload_bytes))

    def _bounds(self) -> Settings:
        storage = self.result_storage
        return storage.settings if isinstance(storage, PostgresStorage) else current_settings()

    def _encode(self, draft: Draft, holder: str) -> Program[list[Staged]]:
        return (yield from writing.encode((yield from self._keyspace()), draft, self._new_key, holder))

    def _write(
        self,
        draft: Draft,
        holder: str | None = None,
        tags: Iterable[str] | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> Program[ResultRecordMetadata]:
        keyspace = yield from self._keyspace()
        return (yield from writing.write(keyspace, draft, self._new_key, holder, tags, provenance))

    def _read(
        self,
        key: str,
        holder: str | None = None,
        version: int | None = None,
        as_of: datetime | None = None,
        stale_ok: timedelta | None = None,
    ) -> Program[ResultRecord[Any]]:
        cache = self.cache if self.cache_result_in_memory else None
        return (yield from reading.read((yield from self._keyspace()), key, holder, version, as_of, cache, stale_ok))

    def _exists(self, key: str, as_of: datetime | None = None, stale_ok: timedelta | None = None) -> Program[bool]:
        return (yield from reading.exists((yield from self._keyspace()), key, as_of, stale_ok))

    def _update_for_flow(self, flow: Any) -> Program[Self]:
        return self.model_copy(update=(yield from run_options.flow_options(flow)))

    def _update_for_task(self, task: Any) -> Program[Self]:
        return self.model_copy(update=(yield from run_options.task_options(task, self.metadata_storage)))

    def _create_result(self, obj: Any, key: str | None, expiration: datetime | None) -> Program[PersistedResult]:
        warn_deprecated("create_result is deprecated: use create_result_record")
        return PersistedResult.create(
            obj,
            (yield from self._keyspace()).payloads,
            self.storage_key_fn if key is None else lambda: key,
            self.serializer,
            cache_object=self.cache_result_in_memory,
            expiration=expiration,
        )
