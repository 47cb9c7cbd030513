"""The runs around the running code: of a flow, of a task, and carrying them into threads and processes."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from threading import current_thread, main_thread
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NoReturn, ParamSpec, Self, TypeVar
from uuid import UUID, uuid4

from pgresults.database.telemetry import trace_to_carry, within_trace
from pgresults.errors import MissingContextError, SerializationError
from pgresults.leaving import Leave, Within
from pgresults.records.lineage import SOURCES, Sources
from pgresults.records.provenance import AWAITED_BY, HOLDER, RUN
from pgresults.records.remembering import REMEMBERED, remembering
from pgresults.serializers.pickles import dumps, loads
from pgresults.settings import current_settings
from pgresults.store.run_options import TEMPLATE_NAMES
from pgresults.store.store import CURRENT_STORE, ResultStore

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class FlowRun:
    """One call of a flow."""

    flow_name: str
    parameters: Mapping[str, Any]
    id: UUID = field(default_factory=uuid4)

    @property
    def name(self) -> str:
        """The run's own name, unlike that of every other run."""
        return _run_name(self.flow_name, self.id)


class _Drawn:
    """An id that is drawn when it is first asked for, which most calls with a stored result never do."""

    def __get__(self, run: Any, _: Any = None) -> UUID:
        if run is None:
            return None  # type: ignore[return-value] # the default of the field
        return vars(run).get("id") or vars(run).setdefault("id", uuid4())  # type: ignore[no-any-return]

    def __set__(self, run: Any, given: UUID | None) -> None:
        if given is not None:
            vars(run)["id"] = given


@dataclass(frozen=True)
class TaskRun:
    """One call of a task; ``flow_run_id`` is None outside of a flow."""

    task_name: str
    parameters: Mapping[str, Any]
    flow_run_id: UUID | None = None
    id: _Drawn = _Drawn()

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "id": self.id}

    @property
    def name(self) -> str:
        """The run's own name, unlike that of every other run."""
        return _run_name(self.task_name, self.id)


def _run_name(name: str, run: UUID) -> str:
    return f"{name}-{run.hex[:20]}"  # 76 bits by chance: a template may make a key of it


@dataclass
class _RunContext(ABC):
    """What holds during a run; enter it with ``with``."""

    persist_result: bool
    result_store: ResultStore

    _current: ClassVar[ContextVar[Any]]
    _sources: Sources = field(default_factory=Sources, init=False, repr=False, compare=False)
    """Which versions the run has used so far."""
    _within: Within | None = field(default=None, init=False, repr=False, compare=False)
    _held: Any = field(default=None, init=False, repr=False, compare=False)

    @property
    @abstractmethod
    def parameters(self) -> Mapping[str, Any]:
        """The parameters of the call by name."""

    @abstractmethod
    def _with_parameters(self, parameters: Mapping[str, Any]) -> Self:
        """A copy with other parameters."""

    @classmethod
    def get(cls) -> Self | None:
        """The innermost one around the caller, or None."""
        return cls._current.get()  # type: ignore[no-any-return]

    @abstractmethod
    def _names(self) -> dict[str, Any]:
        """What a storage key template may name."""

    @abstractmethod
    def _provenance(self) -> dict[str, Any]:
        """What is recorded with every result."""

    def __enter__(self) -> Self:
        try:
            self._enter()
        except BaseException:
            self._leave()
            raise
        return self

    def _exit(self, *_: object) -> None:
        try:
            self._leave()
        except BaseException:
            self._leave()
            raise

    if TYPE_CHECKING:
        __exit__ = _exit
    else:
        __exit__ = Leave(_exit)

    def _enter(self) -> None:
        values: tuple[tuple[ContextVar[Any], Any], ...] = (
            (type(self)._current, self),
            (_INNERMOST, self),
            (CURRENT_STORE, self.result_store),
            (TEMPLATE_NAMES, _Said(TEMPLATE_NAMES.get(), self._names)),
            (RUN, _Said(RUN.get(), self._provenance)),
            (SOURCES, self._sources),
            (REMEMBERED, remembering()),
        )
        self._within = Within(values)
        self._within.enter()

    def _leave(self) -> None:
        if self._within is not None:
            self._within.leave()
        self._within = self._held = None

    def _awaits_entry(self) -> bool:
        return self._within is None

    def _let_go(self) -> None:
        """Leave it after all."""
        self._leave()


class _Said(Mapping[str, Any]):
    """What runs say of themselves, the inner one last; made when it is asked for, which most calls never do."""

    def __init__(self, around: Mapping[str, Any], own: Callable[[], dict[str, Any]]) -> None:
        self._around = around
        self._own = own

    @cached_property
    def _all(self) -> dict[str, Any]:
        return {**self._around, **self._own()}

    def __getitem__(self, name: str) -> Any:
        return self._all[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)


_INNERMOST: ContextVar[_RunContext | None] = ContextVar("pgresults.innermost", default=None)
"""The innermost run around the caller, of a task or of a flow."""

_running_flows: dict[int, "FlowRunContext"] = {}
"""The runs of flows that are under way in this process."""


@dataclass
class FlowRunContext(_RunContext):
    """What holds during the run of a flow."""

    flow: Any
    flow_run: FlowRun

    _current: ClassVar[ContextVar[Any]] = ContextVar("pgresults.flow", default=None)

    def _enter(self) -> None:
        _running_flows[id(self)] = self
        super()._enter()

    def _leave(self) -> None:
        _running_flows.pop(id(self), None)
        super()._leave()

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The flow's parameters by name."""
        return self.flow_run.parameters

    def _with_parameters(self, parameters: Mapping[str, Any]) -> Self:
        """A copy with other parameters."""
        return replace(self, flow_run=replace(self.flow_run, parameters=parameters))

    def _names(self) -> dict[str, Any]:
        """What a storage key template may name."""
        return {"flow_run": self.flow_run, "parameters": self.parameters}

    def _provenance(self) -> dict[str, Any]:
        """What is recorded with every result."""
        return {"flow": {"name": self.flow.name, "run_id": str(self.flow_run.id)}}


