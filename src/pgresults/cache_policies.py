"""Which calls of a task are the same call: what makes the key of its result."""

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Literal, NamedTuple, Self, TypeAlias

from pgresults.arguments import require_plain
from pgresults.context import FlowRunContext, TaskRunContext
from pgresults.errors import InvalidArgument, InvalidKey, SerializationError
from pgresults.locking import LockManager
from pgresults.locking.deadline import require_seconds
from pgresults.locking.managers import require_manager
from pgresults.objects.digests import stable_digest
from pgresults.objects.tokens import PLAIN, digest_of
from pgresults.storage.registry import StorageSpec, require_spec
from pgresults.transactions import IsolationLevel

CacheKeyFn: TypeAlias = Callable[[TaskRunContext, dict[str, Any]], str | None]
"""Makes a key from the run's context and the task's parameters; None: this call is not cached."""

Level: TypeAlias = IsolationLevel | Literal["READ_COMMITTED", "SERIALIZABLE"] | None

_Parts: TypeAlias = dict[str, str | None]
"""What goes into a key, by name; None where something has no part in it this time."""


class _Call(NamedTuple):
    """What a policy makes a key of."""

    context: TaskRunContext
    inputs: dict[str, Any]
    flow_parameters: dict[str, Any]


def call_of(context: TaskRunContext) -> _Call:
    """What policies are asked about a call; each is given what it may change."""
    flow = FlowRunContext.get()
    return _Call(context, dict(context.parameters), {} if flow is None else dict(flow.parameters))


def refusal_of(policy: object) -> str:
    """Why something is no cache policy, with what to give in its place."""
    kind = type(policy)
    return (
        f"cache_policy is a CachePolicy such as INPUTS (from pgresults.cache_policies import INPUTS), not "
        f"{kind.__module__}.{kind.__qualname__}"
    )


_SETTINGS = ("key_storage", "isolation_level", "lock_manager", "lock_timeout")
"""What a policy says of keys, results and locks; it has no part in a key."""

_VERSION = b"pgresults key 2,"
"""How keys are made: what is raised when equal calls get other keys than before."""


