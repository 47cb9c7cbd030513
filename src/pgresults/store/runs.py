"""What a store does for flows and tasks."""

from collections.abc import Mapping
from contextvars import ContextVar
from datetime import datetime
from functools import partial
from types import MappingProxyType
from typing import Any, Self
from uuid import UUID

from pgresults.database.programs import Program, aperform, perform
from pgresults.errors import ConfigurationError, InvalidArgument
from pgresults.locking.protocol import LockManager
from pgresults.records.records import ResultRecord, ResultRecordMetadata
from pgresults.serializers import Serializer
from pgresults.storage.postgres import NullStorage
from pgresults.storage.registry import require_postgres, resolving, resolving_default
from pgresults.store.deprecation import warn_deprecated
from pgresults.store.keyed import KeyedStore
from pgresults.store.persisted import PersistedResult

TEMPLATE_NAMES: ContextVar[Mapping[str, Any]] = ContextVar("pgresults.names", default=MappingProxyType({}))
"""What the template of a storage key may name: the parameters and runs around."""

ENCLOSING_LOCKS: ContextVar[LockManager | None] = ContextVar("pgresults.locks", default=None)
"""The lock manager of the enclosing transaction."""

ISOLATION_LEVELS = ("READ_COMMITTED", "SERIALIZABLE")


class RunMethods(KeyedStore):
    """Taking over what flows and tasks say about their results."""

    def update_for_flow(self, flow: Any) -> Self:
        """A copy with the flow's own settings; its payloads are kept without metadata.

        Parameters:
            flow: anything with ``result_storage``, ``result_serializer`` and ``cache_result_in_memory``.

        Raises: TypeError or ConfigurationError for a storage that cannot be found.
        """
        return perform(self.updating_for_flow(flow))

    async def aupdate_for_flow(self, flow: Any) -> Self:
        """A copy with the flow's own settings; see `update_for_flow`."""
        return await aperform(self.updating_for_flow(flow))

    def update_for_task(self, task: Any) -> Self:
        """A copy with the task's own settings.

        Parameters:
            task: anything with what a flow has, ``result_storage_key`` (a template) and ``cache_policy``.

        Raises: TypeError or ConfigurationError for a storage that cannot be found.
        """
        return perform(self.updating_for_task(task))

    async def aupdate_for_task(self, task: Any) -> Self:
        """A copy with the task's own settings; see `update_for_task`."""
        return await aperform(self.updating_for_task(task))

    def store_parameters(self, identifier: UUID, parameters: dict[str, Any]) -> None:
        """Keep the parameters of a run to come.

        Raises: what `write` raises.
        """
        perform(self._store_parameters(identifier, parameters))

    async def astore_parameters(self, identifier: UUID, parameters: dict[str, Any]) -> None:
        """Keep the parameters of a run to come; see `store_parameters`."""
        await aperform(self._store_parameters(identifier, parameters))

    def read_parameters(self, identifier: UUID) -> dict[str, Any]:
        """Give the parameters that `store_parameters` kept.

        Raises: what `read` raises.
        """
        return perform(self._read_parameters(identifier))

    async def aread_parameters(self, identifier: UUID) -> dict[str, Any]:
        """Give the parameters that were kept; see `read_parameters`."""
        return await aperform(self._read_parameters(identifier))

    def supports_isolation_level(self, level: Any) -> bool:
        """Whether transactions of this isolation level are possible: SERIALIZABLE with a lock manager only.

        Raises: InvalidArgument (a ``ValueError``) for what is no level.
        """
        name = getattr(level, "name", level)
        if name not in ISOLATION_LEVELS:
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

    def updating_for_flow(self, flow: Any) -> Program[Self]:
        """`update_for_flow` as a program."""
        update = yield from _result_options(flow)
        return self.model_copy(update={**update, "metadata_storage": NullStorage()})

    def updating_for_task(self, task: Any) -> Program[Self]:
        """`update_for_task` as a program."""
        update = yield from _result_options(task)
        policy = getattr(task, "cache_policy", None)
        key_storage = getattr(policy, "key_storage", None)
        if key_storage is not None:
            update["metadata_storage"] = yield from resolving(key_storage)
        elif isinstance(self.metadata_storage, NullStorage):
            update["metadata_storage"] = None
        template = getattr(task, "result_storage_key", None)
        if template is not None:
            update["storage_key_fn"] = partial(key_from_template, template)
        manager = getattr(policy, "lock_manager", None) or ENCLOSING_LOCKS.get()
        if manager is not None:
            update["lock_manager"] = manager
        return self.model_copy(update=update)

    def _store_parameters(self, identifier: UUID, parameters: dict[str, Any]) -> Program[None]:
        yield from self.persisting(self.create_result_record(parameters, f"parameters/{identifier}"))

    def _read_parameters(self, identifier: UUID) -> Program[dict[str, Any]]:
        return (yield from self.reading(f"parameters/{identifier}")).result  # type: ignore[no-any-return]

    def _create_result(self, obj: Any, key: str | None, expiration: datetime | None) -> Program[PersistedResult]:
        warn_deprecated("create_result is deprecated: use create_result_record")
        storage = yield from self.ready()
        return PersistedResult.create(
            obj,
            storage,
            self.storage_key_fn if key is None else lambda: key,
            self.serializer,
            cache_object=self.cache_result_in_memory,
            expiration=expiration,
        )