@dataclass
class TaskRunContext(_RunContext):
    """What holds during the run of a task."""

    task: Any
    task_run: TaskRun

    _current: ClassVar[ContextVar[Any]] = ContextVar("pgresults.task", default=None)

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The task's parameters by name."""
        return self.task_run.parameters

    def _with_parameters(self, parameters: Mapping[str, Any]) -> Self:
        """A copy with other parameters."""
        return replace(self, task_run=replace(self.task_run, parameters=parameters))

    def _names(self) -> dict[str, Any]:
        """What a storage key template may name."""
        return {"task_run": self.task_run, "parameters": self.parameters}

    def _provenance(self) -> dict[str, Any]:
        """What is recorded with every result."""
        said = {"name": self.task.name, "run_id": str(self.task_run.id), "code": self.task.code_hash}
        with suppress(SerializationError):  # a template may be the key of what has no identity
            said["identity"] = self.task.identity
        return {"task": said}


class carried(Generic[P, R]):  # noqa: N801 (used like a function)
    """A function with the runs around it, to be called in another thread or process.

    In this process it runs in a copy of the whole context, transactions included; pickled to another process, within
    the same flow run and task run. However often it is sent to a process, it is one object there, with one set of
    connections.
    """

    def __init__(self, function: Callable[P, R]) -> None:
        self._function = function
        self._runs = tuple(run for run in (FlowRunContext.get(), TaskRunContext.get()) if run is not None)
        self._context: Context | None = copy_context()
        holder = HOLDER.get()
        self._awaited_by = AWAITED_BY.get() if holder is None else (*AWAITED_BY.get(), holder)
        self._trace = trace_to_carry()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if self._context is not None:
            return self._context.copy().run(self._function, *args, **kwargs)
        function, runs, awaited_by, trace = self._opened
        with ExitStack() as stack:
            stack.enter_context(within_trace(trace))
            token = AWAITED_BY.set(awaited_by)
            stack.callback(AWAITED_BY.reset, token)
            for run in runs:
                stack.enter_context(replace(run))
            return function(*args, **kwargs)

    def __reduce__(self) -> Any:
        return _received, (self._sent,)

    @cached_property
    def _sent(self) -> bytes:
        return dumps((self._function, [_sendable(run) for run in self._runs], self._awaited_by, self._trace))

    @cached_property
    def _opened(self) -> tuple[Callable[P, R], list[_RunContext], Any, Mapping[str, str]]:
        """Function and runs in another process; opened at the first call, whose failure it then is."""
        function, sent, awaited_by, trace = loads(self._sent)
        runs = [
            run._with_parameters({**run.parameters, **{name: _LeftBehind(why) for name, why in left_behind.items()}})
            for run, left_behind in sent
        ]
        return function, runs, awaited_by, trace


@lru_cache(maxsize=16)
def _received(sent: bytes) -> "carried[Any, Any]":
    received: carried[Any, Any] = carried.__new__(carried)
    vars(received).update(_context=None, _sent=sent)
    return received


class _LeftBehind:
    """Stands for a parameter that cannot be sent to another process; whoever makes a key of it is told so."""

    def __init__(self, why: str) -> None:
        self._why = why

    def __reduce__(self) -> NoReturn:
        raise SerializationError(f"a parameter was left behind in another process: {self._why}")

    def __format__(self, _: str) -> NoReturn:
        self.__reduce__()


def _sendable(run: _RunContext) -> tuple[_RunContext, dict[str, str]]:
    """A run with those of its parameters that can be pickled, and why the others cannot: most tasks need none."""
    kept, left_behind = {}, {}
    for name, value in run.parameters.items():
        try:
            dumps(value)
        except Exception as error:
            left_behind[name] = f"{name!r}, {type(error).__name__}: {error}"
        else:
            kept[name] = value
    return run._with_parameters(kept), left_behind


def get_run_context() -> FlowRunContext | TaskRunContext:
    """What holds during the innermost run around the caller.

    Raises: MissingContextError outside of flows and tasks.
    """
    run = _INNERMOST.get()
    if not isinstance(run, FlowRunContext | TaskRunContext):
        raise MissingContextError("no flow or task runs here")
    return run


def get_result_store() -> ResultStore:
    """The store of the run around the caller, else a new one."""
    return CURRENT_STORE.get() or ResultStore()


def get_default_persist_setting() -> bool:
    """Whether results are stored where nothing is said of it."""
    return current_settings().results.persist_by_default


def get_default_persist_setting_for_tasks() -> bool:
    """Whether tasks' results are stored where nothing is said of it."""
    settings = current_settings()
    chosen = settings.tasks.default_persist_result
    return settings.results.persist_by_default if chosen is None else chosen


def should_persist_result() -> bool:
    """Whether results are stored here: as the innermost run around the caller says, else the setting."""
    run = _INNERMOST.get()
    return get_default_persist_setting() if run is None else run.persist_result


def persisting(chosen: bool | None, setting: Callable[[], bool]) -> bool:
    """Whether a run's results are stored: as it says itself, else as the run around it, else as the setting."""
    if chosen is not None:
        return chosen
    run = _INNERMOST.get()
    return setting() if run is None else run.persist_result


def lost_flow() -> FlowRunContext | None:
    """A flow that is running in this process while a thread beside the main one has no part in any; or None."""
    if not _running_flows or _INNERMOST.get() is not None or current_thread() is main_thread():
        return None
    return next(iter([*_running_flows.values()]), None)
