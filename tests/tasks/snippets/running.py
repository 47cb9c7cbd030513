"""What programs for Prefect do with tasks and flows."""

import asyncio
from typing import Any

from pgresults import flow, task, transaction, unmapped
from pgresults.cache_policies import INPUTS
from pgresults.context import get_run_context
from pgresults.results import ResultStore
from pgresults.runtime import flow_run, task_run
from tests.tasks.snippets.table import SEE, Failure, caught, differs, refused, works


@refused(
    TypeError,
    rf"a task has no option 'retries'; instead: a retry library.* {SEE}\. Its options are name, persist_result",
)
def a_task_is_tried_again() -> None:
    task(retries=3, retry_delay_seconds=[1, 2])(print)  # type: ignore[call-overload]


@refused(TypeError, rf"a flow has no option 'log_prints'; instead: logging\.getLogger\(__name__\) {SEE}")
def prints_are_logged() -> None:
    flow(log_prints=True)(print)  # type: ignore[call-overload]


@refused(TypeError, rf"a flow has no option 'flow_run_name'; instead: name=.* {SEE}")
def runs_are_named() -> None:
    flow(flow_run_name="on-{day}")(print)  # type: ignore[call-overload]


@refused(TypeError, rf"a task has no option 'tags'; instead: tags= and provenance= of ResultStore\.write.* {SEE}")
def a_task_has_tags() -> None:
    task(tags=["database"])(print)  # type: ignore[call-overload]


@refused(TypeError, rf"a task has no option 'timeout_seconds'; instead: asyncio\.timeout.* {SEE}")
def a_task_has_a_time_out() -> None:
    task(timeout_seconds=5)(print)  # type: ignore[call-overload]


@refused(TypeError, rf"a flow has no option 'on_failure'; instead: try/except around the call.* {SEE}")
def a_hook_is_told_of_a_failure() -> None:
    flow(on_failure=[print])(print)  # type: ignore[call-overload]


@refused(TypeError, r"a task has no option 'cache_polcy'; see docs/quickstart\.md.* Its options are .*cache_policy")
def an_option_is_misspelt() -> None:
    task(cache_polcy=INPUTS)(print)  # type: ignore[call-overload]


@refused(ImportError, rf"pgresults has no get_run_logger; instead: logging\.getLogger\(__name__\) {SEE}")
def a_run_has_a_logger() -> None:
    from pgresults import get_run_logger  # noqa: F401


@refused(AttributeError, rf"has no 'submit'; instead: my_task\.map\(\.\.\.\).* {SEE}")
def a_call_is_submitted() -> None:
    task(print).submit("text").result()  # type: ignore[attr-defined]


@refused(TypeError, rf"'wait_for'; instead: the order of the calls {SEE}")
def a_call_waits_for_others() -> None:
    @task
    def add(x: int) -> int:
        return x

    add(1, wait_for=[])  # type: ignore[call-arg]


@refused(AttributeError, rf"has no 'serve'; instead: a scheduler or job queue.* {SEE}")
def a_flow_is_served() -> None:
    flow(print).serve(name="deployed")  # type: ignore[attr-defined]


@works
def a_task_is_mapped() -> None:
    @task(cache_policy=INPUTS)
    def add(x: int, y: int) -> int:
        return x + y

    @flow
    def program() -> list[int]:
        return add.map([1, 2, 3], unmapped(10))

    assert program() == [11, 12, 13]


@refused(
    AttributeError, "'list' object has no attribute 'result'", page="| `task.map(…)` | futures | a list of results"
)
def mapped_calls_are_futures() -> None:
    @task(cache_policy=INPUTS)
    def add(x: int) -> int:
        return x

    add.map([1, 2]).result()  # type: ignore[attr-defined]


@differs('are checked against their annotations and coerced: `"5"` becomes 5 | are taken as they are')
def parameters_of_flows_are_coerced() -> None:
    @flow
    def program(number: int) -> object:
        return number

    assert program("5") == "5"  # type: ignore[arg-type]


@works
def runs_know_who_they_are() -> None:
    @task
    def inner() -> tuple[Any, ...]:
        return task_run.task_name, flow_run.flow_name, get_run_context().task.name  # type: ignore[union-attr]

    @flow(name="nightly")
    def program() -> tuple[Any, ...]:
        return inner()

    assert program() == ("inner", "nightly", "inner")


@works
def async_tasks_run_together() -> None:
    @task(cache_policy=INPUTS)
    async def double(x: int) -> int:
        await asyncio.sleep(0)
        return 2 * x

    @flow(persist_result=True)
    async def program() -> list[int]:
        return await asyncio.gather(*(double(x) for x in range(3)))

    assert asyncio.run(program()) == [0, 2, 4]


@differs("raises, after everything is rolled back")
def a_commit_that_fails_is_told() -> None:
    def hook(_: Any) -> None:
        raise Failure

    def program() -> None:
        with transaction(key="fails", store=ResultStore()) as txn:
            txn.stage(1, on_commit_hooks=[hook])

    assert caught(program)
    assert not ResultStore().exists("fails")
