"""`flow`: functions that tasks run in, with settings for all of their results."""

from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypedDict, TypeVar, Unpack, cast, overload

from pgresults.context import FlowRun, FlowRunContext, get_default_persist_setting, get_result_store, persisting
from pgresults.database.programs import Program, aperform, perform, wait_for
from pgresults.operations.awaiting import Ancestry
from pgresults.records.lineage import Origin
from pgresults.records.remembering import Given, use
from pgresults.runtime.functions import Wrapped
from pgresults.runtime.options import require_options
from pgresults.serializers import Serializer
from pgresults.storage.registry import StorageSpec

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class FlowOptions(TypedDict, total=False):
    """The options of a flow; see `flow`."""

    name: str | None
    persist_result: bool | None
    result_storage: StorageSpec | None
    result_serializer: Serializer | str | None
    cache_result_in_memory: bool


class Flow(Wrapped[P, R]):
    """A function that tasks run in; made by `flow`."""

    def __init__(self, fn: Callable[P, R], options: dict[str, Any]) -> None:
        super().__init__(fn, options)
        require_options("flow", options, FlowOptions.__annotations__)
        self.result_storage = options.get("result_storage")
        self.result_serializer = options.get("result_serializer")
        self.cache_result_in_memory: bool = options.get("cache_result_in_memory", True)
        chosen: bool | None = options.get("persist_result")
        said = self.result_storage is not None or self.result_serializer is not None
        self.persist_result: bool | None = True if chosen is None and said else chosen

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        program = self._run(args, kwargs)
        return cast("R", aperform(program) if self.isasync else perform(program))

    def with_options(self, **options: Unpack[FlowOptions]) -> "Flow[P, R]":
        """A copy of the flow with other options; see `flow`."""
        return self._changed(options)

    def _run(self, args: Any, kwargs: Any) -> Program[Any]:
        run = FlowRun(self.name, self._bind(args, kwargs))
        store = yield from get_result_store()._update_for_flow(self)
        persist = persisting(self.persist_result, get_default_persist_setting)
        context = FlowRunContext(persist, store, self, run)
        given = Given(context._sources, (args, kwargs), run.parameters.values())
        context._sources.add(given.came_from)
        with context:
            function: Any = self.fn
            result = yield from wait_for(lambda: function(*args, **kwargs), lambda: function(*args, **kwargs))
            origins, size = tuple(context._sources), 0
            if persist:
                own = Origin(run.id.hex)
                draft = store._draft(result, own.key)._replace(ancestry=Ancestry(origins, own))
                origins, size = (own,), (yield from store._write(draft)).size or 0
        use(result, origins, size, given)
        return result


@overload
def flow(fn: Callable[P, Coroutine[Any, Any, T]], /) -> Flow[P, Coroutine[Any, Any, T]]: ...
@overload
def flow(fn: Callable[P, R], /) -> Flow[P, R]: ...
@overload
def flow(**options: Unpack[FlowOptions]) -> Callable[[Callable[P, R]], Flow[P, R]]: ...
def flow(fn: Any = None, /, **options: Any) -> Any:
    """Make a flow of a function, sync or async; used as ``@flow`` or ``@flow(...)``.

    Its result is stored, if at all, under the hexadecimal id of its run.

    Parameters:
        fn: the function.
        options: see the next lines.
        name: how results call it; by default the function's name.
        persist_result: whether results of the flow and, unless they say otherwise, of its tasks are stored; None: if
            any option about results says so, else as the settings do.
        result_storage: where; anything that `resolve_result_storage` takes.
        result_serializer: turns results into payloads; a serializer or its type.
        cache_result_in_memory: keep results that were read.
    """
    return Flow(fn, options) if fn is not None else lambda function: Flow(function, options)
