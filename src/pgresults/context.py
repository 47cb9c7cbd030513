"""The runs around the running code: of a flow, of a task, and carrying them into threads and processes."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from contextvars import Context, ContextVar, Token, copy_context
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Generic, ParamSpec, Self, TypeVar
from uuid import UUID, uuid4

from pgresults.provenance import RUN
from pgresults.runs import TEMPLATE_NAMES
from pgresults.settings import current_settings
from pgresults.store import CURRENT_STORE, ResultStore

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
class _RunContext:
    """What holds during a run; enter it with ``with``."""

    persist_result: bool
    result_store: ResultStore

    _current: ClassVar[ContextVar[Any]]

    @classmethod
    def get(cls) -> Self | None:
        """The innermost one around the caller, or None."""
        return cls._current.get()  # type: ignore[no-any-return]

    def names(self) -> dict[str, Any]:
        """What a storage key template may name."""
        raise NotImplementedError

    def provenance(self) -> dict[str, Any]:
        """What is recorded with every result."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        names = {**TEMPLATE_NAMES.get(), **self.names()}
        run = {**RUN.get(), **self.provenance()}
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

    def names(self) -> dict[str, Any]:
        """What a storage key template may name."""
        return {"flow_run": self.flow_run, "parameters": self.parameters}

    def provenance(self) -> dict[str, Any]:
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

    def names(self) -> dict[str, Any]:
        """What a storage key template may name."""
        return {"task_run": self.task_run, "parameters": self.parameters}

    def provenance(self) -> dict[str, Any]:
        """What is recorded with every result."""
        return {"task": {"name": self.task.name, "run_id": str(self.task_run.id), "code": self.task.code_hash}}


class carried(Generic[P, R]):  # noqa: N801 (used like a function)
    """A function with the runs around it, to be called in another thread or process.

    In this process it runs in a copy of the whole context, transactions included; pickled to another process, within
    the same flow run and task run.
    """

    def __init__(self, function: Callable[P, R]) -> None:
        self._function = function
        self._runs = [run for run in (FlowRunContext.get(), TaskRunContext.get()) if run is not None]
        self._context: Context | None = copy_context()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if self._context is not None:
            return self._context.copy().run(self._function, *args, **kwargs)
        with ExitStack() as stack:
            for run in self._runs:
                stack.enter_context(run)
            return self._function(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return {"_function": self._function, "_runs": [replace(run) for run in self._runs], "_context": None}


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