def key_from_template(template: str) -> str:
    """The storage key that a template gives for the run around.

    Raises: ConfigurationError when it names what is not there.
    """
    names = TEMPLATE_NAMES.get()
    try:
        return template.format(**names)
    except (KeyError, AttributeError, IndexError, ValueError) as error:
        raise ConfigurationError(
            f"the storage key template {template!r} does not fit this run ({error!r}): it may name "
            "{parameters[x]}, {task_run.id}, {task_run.name} and, in a flow, {flow_run.id} and {flow_run.name}",
            setting="result_storage_key",
        ) from error


def resolve_serializer(serializer: Any) -> Serializer:
    """The serializer that an object is or that has this type.

    Raises: TypeError for what is neither; ValueError for an unknown type.
    """
    if isinstance(serializer, Serializer):
        return serializer
    if isinstance(serializer, str):
        return Serializer.model_validate(serializer)
    raise TypeError(f"a serializer is a Serializer or the type of one, not {type(serializer).__name__}")


def _result_options(run: Any) -> Program[dict[str, Any]]:
    update: dict[str, Any] = {}
    if (storage := getattr(run, "result_storage", None)) is not None:
        update["result_storage"] = require_postgres((yield from resolving(storage)))
    if (serializer := getattr(run, "result_serializer", None)) is not None:
        update["serializer"] = resolve_serializer(serializer)
    if (in_memory := getattr(run, "cache_result_in_memory", None)) is not None:
        update["cache_result_in_memory"] = in_memory
    return update


class _Source:
    """Reads the record that metadata belongs to."""

    def read(self, metadata: ResultRecordMetadata) -> ResultRecord[Any]:
        return perform(self._read(metadata))

    async def aread(self, metadata: ResultRecordMetadata) -> ResultRecord[Any]:
        return await aperform(self._read(metadata))

    def _read(self, metadata: ResultRecordMetadata) -> Program[ResultRecord[Any]]:
        if metadata.storage_key is None:
            raise InvalidArgument("metadata without a storage key points to nothing", argument="metadata")
        block = metadata.storage_block_id
        storage = require_postgres((yield from (resolving_default() if block is None else resolving(block))))
        store = KeyedStore(result_storage=storage, serializer=metadata.serializer, cache_result_in_memory=False)
        return (yield from store.reading(metadata.storage_key))


ResultRecord.source = _Source()
