"""`task`: functions whose results are stored under keys made of their calls, and computed once."""

from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from contextlib import suppress
from datetime import timedelta
from types import MethodType
from typing import Any, Final, ParamSpec, TypedDict, TypeVar, Unpack, cast, overload

from pgresults.arguments import require_span
from pgresults.audit.changes import invalidate_task
from pgresults.cache_policies import (
    DEFAULT,
    INPUTS,
    NO_CACHE,
    TASK_SOURCE,
    CacheKeyFn,
    CachePolicy,
    FlowParameters,
    Inputs,
    NoCache,
    RunId,
    TaskSource,
    call_of,
    refusal_of,
)
from pgresults.context import TaskRunContext
from pgresults.database.programs import Program, aperform, perform
from pgresults.errors import InvalidArgument
from pgresults.runtime.calls import Called
from pgresults.runtime.explaining import Explanation, explaining
from pgresults.runtime.iterables import Arguments, unmapped
from pgresults.runtime.many_calls import MapOptions, mapping
from pgresults.runtime.mapping import MapProgress
from pgresults.runtime.options import require_options
from pgresults.runtime.tallies import CacheInfo
from pgresults.serializers import Serializer
from pgresults.storage.registry import StorageSpec
from pgresults.transactions.hooks import Hook

__all__ = [
    "CacheInfo",
    "Explanation",
    "MapProgress",
    "NotSet",
    "Task",
    "TaskOptions",
    "aexplain",
    "explain",
    "task",
    "task_input_hash",
    "unmapped",
]

P = ParamSpec("P")
R = TypeVar("R", covariant=True)
T = TypeVar("T")

NotSet: Final[Any] = object()
"""What stands for an option that was not given, where None is a value."""


class TaskOptions(TypedDict, total=False):
    """The options of a task; see `task`."""

    name: str | None
    persist_result: bool | None
    result_storage: StorageSpec | None
    result_storage_key: str | None
    result_serializer: Serializer | str | None
    cache_result_in_memory: bool
    cache_policy: CachePolicy | None
    cache_key_fn: CacheKeyFn | None
    cache_expiration: timedelta | float | None
    refresh_cache: bool | None


