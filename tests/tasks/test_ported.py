"""Names that code written for Prefect imports, under the modules that it finds them in."""

from typing import Any, get_args

import pytest

from pgresults import flow, task
from pgresults.cache_policies import NO_CACHE, NONE, CachePolicy
from pgresults.context import FlowRunContext, TaskRunContext, get_run_context
from pgresults.errors import InvalidArgument, MissingContextError
from pgresults.results import ResultSerializer, ResultStorage, ResultStore
from pgresults.runtime import flow_run, task_run
from pgresults.serializers import Serializer
from pgresults.storage import PostgresStorage
from pgresults.tasks import task_input_hash, unmapped


def test_the_names_are_there() -> None:
    assert NONE is NO_CACHE
    assert set(get_args(ResultSerializer)) == {Serializer, str}
    assert PostgresStorage in get_args(ResultStorage)
    assert unmapped(1)


def test_what_is_known_of_the_runs_around(storage: PostgresStorage) -> None:
    @task(persist_result=False)
    def inner(number: int) -> Any:
        assert get_run_context() is TaskRunContext.get()
        return task_run.id, task_run.name, task_run.task_name, task_run.parameters, flow_run.flow_name

    @flow(name="nightly")
    def outer(day: int) -> Any:
        context = get_run_context()
        assert context is FlowRunContext.get()
        assert (flow_run.id, flow_run.name) == (str(context.flow_run.id), context.flow_run.name)
        return flow_run.flow_name, flow_run.parameters, inner(2)

    name, parameters, (run_id, run_name, task_name, task_parameters, around) = outer(5)
    assert (name, parameters, task_name, task_parameters) == ("nightly", {"day": 5}, "inner", {"number": 2})
    assert isinstance(run_id, str)
    assert (run_name.startswith("inner-"), around) == (True, "nightly")


def test_outside_of_runs_nothing_is_known() -> None:
    assert (flow_run.id, flow_run.flow_name, flow_run.parameters) == (None, None, {})
    assert (task_run.id, task_run.task_name, task_run.parameters) == (None, None, {})
    with pytest.raises(MissingContextError):
        get_run_context()
    with pytest.raises(AttributeError, match=r"flow_name, id, name, parameters, not 'tags'"):
        _ = flow_run.tags


def test_inputs_as_a_key_function(storage: PostgresStorage) -> None:
    @task(result_storage=storage, cache_key_fn=task_input_hash)
    def double(number: int) -> int:
        return 2 * number

    @task(result_storage=storage, cache_key_fn=task_input_hash)
    def triple(number: int) -> int:
        return 3 * number

    assert [double(1), double(1), triple(1)] == [2, 2, 3]
    assert (double.cache_info()[:2], triple.cache_info()[:2]) == ((1, 1), (0, 1))
    assert double.task_key == double.identity != triple.task_key


class Awaited:
    async def __call__(self, *_: Any) -> str:
        return "k"


class Own(CachePolicy):
    async def compute_key(self, *_: Any, **__: Any) -> str:  # type: ignore[override]
        return "k"


async def key(*_: Any) -> str:
    return "k"


@pytest.mark.parametrize("of", [key, Awaited(), Awaited().__call__])
def test_what_makes_a_key_is_not_awaited(of: Any) -> None:
    for use in (lambda: task(cache_key_fn=of)(print), lambda: CachePolicy.from_cache_key_fn(of)):
        with pytest.raises(InvalidArgument, match="cache_key_fn is called, and not awaited"):
            use()
    with pytest.raises(Exception, match="storage_key_fn is called, and not awaited"):
        ResultStore(storage_key_fn=of)
    with pytest.raises(InvalidArgument, match="compute_key of Own is called, and not awaited"):
        Own()