@dataclass(kw_only=True)
class CachePolicy:
    """What makes a key; policies are combined with ``+``. Subclasses have a `compute_key` of their own.

    Parameters:
        key_storage: where keys are kept, apart from payloads; None: together with them.
        isolation_level: SERIALIZABLE has one of several simultaneous calls compute and the others wait for it.
        lock_manager: gives the locks for that.
        lock_timeout: seconds to wait for the lock, then LockedError is raised; None: as the settings say.
    """

    key_storage: StorageSpec | None = None
    isolation_level: Level = None
    lock_manager: LockManager | None = None
    lock_timeout: float | None = None

    def __post_init__(self) -> None:
        self._check()

    def compute_key(
        self,
        task_ctx: TaskRunContext,
        inputs: dict[str, Any],
        flow_parameters: dict[str, Any],
        **kwargs: Any,
    ) -> str | None:
        """The key of a call, or None when it is not to be cached.

        In a sum, it is a part of the key, beside the task's identity; None: it has no part this time.

        Parameters:
            task_ctx: the call's context.
            inputs: the task's parameters by name.
            flow_parameters: the parameters of the flow around by name; empty outside of flows.
            kwargs: for what may be added later.

        Raises: SerializationError for an input of which no key can be made.
        """
        raise NotImplementedError(f"the cache policy {type(self).__name__} has no method compute_key")

    def configure(
        self,
        key_storage: StorageSpec | None = None,
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
        changed = copy.copy(self)
        for name, value in given.items():
            if value is not None:
                object.__setattr__(changed, name, value)
        changed._check()
        return changed

    @staticmethod
    def from_cache_key_fn(cache_key_fn: CacheKeyFn) -> "CachePolicy":
        """The policy of a function."""
        return CacheKeyFnPolicy(cache_key_fn=cache_key_fn)

    def __add__(self, other: "CachePolicy") -> "CachePolicy":
        if not isinstance(other, CachePolicy):
            if hasattr(other, "compute_key"):
                raise TypeError(refusal_of(other))
            return NotImplemented
        if isinstance(other, NoCache):
            return self
        settings = {}
        for name in _SETTINGS:
            ours, theirs = getattr(self, name), getattr(other, name)
            if ours is not None and theirs is not None and ours != theirs:
                raise InvalidArgument(f"cache policies with different {name} cannot be added", argument=name)
            settings[name] = ours if ours is not None else theirs
        exclude = self._excluded() | other._excluded()
        return CompoundCachePolicy(policies=(*_members(self), *_members(other)), exclude=exclude, **settings)

    def __sub__(self, other: str) -> "CachePolicy":
        if not isinstance(other, str):
            raise TypeError(f"the name of an input is subtracted from a cache policy, not {type(other).__name__}")
        settings = {name: getattr(self, name) for name in _SETTINGS}
        exclude = self._excluded() | {other}
        return CompoundCachePolicy(policies=_members(self), exclude=exclude, **settings)

    def _check(self) -> None:
        # Here, where the policy is made, what is wrong with it is found; its calls may be elsewhere.
        require_plain(self.compute_key, f"compute_key of {type(self).__name__}")
        if self.key_storage is not None:
            require_spec(self.key_storage, "key_storage")
        if self.lock_manager is not None:
            require_manager(self.lock_manager)
        require_seconds(self.lock_timeout, "lock_timeout")
        object.__setattr__(self, "isolation_level", IsolationLevel.of(self.isolation_level, "isolation_level"))

    @property
    def _label(self) -> str:
        """What its part in a key is called."""
        return f"policy {type(self).__name__}"

    def _excluded(self) -> frozenset[str]:
        """The names of the inputs that were subtracted."""
        return frozenset()

    def _parts(self, call: _Call) -> _Parts:
        """What it has in the key of a sum."""
        key: object = self.compute_key(call.context, dict(call.inputs), dict(call.flow_parameters))
        if not isinstance(key, str | None):
            reason = f"it is a {type(key).__name__}, not a str"
            raise InvalidKey(f"the {self._label} gave no key: {reason}", key=key, reason=reason)
        return {self._label: key}

    def _key_parts(self, call: _Call) -> _Parts:
        """What makes the key of a call, by name."""
        return self._parts(call)


class _Combined(CachePolicy):
    """A policy whose parts make a key together with the task: no task takes the results of another one."""

    def compute_key(
        self,
        task_ctx: TaskRunContext,
        inputs: dict[str, Any],
        flow_parameters: dict[str, Any],
        **kwargs: Any,
    ) -> str | None:
        """The key of a call, or None when it is not to be cached; see `CachePolicy.compute_key`."""
        call = _Call(task_ctx, inputs, flow_parameters)
        parts = _with_task(call, self._computed(call))
        given = sorted([(name, part) for name, part in parts.items() if part is not None])
        return sha256(_VERSION + _unmistakable(given)).hexdigest() if given else None

    def _computed(self, call: _Call) -> _Parts:
        """What goes into the key."""
        raise NotImplementedError

    def _parts(self, call: _Call) -> _Parts:
        return super()._parts(call) if self._is_changed else self._computed(call)

    def _key_parts(self, call: _Call) -> _Parts:
        return super()._parts(call) if self._is_changed else _with_task(call, self._computed(call))

    @property
    def _is_changed(self) -> bool:
        """Whether it is somebody's own, made from one of ours."""
        return type(self).compute_key is not _Combined.compute_key


@dataclass(kw_only=True)
class CacheKeyFnPolicy(CachePolicy):
    """The key that a function makes, as it is."""

    cache_key_fn: CacheKeyFn

    def _check(self) -> None:
        super()._check()
        require_plain(self.cache_key_fn, "cache_key_fn")

    def compute_key(
        self,
        task_ctx: TaskRunContext,
        inputs: dict[str, Any],
        flow_parameters: dict[str, Any],
        **kwargs: Any,
    ) -> str | None:
        """The function's key."""
        return self.cache_key_fn(task_ctx, inputs)

    @property
    def _label(self) -> str:
        return "cache_key_fn"


@dataclass(kw_only=True)
class CompoundCachePolicy(_Combined):
    """Several policies, each with its part in the key.

    Parameters:
        policies: those added.
        exclude: the names of inputs that were subtracted, from whichever of them.
    """

    policies: tuple[CachePolicy, ...]
    exclude: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        super().__post_init__()
        members = [member for policy in self.policies for member in _members(policy)]
        self.exclude = frozenset(self.exclude).union(*(member._excluded() for member in members))
        inputs = Inputs(exclude=self.exclude)
        different: list[CachePolicy] = []
        for member in (inputs if type(member) is Inputs else member for member in members):
            if not any(_are_alike(member, other) for other in different):
                different.append(member)
        self.policies = tuple(different)

    def _excluded(self) -> frozenset[str]:
        return self.exclude

    def _computed(self, call: _Call) -> _Parts:
        """The parts of all of them; several of one name in the order in which their policies were added."""
        parts: _Parts = {}
        counts: Counter[str] = Counter()
        for policy in self.policies:
            for name, part in policy._parts(call).items():
                counts[name] += 1
                parts[name if counts[name] == 1 else f"{name} ({counts[name]})"] = part
        return parts


@dataclass(kw_only=True)
class Inputs(_Combined):
    """The task's inputs but those of some names."""

    exclude: frozenset[str] = field(default=frozenset())

    def __post_init__(self) -> None:
        super().__post_init__()
        self.exclude = frozenset(self.exclude)

    def _excluded(self) -> frozenset[str]:
        return self.exclude

    def _computed(self, call: _Call) -> _Parts:
        """One part for each input."""
        task, exclude = call.context.task, self.exclude
        return {
            f"input {name}": _digest_of_input(task, name, value)
            for name, value in call.inputs.items()
            if name not in exclude
        } or {"inputs": "none"}

    def __sub__(self, other: str) -> "CachePolicy":
        if not isinstance(other, str):
            return super().__sub__(other)
        changed = copy.copy(self)
        changed.exclude = self.exclude | {other}
        return changed


@dataclass(kw_only=True)
class TaskSource(_Combined):
    """The source code of the task's function, without the functions that it calls."""

    def _computed(self, call: _Call) -> _Parts:
        """The digest of the source."""
        return {"task source": call.context.task.code_hash}


@dataclass(kw_only=True)
class FlowParameters(_Combined):
    """The parameters of the flow; none outside of flows."""

    def _computed(self, call: _Call) -> _Parts:
        """The digest of the parameters."""
        parameters = call.flow_parameters
        if not parameters and FlowRunContext.get() is None:
            return {"flow parameters": None}
        return {"flow parameters": stable_digest(parameters, "the flow's parameters", _ADVICE)}


@dataclass(kw_only=True)
class RunId(_Combined):
    """The run of the flow, or of the task outside of flows."""

    def _computed(self, call: _Call) -> _Parts:
        """The id of the run."""
        return {"run": str(call.context.task_run.flow_run_id or call.context.task_run.id)}


@dataclass(kw_only=True)
class NoCache(_Combined):
    """No key: every call runs, and its result is not stored."""

    def _computed(self, call: _Call) -> _Parts:
        """Nothing."""
        return {}

    def __add__(self, other: CachePolicy) -> CachePolicy:
        return other

    def __sub__(self, other: str) -> "CachePolicy":
        super().__sub__(other)
        return self


def _unmistakable(pairs: list[tuple[str, str]]) -> bytes:
    """The bytes of pairs that no other pairs have."""
    texts = "".join([f"{len(name)}:{name}{len(part)}:{part}" for name, part in pairs])
    return texts.encode("utf-8", "surrogatepass")


def _with_task(call: _Call, parts: _Parts) -> _Parts:
    if all(part is None for part in parts.values()):
        return parts
    return {"task": call.context.task.identity, **parts}


def _are_alike(one: CachePolicy, other: CachePolicy) -> bool:
    """Whether two policies make the same part of a key; ``==`` of somebody's own may not look at all that they hold."""

    def made_of(policy: CachePolicy) -> dict[str, Any]:
        return {name: value for name, value in vars(policy).items() if name not in _SETTINGS}

    return type(one) is type(other) and made_of(one) == made_of(other)


def _members(policy: CachePolicy) -> tuple[CachePolicy, ...]:
    return policy.policies if isinstance(policy, CompoundCachePolicy) else (policy,)


_ADVICE = "Give a cache_key_fn, or use NO_CACHE"


def _digest_of_input(task: Any, name: str, value: Any) -> str:
    if (plain := PLAIN.get(type(value))) is not None:  # most are, and shall not wait for texts about what may go wrong
        return digest_of(plain(value))
    advice = f'Leave it out with a policy like INPUTS - "{name}", give a cache_key_fn, or use NO_CACHE'
    if name in ("self", "cls"):
        advice = f"A method's instance counts by its class and state: have it keep plain values. {advice}"
    try:
        return stable_digest(value, f"the input {name!r} of {task.name!r}", advice)
    except SerializationError:
        if value is task._signature.parameters[name].default:  # like a sentinel or a lock: the same for each call
            return "default"
        raise


INPUTS = Inputs()
TASK_SOURCE = TaskSource()
FLOW_PARAMETERS = FlowParameters()
RUN_ID = RunId()
NO_CACHE = NoCache()
NONE = NO_CACHE
"""Another name of `NO_CACHE`."""
DEFAULT = INPUTS + TASK_SOURCE + RUN_ID
