"""`task`: functions whose results are stored under keys made of their calls, and computed once."""

from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import Executor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, ParamSpec, TypedDict, TypeVar, Unpack, cast, overload
from uuid import UUID

from pgresults.arguments import require_span
from pgresults.cache_policies import DEFAULT, NO_CACHE, CacheKeyFn, CachePolicy, NoCache
from pgresults.context import (
    FlowRunContext,
    TaskRun,
    TaskRunContext,
    carried,
    get_default_persist_setting_for_tasks,
    get_result_store,
)
from pgresults.database.programs import Program, aperform, perform, wait_for
from pgresults.errors import InvalidArgument, MissingResult
from pgresults.records.keys import require_key
from pgresults.runtime.functions import Wrapped
from pgresults.runtime.mapping import Mapped, MapProgress, Outcome, call_all
from pgresults.serializers import Serializer
from pgresults.storage.misses import require_live
from pgresults.storage.postgres import PostgresStorage
from pgresults.store.run_options import key_from_template
from pgresults.transactions import IsolationLevel, Transaction, transaction
from pgresults.transactions.hooks import Hook

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

NotSet: Final[Any] = object()
"""What stands for an option that was not given, where None is a value."""

_READ_AT_ONCE = 500  # keys in a query: what bounds the payloads in memory beside the results


class TaskOptions(TypedDict, total=False):
    """The options of a task; see `task`."""

    name: str | None
    persist_result: bool | None
    result_storage: PostgresStorage | UUID | str | Path | None
    result_storage_key: str | None
    result_serializer: Serializer | str | None
    cache_result_in_memory: bool
    cache_policy: CachePolicy | None
    cache_key_fn: CacheKeyFn | None
    cache_expiration: timedelta | float | None
    refresh_cache: bool | None


class _Planned(NamedTuple):
    """A call to be made."""

    run: TaskRun
    key: str | None
    args: tuple[Any, ...]

    @property
    def place(self) -> str | UUID:
        """What calls of the same result have in common."""
        return self.run.id if self.key is None else self.key


