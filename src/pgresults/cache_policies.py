"""Which calls of a task are the same call: what makes the key of its result."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias
from uuid import UUID

from pgresults.context import FlowRunContext, TaskRunContext
from pgresults.errors import InvalidArgument
from pgresults.locking import LockManager
from pgresults.locking.deadline import Deadline
from pgresults.locking.managers import require_manager
from pgresults.runtime.hashing import stable_digest
from pgresults.storage.postgres import NullStorage, PostgresStorage
from pgresults.transactions import IsolationLevel

CacheKeyFn: TypeAlias = Callable[[TaskRunContext, dict[str, Any]], str | None]
"""Makes a key from the run's context and the task's parameters; None: this call is not cached."""

Level: TypeAlias = IsolationLevel | Literal["READ_COMMITTED", "SERIALIZABLE"] | None


@dataclass(frozen=True, kw_only=True)
class CachePolicy:
    """What makes a key; policies are combined with ``+``.

    Parameters:
        key_storage: where keys are kept, apart from payloads; None: together with them.
        isolation_level: SERIALIZABLE has one of several simultaneous calls compute and the others wait for it.
        lock_manager: gives the locks for that.
        lock_timeout: seconds to wait for the lock, then LockedError is raised; None: as the settings say.
    """

    key_storage: PostgresStorage | NullStorage | UUID | str | Path | None = None
    isolation_level: Level = None
    lock_manager: LockManager | None = None
    lock_timeout: float | None = None

    def __post_init__(self) -> None:
        # Here, where the policy is made, what is wrong with it is found; its calls may be elsewhere.
        if self.lock_manager is not None:
            require_manager(self.lock_manager)
        Deadline.after(self.lock_timeout, "lock_timeout")
        object.__setattr__(self, "isolation_level", IsolationLevel.of(self.isolation_level, "isolation_level"))

    def _parts(self, context: TaskRunContext, inputs: Mapping[str, Any]) -> dict[str, str | None]:
        """What goes into the key, by name; None where something has no part in it this time."""
        raise NotImplementedError

    def compute_key(
        self, task_ctx: TaskRunContext, inputs: Mapping[str, Any], flow_parameters: Mapping[str, Any] | None = None
    ) -> str | None:
        """The key of a call, or None when it is not to be cached.

        Parameters:
            task_ctx: the call's context.
            inputs: the task's parameters by name.
            flow_parameters: unused; the context knows them.

        Raises: SerializationError for an input of which no key can be made.
        """
        parts = {name: part for name, part in self._key_parts(task_ctx, inputs).items() if part is not None}
        return stable_digest(parts, "the cache key") if parts else None

    def _key_parts(self, context: TaskRunContext, inputs: Mapping[str, Any]) -> dict[str, str | None]:
        """The parts together with the task: two tasks of the same inputs must not take each other's results."""
        parts = self._parts(context, inputs)
        if all(part is None for part in parts.values()):
            return parts
        return {"task": getattr(context.task, "full_name", None), **parts}

    def configure(
        self,
        key_storage: PostgresStorage | NullStorage | UUID | str | Path | None = None,
        lock_manager: LockManager | None = None,
        isolation_level: Level = None,
        lock_timeout: float | None = None,
    ) -> Self:
        """A copy with other settings; None keeps one."""
        given = {
            "key_storage": key_storage,
            "lock_manager": lock_manager,
            "isolation_level": isolation_level,
            "lock_timeout": lock_timeout,
        }
        return replace(self, **{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]

    @staticmethod
    def from_cache_key_fn(cache_key_fn: CacheKeyFn) -> "CachePolicy":
        """The policy of a function."""
        return CacheKeyFnPolicy(cache_key_fn=cache_key_fn)

    def __add__(self, other: "CachePolicy") -> "CachePolicy":
        if not isinstance(other, CachePolicy):
            return NotImplemented
        if isinstance(other, NoCache):
            return self
        settings = {}
        for name in ("key_storage", "isolation_level", "lock_manager", "lock_timeout"):
            ours, theirs = getattr(self, name), getattr(other, name)
            if ours is not None and theirs is not None and ours != theirs:
                raise InvalidArgument(f"cache policies with different {name} cannot be added", argument=name)
            settings[name] = ours if ours is not None else theirs
        return CompoundCachePolicy(policies=(*_members(self), *_members(other)), **settings)

    def __sub__(self, other: str) -> "CachePolicy":
        if not isinstance(other, str):
            raise TypeError(f"the name of an input is subtracted from a cache policy, not {type(other).__name__}")
        return self


@dataclass(frozen=True, kw_only=True)
class CacheKeyFnPolicy(CachePolicy):
    """The key that a function makes, as it is."""

    cache_key_fn: CacheKeyFn

    def _parts(self, context: TaskRunContext, inputs: Mapping[str, Any]) -> dict[str, str | None]:
        """The function's key."""
        return {"cache_key_fn": self.cache_key_fn(context, dict(inputs))}

    def _key_parts(self, context: TaskRunContext, inputs: Mapping[str, Any]) -> dict[str, str | None]:
        """The function's key alone."""
        return self._parts(context, inputs)

    def compute_key(
        self, task_ctx: TaskRunContext, inputs: Mapping[str, Any], flow_parameters: Mapping[str, Any] | None = None
    ) -> str | None:
        """The function's key."""
        return self._parts(task_ctx, inputs)["cache_key_fn"]


@dataclass(frozen=True, kw_only=True)
class CompoundCachePolicy(CachePolicy):
    """Several policies, each with its part in the key."""

    policies: tuple[CachePolicy, ...]

    def _parts(self, context: TaskRunContext, inputs: Mapping[str, Any]) -> dict[str, str | None]:
        """The parts of all of them."""
        return {name: part for policy in self.policies for name, part in policy._parts(context, inputs).items()}

    def __sub__(self, other: str) -> "CachePolicy":
        return replace(self, policies=tuple(policy - other for policy in self.policies))


@dataclass(frozen=True, kw_only=True)
class Inputs(CachePolicy):
    """The task's inputs but those of some names."""

    exclude: frozenset[str] = field(default=frozenset())

    def _parts(self, context: TaskRunContext, inputs: Mapping[str, Any]) -> dict[str, str | None]:
        """One part for each input."""
        name = getattr(context.task, "name", "the task")
        return {
            f"input {key}": stable_digest(value, f"the input {key!r} of {name!r}")
            for key, value in sorted(inputs.items())
            if key not in self.exclude
        } or {"inputs": "none"}

    def __sub__(self, other: str) -> "CachePolicy":
        if not isinstance(other, str):
            return super().__sub__(other)
        return replace(self, exclude=self.exclude | {other})


@dataclass(frozen=True, kw_only=True)
class TaskSource(CachePolicy):
    """The source code of the task's function, without the functions that it calls."""

    def _parts(self, context: TaskRunContext, inputs: Mapping[str, Any]) -> dict[str, str | None]:
        """The digest of the source."""
        return {"task source": context.task.code_hash}


@dataclass(frozen=True, kw_only=True)
class FlowParameters(CachePolicy):
    """The parameters of the flow; none outside of flows."""

    def _parts(self, context: TaskRunContext, inputs: Mapping[str, Any]) -> dict[str, str | None]:
        """The digest of the parameters."""
        flow = FlowRunContext.get()
        return {"flow parameters": stable_digest(dict(flow.parameters), "the flow's parameters") if flow else None}


@dataclass(frozen=True, kw_only=True)
class RunId(CachePolicy):
    """The run of the flow, or of the task outside of flows."""

    def _parts(self, context: TaskRunContext, inputs: Mapping[str, Any]) -> dict[str, str | None]:
        """The id of the run."""
        return {"run": str(context.task_run.flow_run_id or context.task_run.id)}


@dataclass(frozen=True, kw_only=True)
class NoCache(CachePolicy):
    """No key: every call runs, and its result is not stored."""

    def _parts(self, context: TaskRunContext, inputs: Mapping[str, Any]) -> dict[str, str | None]:
        """Nothing."""
        return {}

    def __add__(self, other: CachePolicy) -> CachePolicy:
        return other


def _members(policy: CachePolicy) -> tuple[CachePolicy, ...]:
    return policy.policies if isinstance(policy, CompoundCachePolicy) else (policy,)


INPUTS = Inputs()
TASK_SOURCE = TaskSource()
FLOW_PARAMETERS = FlowParameters()
RUN_ID = RunId()
NO_CACHE = NoCache()
DEFAULT = INPUTS + TASK_SOURCE + RUN_ID
