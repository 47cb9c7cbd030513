"""`Called`: a function whose calls have keys, and how a call is carried out: looked up, else computed and stored."""

import logging
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, NamedTuple, ParamSpec, TypeVar
from uuid import UUID

from pgresults.context import (
    FlowRunContext,
    TaskRun,
    TaskRunContext,
    get_default_persist_setting_for_tasks,
    lost_flow,
    persisting,
)
from pgresults.database.observing import HIT, KEY, TASK, About, observed
from pgresults.database.programs import Program, aperform, calling, perform, wait_for
from pgresults.errors import MissingResult, SerializationError
from pgresults.operations.awaiting import Ancestry
from pgresults.records.keys import require_key
from pgresults.records.lineage import Origin
from pgresults.records.records import ResultRecord
from pgresults.records.remembering import Given, sources_of, use
from pgresults.runtime.functions import Wrapped
from pgresults.runtime.iterables import Arguments
from pgresults.runtime.mapping import Outcome
from pgresults.runtime.notices import logger, say_once
from pgresults.runtime.prepared import Prepared
from pgresults.runtime.tallies import Tally
from pgresults.store.reading import read_at_once
from pgresults.store.run_options import key_from_template
from pgresults.store.store import ResultStore
from pgresults.transactions import IsolationLevel
from pgresults.transactions.calls import CallTransaction
from pgresults.transactions.gathering import Gathering
from pgresults.transactions.hooks import Hook

P = ParamSpec("P")
R = TypeVar("R", covariant=True)

_READ_AT_ONCE = 500  # keys in a query: what bounds the payloads in memory beside the results


class Planned(NamedTuple):
    """A call to be made."""

    run: TaskRun
    key: str | None
    arguments: Arguments
    sources: tuple[Origin, ...] = ()
    """The versions that the arguments came from."""

    @property
    def place(self) -> str | UUID:
        """What calls of the same result have in common."""
        return self.run.id if self.key is None else self.key


