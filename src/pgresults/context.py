"""The runs around the running code: of a flow, of a task, and carrying them into threads and processes."""

import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from contextvars import Context, ContextVar, Token, copy_context
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any, ClassVar, Generic, NoReturn, ParamSpec, Self, TypeVar
from uuid import UUID, uuid4

import cloudpickle

from pgresults.errors import SerializationError
from pgresults.records.provenance import AWAITED_BY, HOLDER, RUN
from pgresults.settings import current_settings
from pgresults.store.run_options import TEMPLATE_NAMES
from pgresults.store.store import CURRENT_STORE, ResultStore

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class FlowRun:
    """One call of a flow."""

    name: str
    parameters: Mapping[str, Any]
    id: UUID = field(default_factory=uuid4)


@dataclass(frozen=True)
class TaskRun:
    """One call of a task; ``flow_run_id`` is None outside of a flow."""

    name: str
    parameters: Mapping[str, Any]
    flow_run_id: UUID | None = None
    id: UUID = field(default_factory=uuid4)


@dataclass
class _RunContext(ABC):
    """What holds during a run; enter it with ``with``."""

    persist_result: bool
    result_store: ResultStore

    _current: ClassVar[ContextVar[Any]]

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
        names = {**TEMPLATE_NAMES.get(), **self._names()}
        run = {**RUN.get(), **self._provenance()}
        values: dict[ContextVar[Any], Any] = {
            type(self)._current: self,
            CURRENT_STORE: self.result_store,
            TEMPLATE_NAMES: names,
            RUN: run,
        }
        self._tokens: list[tuple[ContextVar[Any], Token[Any]]] = [(var, var.set(values[var])) for var in values]
        return self

    def __exit__(self, *_: object) -> None:
        for variable, token in reversed(self._tokens):
            variable.reset(token)
        del self._tokens


@dataclass
class FlowRunContext(_RunContext):
    """What holds during the run of a flow."""

    flow: Any
    flow_run: FlowRun

    _current: ClassVar[ContextVar[Any]] = ContextVar("pgresults.flow", default=None)

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
        return {"task": {"name": self.task.name, "run_id": str(self.task_run.id), "code": self.task.code_hash}}


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

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if self._context is not None:
            return self._context.copy().run(self._function, *args, **kwargs)
        with ExitStack() as stack:
            token = AWAITED_BY.set(self._awaited_by)
            stack.callback(AWAITED_BY.reset, token)
            for run in self._runs:
                stack.enter_context(replace(run))
            return self._function(*args, **kwargs)

    def __reduce__(self) -> Any:
        return _received, (self._sent,)

    @cached_property
    def _sent(self) -> bytes:
        return _dumped((self._function, [_sendable(run) for run in self._runs], self._awaited_by))


@lru_cache(maxsize=16)
def _received(sent: bytes) -> "carried[Any, Any]":
    function, runs, awaited_by = pickle.loads(sent)
    received: carried[Any, Any] = carried.__new__(carried)
    received._function, received._context, received._awaited_by = function, None, awaited_by
    received._runs = tuple(
        run._with_parameters({**run.parameters, **{name: _LeftBehind(why) for name, why in left_behind.items()}})
        for run, left_behind in runs
    )
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
            _dumped(value)
        except Exception as error:
            left_behind[name] = f"{name!r}, {type(error).__name__}: {error}"
        else:
            kept[name] = value
    return run._with_parameters(kept), left_behind


def _dumped(value: Any) -> bytes:
    return cloudpickle.dumps(value)  # type: ignore[no-any-return]


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
    """Whether results are stored here: as the task around the caller says, else the flow, else the setting."""
    run = TaskRunContext.get() or FlowRunContext.get()
    return get_default_persist_setting() if run is None else run.persist_result