class Task(Wrapped[P, R]):
    """A function whose calls are transactions; made by `task`."""

    def __init__(self, fn: Callable[P, R], options: dict[str, Any]) -> None:
        super().__init__(fn, options)
        if unknown := sorted(options.keys() - TaskOptions.__annotations__.keys()):
            raise TypeError(f"a task has no option {unknown[0]!r}")
        self.result_storage = options.get("result_storage")
        self.result_storage_key: str | None = options.get("result_storage_key")
        self.result_serializer = options.get("result_serializer")
        self.cache_result_in_memory: bool = options.get("cache_result_in_memory", True)
        self.cache_key_fn: CacheKeyFn | None = options.get("cache_key_fn")
        self.cache_expiration = _as_span(options.get("cache_expiration"))
        self.refresh_cache: bool = bool(options.get("refresh_cache"))
        self.cache_policy = self._policy()
        self.persist_result: bool | None = self._persistence()
        self.on_commit_hooks: list[Hook] = []
        self.on_rollback_hooks: list[Hook] = []

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        program = self._run(args, kwargs)
        return cast("R", aperform(program) if self.isasync else perform(program))

    def with_options(self, **options: Unpack[TaskOptions]) -> "Task[P, R]":
        """A copy of the task with other options; see `task`."""
        changed = type(self)(self.fn, self._changed(dict(options), NotSet))
        vars(changed).update(self._extras())
        return changed

    def on_commit(self, hook: Hook) -> Hook:
        """Have a function called with the transaction before a result of the task is stored."""
        self.on_commit_hooks.append(hook)
        return hook

    def on_rollback(self, hook: Hook) -> Hook:
        """Have a function called with the transaction when a result of the task is not to be stored after all."""
        self.on_rollback_hooks.append(hook)
        return hook

    def map(
        self,
        *iterables: Iterable[Any],
        executor: Executor | None = None,
        processes: int | None = None,
        progress: Callable[[MapProgress], None] | None = None,
    ) -> list[R]:
        """Call a sync task for every item, in threads or processes, within the runs around the caller.

        What is live is read in few round trips before anything runs. Calls of the same key are one call. When one
        fails, or at Ctrl-C, calls under way are finished and stored, and others do not begin.

        Parameters:
            iterables: one for each parameter.
            executor: of threads or processes; it stays open.
            processes: how many processes to start for this; None, and no executor: threads, as many as Python's
                default. What runs in another process has no part in a transaction around the caller.
            progress: told before the first call and after every one, in the caller's thread.

        Returns: the results in the items' order.
        Raises: what a call raises; PgResultsError when a process was killed.
        """
        if self.isasync:
            raise TypeError(f"{self.name} is async: await asyncio.gather(*map({self.name}, items)) instead")
        planned = [perform(self._plan(args)) for args in zip(*iterables, strict=False)]
        mapped = Mapped([call.place for call in planned], perform(self._live(planned)), progress)
        if missing := [planned[position] for position in mapped.missing()]:
            with closing(call_all(carried(self._carry_out), missing, executor, processes)) as outcomes:
                for call, outcome in outcomes:
                    mapped.take(call.place, outcome)
        return mapped.results()

    def _run_of(self, args: Any, kwargs: Any) -> TaskRun:
        """A new run, of a call with these arguments.

        Raises: TypeError as the call itself would.
        """
        flow = FlowRunContext.get()
        return TaskRun(self.name, self._bind(args, kwargs), flow.flow_run.id if flow is not None else None)

    def _running(self, run: TaskRun) -> Program[TaskRunContext]:
        """The context of a run."""
        flow = FlowRunContext.get()
        store = yield from get_result_store()._update_for_task(self)
        persist = self.persist_result
        if persist is None:
            persist = flow.persist_result if flow is not None else get_default_persist_setting_for_tasks()
        return TaskRunContext(persist, store, self, run)

    def _key_of(self, context: TaskRunContext) -> str | None:
        """The key of a call, or None when its result is not stored; asked inside of the context.

        Raises: SerializationError for an input of which no key can be made; InvalidKey; ConfigurationError.
        """
        if not context.persist_result:
            return None
        if self.cache_policy is not None:
            key = self.cache_policy.compute_key(context, context.parameters)
        elif self.result_storage_key is not None:
            key = key_from_template(self.result_storage_key)
        else:
            key = str(context.task_run.id)
        return None if key is None else require_key(key)

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
            raise TypeError(f"cache_policy is a CachePolicy such as INPUTS, not {type(policy).__name__}")
        return DEFAULT if policy is NotSet else cast("CachePolicy | None", policy)

    def _persistence(self) -> bool | None:
        chosen: bool | None = self.options.get("persist_result")
        if chosen is not None:
            return chosen
        policy = self.options.get("cache_policy")
        options = (self.cache_key_fn, self.result_storage_key, self.result_storage, self.result_serializer)
        said = any(option is not None for option in options) or (policy is not None and not isinstance(policy, NoCache))
        return True if said else None

    def _run(self, args: Any, kwargs: Any) -> Program[Any]:
        context = yield from self._running(self._run_of(args, kwargs))
        with context:
            return (yield from self._obtain(context, self._key_of(context), args, kwargs)).result

    def _plan(self, args: Any) -> Program[_Planned]:
        context = yield from self._running(self._run_of(args, {}))
        with context:
            return _Planned(context.task_run, self._key_of(context), args)

    def _live(self, planned: Sequence[_Planned]) -> Program[dict[str, Any]]:
        """The results that are there already, by key."""
        keys = list(dict.fromkeys(call.key for call in planned if call.key is not None))
        results: dict[str, Any] = {}
        if self.refresh_cache or not keys:
            return results
        store = yield from get_result_store()._update_for_task(self)
        for start in range(0, len(keys), _READ_AT_ONCE):
            some = keys[start : start + _READ_AT_ONCE]
            records = yield from wait_for(partial(store.read_many, some), partial(store.aread_many, some))
            results.update({key: record.result for key, record in records.items()})
        return results

    def _carry_out(self, call: _Planned) -> Outcome:
        return perform(self._running_planned(call))

    def _running_planned(self, call: _Planned) -> Program[Outcome]:
        context = yield from self._running(call.run)
        with context:
            return (yield from self._obtain(context, call.key, call.args, {}))

    def _obtain(self, context: TaskRunContext, key: str | None, args: Any, kwargs: Any) -> Program[Outcome]:
        try:
            return (yield from self._transact(context, key, args, kwargs, self.refresh_cache))
        except _Gone:
            return (yield from self._transact(context, key, args, kwargs, overwrite=True))

    def _transact(
        self, context: TaskRunContext, key: str | None, args: Any, kwargs: Any, overwrite: bool
    ) -> Program[Outcome]:
        store = None if key is None else context.result_store
        patience = getattr(self.cache_policy, "lock_timeout", None)
        level = self._isolation(key)
        txn = transaction(key, store, isolation_level=level, overwrite=overwrite, lock_timeout=patience)
        yield from wait_for(txn.__enter__, txn.__aenter__)
        try:
            result = yield from self._result(txn, context, args, kwargs)
        except BaseException as error:
            failure: Any = (type(error), error, error.__traceback__)
            if isinstance(error, _Gone):
                failure = (None, None, None)
            yield from wait_for(lambda: txn.__exit__(*failure), lambda: txn.__aexit__(*failure))
            raise
        yield from wait_for(lambda: txn.__exit__(None, None, None), lambda: txn.__aexit__(None, None, None))
        return result

    def _result(self, txn: Transaction, context: TaskRunContext, args: Any, kwargs: Any) -> Program[Outcome]:
        if txn.is_committed():
            try:
                return Outcome((yield from wait_for(txn.read, txn.aread)).result, reused=True)
            except MissingResult as error:
                raise _Gone from error
        function: Any = self.fn
        result = yield from wait_for(lambda: function(*args, **kwargs), lambda: function(*args, **kwargs))
        staged = result
        if txn.key is not None:
            staged = context.result_store._draft(result, txn.key, expires_in=self.cache_expiration)
        txn.stage(staged, self.on_rollback_hooks, self.on_commit_hooks)
        return Outcome(result, reused=False)

    def _isolation(self, key: str | None) -> IsolationLevel | None:
        level = None if key is None or self.cache_policy is None else self.cache_policy.isolation_level
        return IsolationLevel[level] if isinstance(level, str) else level

    def _extras(self) -> dict[str, Any]:
        return {"on_commit_hooks": [*self.on_commit_hooks], "on_rollback_hooks": [*self.on_rollback_hooks]}