class Called(Wrapped[P, R]):
    """A function whose calls have keys; what it is told of them stands in the class below."""

    result_storage_key: str | None
    cache_policy: Any
    cache_expiration: timedelta | None
    refresh_cache: bool
    persist_result: bool | None
    on_commit_hooks: list[Hook]
    on_rollback_hooks: list[Hook]

    def __init__(self, fn: Callable[P, R], options: dict[str, Any]) -> None:
        super().__init__(fn, options)
        self._tally = Tally(self.name)
        self._prepared = Prepared()

    def _run_of(self, arguments: Arguments) -> TaskRun:
        """A new run, of a call with these arguments.

        Raises: TypeError as the call itself would.
        """
        flow = FlowRunContext.get()
        return TaskRun(self.name, self._bind(*arguments), flow.flow_run.id if flow is not None else None)

    def _running(self, run: TaskRun) -> Program[TaskRunContext]:
        """The context of a run."""
        return self._context(run, (yield from self._prepared.store(self, to_write=False)))

    def _context(self, run: TaskRun, store: ResultStore) -> TaskRunContext:
        persist = persisting(self.persist_result, get_default_persist_setting_for_tasks)
        lost = lost_flow()
        if lost is not None and (persist or (self.persist_result is None and lost.persist_result)):
            say_once(self.fn, logging.WARNING, _LOST, self.name, lost.flow.name)
        return TaskRunContext(persist, store, self, run)

    def _key_of(self, context: TaskRunContext) -> str | None:
        """The key of a call, or None when its result is not stored.

        Raises: SerializationError for an input of which no key can be made; InvalidKey; ConfigurationError.
        """
        if not context.persist_result:
            if self.persist_result is None:
                say_once(self.fn, logging.INFO, _NOT_STORED, self.name)
            return None
        if self._knows_its_key():
            key = self._policy_key(context)
        else:
            with context:
                key = self._said_key(context)
        if key is not None and context.task_run.flow_run_id is None and self._names_the_run():
            say_once(self.fn, logging.WARNING, _NEVER_FOUND, self.name)
        return None if key is None else require_key(key)

    def _knows_its_key(self) -> bool:
        """Whether nothing that makes the key asks what run is around: then no context has to be entered for it."""
        raise NotImplementedError

    def _said_key(self, context: TaskRunContext) -> str | None:
        """The key that the user's function, policy or template makes within the run."""
        if self.cache_policy is not None:
            return self._policy_key(context)
        if self.result_storage_key is not None:
            return key_from_template(self.result_storage_key)
        return str(context.task_run.id)

    def _policy_key(self, context: TaskRunContext) -> str | None:
        """The key that the policy makes."""
        raise NotImplementedError

    def _policy_parts(self, context: TaskRunContext) -> dict[str, str | None]:
        """What the policy makes a key of, by name."""
        raise NotImplementedError

    def _names_the_run(self) -> bool:
        """Whether a part of every key is the run, which outside of a flow is that of the call."""
        raise NotImplementedError

    def _run(self, arguments: Arguments) -> Program[Any]:
        """Carry a call out, and give its result."""
        run, store = self._run_of(arguments), self._prepared.known(self, to_write=False)
        context = (yield from self._running(run)) if store is None else self._context(run, store)
        key = calling(lambda: self._key_of(context))
        return (yield from self._obtain(context, key, arguments)).result

    def _plan(self, arguments: Arguments) -> Program[Planned]:
        """What there is to do for a call."""
        context = yield from self._running(self._run_of(arguments))
        return Planned(context.task_run, calling(lambda: self._key_of(context)), arguments)

    def _live(self, planned: Sequence[Planned]) -> Program[dict[str, Any]]:
        """The results that are there already, by key."""
        keys = list(dict.fromkeys(call.key for call in planned if call.key is not None))
        results: dict[str, Any] = {}
        if self.refresh_cache or not keys:
            return results
        store = yield from self._prepared.store(self, to_write=False)
        for start in range(0, len(keys), _READ_AT_ONCE):
            some = keys[start : start + _READ_AT_ONCE]
            records = yield from store._read_many(some, self._report_unreadable)
            for key, record in records.items():
                found = _reused(record)
                use(found.result, found.origins, found.size)
                results[key] = found.result
        return results

    def _with_sources(self, call: Planned) -> Planned:
        """The call, which knows what its arguments came from: another process does not."""
        return call._replace(sources=sources_of((call.arguments.args, call.arguments.kwargs)))

    def _carry_out(self, call: Planned, gathering: Gathering | None = None) -> Outcome:
        """Carry a planned call out in this thread; its failure is part of the outcome."""
        try:
            return perform(self._running_planned(call, gathering))
        except (StopIteration, StopAsyncIteration, GeneratorExit) as end:
            return Outcome(None, reused=False, failure=end)  # on its way it would end whoever waits for it

    async def _acarry_out(self, call: Planned, gathering: Gathering | None = None) -> Outcome:
        """Carry a planned call out on this event loop."""
        return await aperform(self._running_planned(call, gathering))

    def _running_planned(self, call: Planned, gathering: Gathering | None) -> Program[Outcome]:
        context = yield from self._running(call.run)
        context._sources.add(call.sources)
        return (yield from self._obtain(context, call.key, call.arguments, gathering))

    def _about(self, context: TaskRunContext, key: str | None, *_: Any) -> About:
        said = {TASK: self.name}
        if key is not None and context.result_store._bounds().telemetry_keys:
            said[KEY] = key
        return About(None, said)

    @observed("task", _about, lambda outcome: {HIT: outcome.reused})
    def _obtain(
        self, context: TaskRunContext, key: str | None, arguments: Arguments, gathering: Gathering | None = None
    ) -> Program[Outcome]:
        """The result of a call, stored or computed; in one statement where it is stored."""
        found = None
        if key is not None and not self.refresh_cache:
            found = yield from self._found(context, key)
        if found is None:
            context.result_store = yield from self._prepared.store(self, to_write=True)
            parameters = context.task_run.parameters.values()
            given = Given(context._sources, (arguments.args, arguments.kwargs), parameters)
            context._sources.add(given.came_from)
            with context:
                found = yield from self._transact(context, key, arguments, gathering)
            found = found._replace(given=given)
        use(found.result, found.origins, found.size, found.given)
        self._tally.add(hits=int(found.reused), misses=int(not found.reused))
        return found

    def _found(self, context: TaskRunContext, key: str) -> Program[Outcome | None]:
        """What is stored under a key, if it is live; whoever has its lock is not waited for."""
        store = context.result_store
        remembering = store.cache_result_in_memory and context.task_run.flow_run_id is not None
        try:
            record = yield from read_at_once((yield from store._keyspace()), key, store.cache if remembering else None)
        except MissingResult:
            return None
        except SerializationError as error:
            self._report_unreadable(key, error)
            return None
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("hit: %s under %r", self.name, key)
        return _reused(record)

    def _report_unreadable(self, key: str, error: SerializationError) -> None:
        """Say that a stored result cannot be loaded here; whoever can compute it need not fail."""
        logger.warning("the result of %s under %r is computed again: %s", self.name, key, error)

    def _transact(
        self, context: TaskRunContext, key: str | None, arguments: Arguments, gathering: Gathering | None
    ) -> Program[Outcome]:
        """Compute a result in a transaction of its own."""
        store = None if key is None else context.result_store
        patience = getattr(self.cache_policy, "lock_timeout", None)
        txn = CallTransaction(key, store, self._isolation(key), self.refresh_cache, patience, gathering)
        return (yield from txn.around(self._compute(txn, context, arguments)))

    def _compute(self, txn: CallTransaction, context: TaskRunContext, arguments: Arguments) -> Program[Outcome]:
        if txn.key is not None and txn.has_lock() and not self.refresh_cache:
            found = yield from self._found(context, txn.key)  # whoever had the lock may have stored it
            if found is not None:
                yield from txn.found()
                return found
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("miss: %s under %r", self.name, txn.key)
        txn.on_rollback_hooks.extend(self.on_rollback_hooks)  # also when the function fails
        function: Any = self.fn
        args, kwargs = arguments
        result = yield from wait_for(lambda: function(*args, **kwargs), lambda: function(*args, **kwargs))
        draft = yield from self._draft(context, txn, result)
        txn.stage(draft, on_commit_hooks=self.on_commit_hooks)
        if txn.key is None:
            return Outcome(result, reused=False, origins=tuple(context._sources))
        return Outcome(result, reused=False, origins=(draft.ancestry.origin,), size=len(draft.payload or b""))

    def _draft(self, context: TaskRunContext, txn: CallTransaction, result: Any) -> Program[Any]:
        """What a transaction is to stage: where it is stored, it is serialized already."""
        store, key = context.result_store, txn.key
        if key is None:
            return result
        draft = store._draft(result, key, expires_in=self.cache_expiration)
        return (yield from store._taking(draft._replace(ancestry=Ancestry(tuple(context._sources), Origin(key)))))

    def _isolation(self, key: str | None) -> IsolationLevel | None:
        level = None if key is None or self.cache_policy is None else self.cache_policy.isolation_level
        return IsolationLevel[level] if isinstance(level, str) else level


def _reused(record: ResultRecord[Any]) -> Outcome:
    """What a call gives whose result is stored."""
    origin = record._origin
    origins = () if origin is None else (origin,)
    return Outcome(record.result, reused=True, origins=origins, size=record.metadata.size or 0)


_LOST = (
    "%s runs in a thread that has no part in the flow %s, which is running: a thread of one's own begins without it, "
    "and keys, storage and persistence are those outside of flows. Start it with asyncio.to_thread, with "
    "contextvars.copy_context().run, or by map"
)
_NOT_STORED = (
    "the results of %s are not stored, so every call runs: give it a cache_policy such as INPUTS or "
    "persist_result=True, or call it in a flow that stores"
)
_NEVER_FOUND = (
    "the results of %s are stored, but never found again: their keys name the run, and outside of a flow every call is "
    "a run of its own. Give it cache_policy=INPUTS, or call it in a flow"
)
