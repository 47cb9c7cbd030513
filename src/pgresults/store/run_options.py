"""What flows and tasks say about a store: its fields, and the templates of its keys."""

from collections.abc import Mapping
from contextvars import ContextVar
from functools import partial
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from pgresults.database.programs import Program
from pgresults.errors import ConfigurationError, InvalidArgument
from pgresults.locking.managers import require_manager
from pgresults.locking.protocol import LockManager
from pgresults.serializers import Serializer
from pgresults.serializers.base import is_foreign
from pgresults.storage.postgres import NullStorage
from pgresults.storage.registry import require_postgres, resolving

TEMPLATE_NAMES: ContextVar[Mapping[str, Any]] = ContextVar("pgresults.names", default=MappingProxyType({}))
"""What the template of a storage key may name: the parameters and runs around."""

ENCLOSING_LOCKS: ContextVar[LockManager | None] = ContextVar("pgresults.locks", default=None)
"""The lock manager of the enclosing transaction."""


def flow_options(flow: Any) -> Program[dict[str, Any]]:
    """The fields of a store that a flow sets; it keeps no metadata apart."""
    return {**(yield from _result_options(flow)), "metadata_storage": NullStorage()}


def task_options(task: Any, metadata_storage: Any) -> Program[dict[str, Any]]:
    """The fields of a store that a task sets.

    Parameters:
        task: anything with what a flow has, ``result_storage_key`` (a template) and ``cache_policy``.
        metadata_storage: the store's own.
    """
    update = yield from _result_options(task)
    policy = getattr(task, "cache_policy", None)
    key_storage = getattr(policy, "key_storage", None)
    if key_storage is not None:
        update["metadata_storage"] = yield from resolving(key_storage)
    elif isinstance(metadata_storage, NullStorage):
        update["metadata_storage"] = None
    template = getattr(task, "result_storage_key", None)
    if template is not None:
        update["storage_key_fn"] = partial(key_from_template, template)
    manager = getattr(policy, "lock_manager", None) or ENCLOSING_LOCKS.get()
    if manager is not None:
        update["lock_manager"] = require_manager(manager)
    return update


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
            "{parameters[x]}, {task_run.task_name} and, in a flow, {flow_run.flow_name}. What names a run, as "
            "{task_run.id}, {task_run.name}, {flow_run.id} and {flow_run.name} do, is never met again",
            setting="result_storage_key",
        ) from error


def resolve_serializer(serializer: Any) -> Serializer:
    """The serializer that an object is or that has this type.

    Raises: TypeError for what is neither; InvalidArgument (a ``ValueError``) for an unknown type.
    """
    if isinstance(serializer, Serializer):
        return serializer
    if isinstance(serializer, str) or is_foreign(serializer):
        try:
            return Serializer.model_validate(serializer)
        except ValidationError as error:
            message = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise InvalidArgument(message, argument="serializer", value=serializer) from error
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