def _as_span(expiration: Any) -> timedelta | None:
    """A time from now that is given as such or in seconds."""
    if expiration is None:
        return None
    if isinstance(expiration, int | float) and not isinstance(expiration, bool):
        with suppress(OverflowError, ValueError):
            expiration = timedelta(seconds=expiration)
    return require_span(expiration, "cache_expiration")


class _Gone(Exception):  # noqa: N818 (a signal within this module)
    """The result that was there expired before it was read."""


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


@dataclass(frozen=True)
class Explanation:
    """Why a call would run or not: its key, the parts of it, whether a live result is there, and why (not)."""

    key: str | None
    hit: bool
    reason: str
    parts: dict[str, str | None] = field(default_factory=dict)


def explain(task: Task[P, Any], *args: P.args, **kwargs: P.kwargs) -> Explanation:
    """Say which key a call has, what made it, and whether it would run; nothing is run.

    Raises: what the call raises before it runs; TypeError for what is no task.
    """
    return perform(_explain(task, args, kwargs))


async def aexplain(task: Task[P, Any], *args: P.args, **kwargs: P.kwargs) -> Explanation:
    """Say which key a call has, what made it, and whether it would run; see `explain`."""
    return await aperform(_explain(task, args, kwargs))


def _explain(task: Task[Any, Any], args: Any, kwargs: Any) -> Program[Explanation]:
    if not isinstance(task, Task):
        raise TypeError(f"only the call of a task can be explained, not of a {type(task).__name__}")
    context = yield from task._running(task._run_of(args, kwargs))
    with context:
        key = task._key_of(context)
        policy = task.cache_policy
        parts = {} if policy is None else policy._key_parts(context, context.parameters)
        if key is None:
            why = "its policy gives no key" if context.persist_result else "results are not persisted here"
            return Explanation(None, False, f"the call always runs: {why}", parts)
        if task.refresh_cache:
            return Explanation(key, False, "the call always runs: refresh_cache is set", parts)
        try:
            store = context.result_store
            storage = (yield from store._keyspace()).entries
            head = require_live((yield from storage._fetch(key)), key).head
        except MissingResult as miss:
            return Explanation(key, False, str(miss), parts)
        return Explanation(key, True, f"version {head.version} is live", parts)