class Task(Called[P, R]):
    """A function whose calls are transactions; made by `task`."""

    def __init__(self, fn: Callable[P, R], options: dict[str, Any]) -> None:
        super().__init__(fn, options)
        require_options("task", options, TaskOptions.__annotations__)
        self.result_storage = options.get("result_storage")
        self.result_storage_key: str | None = options.get("result_storage_key")
        self.result_serializer = options.get("result_serializer")
        self.cache_result_in_memory: bool = options.get("cache_result_in_memory", True)
        self.cache_key_fn: CacheKeyFn | None = options.get("cache_key_fn")
        self.cache_expiration = _as_span(options.get("cache_expiration"))
        self.refresh_cache: bool = bool(options.get("refresh_cache"))
        self.cache_policy = self._policy()
        self._require_inputs()
        self.persist_result: bool | None = self._persistence()
        self._own_policy = all(type(part) in _OWN_POLICIES for part in _parts_of(self.cache_policy))
        self.on_commit_hooks: list[Hook] = []
        self.on_rollback_hooks: list[Hook] = []

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        program = self._run(Arguments(args, kwargs))
        return cast("R", aperform(program) if self.isasync else perform(program))

    @property
    def task_key(self) -> str:
        """What tells the task's function from all others: its `identity`, by the name that it has in Prefect.

        Raises: SerializationError where it has none.
        """
        return self.identity

    def with_options(self, **options: Unpack[TaskOptions]) -> "Task[P, R]":
        """A copy of the task with other options; see `task`."""
        return self._changed({name: value for name, value in options.items() if value is not NotSet})

    def on_commit(self, hook: Hook) -> Hook:
        """Have a function called with the transaction before a result of the task is stored."""
        self.on_commit_hooks.append(hook)
        return hook

    def on_rollback(self, hook: Hook) -> Hook:
        """Have a function called with the transaction when a call of the task fails or is taken back."""
        self.on_rollback_hooks.append(hook)
        return hook

    def map(
        self,
        *iterables: Any,
        executor: Executor | None = None,
        processes: int | None = None,
        progress: Callable[[MapProgress], None] | None = None,
        store_within: timedelta | float | None = None,
        **keywords: Any,
    ) -> list[R]:
        """Call a sync task for every item, in threads or processes, within the runs around the caller.

        What is live is read in few round trips before anything runs. Calls of the same key are one call. When one
        fails, or at Ctrl-C, calls under way are finished and stored, and others do not begin.

        Parameters:
            iterables: one for each parameter, of the same length; `unmapped` values go to every call.
            executor: of threads or processes; it stays open.
            processes: how many processes to start for this; None, and no executor: threads, as many as Python's
                default. What runs in another process has no part in a transaction around the caller.
            progress: told before the first call and after every one, in the caller's thread.
            store_within: how long results may wait to be stored together, a timedelta or seconds. Those that wait are
                lost when the process is killed; when this returns, all are stored. None: each is stored at once.
            keywords: the same as iterables for parameters by name.

        Returns: the results in the items' order.
        Raises: InvalidArgument for iterables of unequal length, and for what is none; what a call raises;
            PgResultsError when a process was killed.
        """
        if self.isasync:
            raise TypeError(f"{self.name} is async: await {self.name}.amap(...) instead")
        return perform(
            mapping(self, Arguments(iterables, keywords), MapOptions(executor, processes, progress, store_within))
        )

    @overload
    async def amap(
        self: "Task[..., Coroutine[Any, Any, T]]",
        *iterables: Any,
        executor: Executor | None = None,
        processes: int | None = None,
        progress: Callable[[MapProgress], None] | None = None,
        store_within: timedelta | float | None = None,
        **keywords: Any,
    ) -> list[T]: ...
    @overload
    async def amap(
        self,
        *iterables: Any,
        executor: Executor | None = None,
        processes: int | None = None,
        progress: Callable[[MapProgress], None] | None = None,
        store_within: timedelta | float | None = None,
        **keywords: Any,
    ) -> list[R]: ...
    async def amap(
        self,
        *iterables: Any,
        executor: Executor | None = None,
        processes: int | None = None,
        progress: Callable[[MapProgress], None] | None = None,
        store_within: timedelta | float | None = None,
        **keywords: Any,
    ) -> Any:
        """Call a task for every item without blocking the event loop; see `map`.

        Calls of an async task are awaited together, at most 32 at a time; a sync one is called in threads or processes.
        """
        return await aperform(
            mapping(self, Arguments(iterables, keywords), MapOptions(executor, processes, progress, store_within))
        )

    def cache_info(self) -> CacheInfo:
        """How many calls in this process got a stored result, and how many ran the function."""
        return self._tally.info()

    def is_cached(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Whether a call would get a stored result; nothing is run.

        Raises: what the call raises before it runs.
        """
        return perform(explaining(self, Arguments(args, kwargs))).hit

    async def ais_cached(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Whether a call would get a stored result; see `is_cached`."""
        return (await aperform(explaining(self, Arguments(args, kwargs)))).hit

    def invalidate(self) -> int:
        """Delete the task's live results in its store; their history stays.

        They are those of its function, under whichever name, of all instances where it is a method; tasks that merely
        have its name keep theirs.

        Returns: how many there were.
        Raises: LockedError where another holder has the lock of one of them: then none is deleted; StorageUnavailable.
        """
        return perform(self._invalidate())

    async def ainvalidate(self) -> int:
        """Delete the task's live results in its store; see `invalidate`."""
        return await aperform(self._invalidate())

    def _invalidate(self) -> Program[int]:
        store = yield from self._prepared.store(self, to_write=False)
        return (yield from invalidate_task((yield from store._keyspace()), self.identity))

    def _knows_its_key(self) -> bool:
        return self._own_policy

    def _policy_key(self, context: TaskRunContext) -> str | None:
        policy: CachePolicy = self.cache_policy
        return policy.compute_key(*call_of(context))

    def _policy_parts(self, context: TaskRunContext) -> dict[str, str | None]:
        return {} if self.cache_policy is None else self.cache_policy._key_parts(call_of(context))

    def _names_the_run(self) -> bool:
        return any(isinstance(part, RunId) for part in _parts_of(self.cache_policy))

    def _policy(self) -> CachePolicy | None:
        policy: Any = self.options.get("cache_policy", NotSet)
        if self.cache_key_fn is not None:
            if policy not in (NotSet, None):
                raise InvalidArgument("give cache_policy or cache_key_fn, not both", argument="cache_key_fn")
            return CachePolicy.from_cache_key_fn(self.cache_key_fn)
        if self.options.get("persist_result") is False:
            return NO_CACHE
        if self.result_storage_key is not None and getattr(policy, "key_storage", None) is None:
            return NO_CACHE if isinstance(policy, NoCache) else None  # the template alone is the key
        if policy is not NotSet and policy is not None and not isinstance(policy, CachePolicy):
            raise TypeError(refusal_of(policy))
        return DEFAULT if policy is NotSet else cast("CachePolicy | None", policy)

    def _require_inputs(self) -> None:
        """See that the function has the inputs that its policy leaves out."""
        known = self._signature.parameters
        excluded = frozenset() if self.cache_policy is None else self.cache_policy._excluded()
        if unknown := sorted(excluded - known.keys()):
            raise InvalidArgument(
                f"the cache policy of {self.name} leaves out {unknown[0]!r}, which is none of its inputs: "
                f"{', '.join(known) or 'it has none'}",
                argument="cache_policy",
                value=unknown[0],
            )

    def _persistence(self) -> bool | None:
        chosen: bool | None = self.options.get("persist_result")
        if chosen is not None:
            return chosen
        policy = self.options.get("cache_policy")
        options = (self.cache_key_fn, self.result_storage_key, self.result_storage, self.result_serializer)
        said = any(option is not None for option in options) or (policy is not None and not isinstance(policy, NoCache))
        return True if said else None

    def _extras(self) -> dict[str, Any]:
        hooks = {"on_commit_hooks": [*self.on_commit_hooks], "on_rollback_hooks": [*self.on_rollback_hooks]}
        return super()._extras() | hooks


_OWN_POLICIES = (Inputs, TaskSource, FlowParameters, RunId, NoCache)


def _parts_of(policy: Any) -> tuple[Any, ...]:
    """The policies that one is made of."""
    return getattr(policy, "policies", (policy,))


def _as_span(expiration: Any) -> timedelta | None:
    """A time from now that is given as such or in seconds."""
    if expiration is None:
        return None
    if isinstance(expiration, int | float) and not isinstance(expiration, bool):
        with suppress(OverflowError, ValueError):
            expiration = timedelta(seconds=expiration)
    return require_span(expiration, "cache_expiration")


@overload
def task(fn: Callable[P, Coroutine[Any, Any, T]], /) -> Task[P, Coroutine[Any, Any, T]]: ...
@overload
def task(fn: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(**options: Unpack[TaskOptions]) -> Callable[[Callable[P, R]], Task[P, R]]: ...
def task(fn: Any = None, /, **options: Any) -> Any:
    """Make a task of a function, sync or async; used as ``@task`` or ``@task(...)``.

    Parameters:
        fn: the function.
        options: see the next lines.
        name: how results and errors call it; by default the function's name.
        persist_result: whether results are stored; None: if any option about results says so, else as the flow does.
        result_storage: where; anything that `resolve_result_storage` takes.
        result_storage_key: a template of the key, e.g. ``"reports/{parameters[day]}"``.
        result_serializer: turns results into payloads; a serializer or its type.
        cache_result_in_memory: keep results that were read.
        cache_policy: what makes the key of a call; by default its inputs, the source and the run.
        cache_key_fn: makes the key from the context and the parameters, in place of a policy.
        cache_expiration: how long a result is live, a timedelta or seconds, by the server's clock; None: for ever.
        refresh_cache: compute although there is a live result.
    """
    return Task(fn, options) if fn is not None else lambda function: Task(function, options)


def task_input_hash(context: TaskRunContext, parameters: dict[str, Any]) -> str | None:
    """The key of the policy ``INPUTS + TASK_SOURCE``, as a ``cache_key_fn``.

    Raises: SerializationError for an input of which no key can be made.
    """
    return _INPUT_HASH.compute_key(context, parameters, {})


_INPUT_HASH = INPUTS + TASK_SOURCE


def explain(task: Task[P, Any], *args: P.args, **kwargs: P.kwargs) -> Explanation:
    """Say which key a call has, what made it, and whether it would run; nothing is run.

    Raises: what the call raises before it runs; TypeError for what is no task.
    """
    return perform(explaining(_require_task(task), Arguments(args, kwargs)))


async def aexplain(task: Task[P, Any], *args: P.args, **kwargs: P.kwargs) -> Explanation:
    """Say which key a call has, what made it, and whether it would run; see `explain`."""
    return await aperform(explaining(_require_task(task), Arguments(args, kwargs)))


def _require_task(task: Any) -> Task[Any, Any]:
    if isinstance(task, MethodType) and isinstance(task.__func__, Task):  # of a class, below @classmethod
        return task.__func__._bound_to(MethodType(task.__func__.fn, task.__self__))
    if not isinstance(task, Task):
        raise TypeError(f"only the call of a task can be explained, not of a {type(task).__name__}")
    return task
