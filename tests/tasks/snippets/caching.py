"""What programs for Prefect do with caching."""

import threading
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pydantic import BaseModel, ConfigDict

from pgresults import flow, task, transaction
from pgresults.cache_policies import INPUTS, NO_CACHE, NONE, RUN_ID, TASK_SOURCE, CacheKeyFnPolicy, CachePolicy
from pgresults.context import TaskRunContext
from pgresults.errors import InvalidArgument
from pgresults.locking.memory import MemoryLockManager
from pgresults.results import ResultStore
from pgresults.tasks import task_input_hash
from pgresults.transactions import IsolationLevel
from tests.tasks.snippets.table import SEE, Failure, caught, differs, refused, works


@works
def source_and_inputs_make_the_key() -> None:
    ran: list[int] = []

    @task(cache_policy=TASK_SOURCE + INPUTS, cache_expiration=timedelta(days=1))
    def add(x: int) -> int:
        ran.append(x)
        return x + 42

    assert [add(1), add(1), add(2), *ran] == [43, 43, 44, 1, 2]


@works
def an_input_is_left_out() -> None:
    ran: list[int] = []

    @task(cache_policy=INPUTS - "debug")
    def add(x: int, debug: bool = False) -> int:
        ran.append(x)
        return x + 42

    assert [add(1), add(1, debug=True), *ran] == [43, 43, 1]


@works
def a_function_makes_the_key() -> None:
    @task(cache_key_fn=lambda context, parameters: f"{context.task.name}-{parameters['x']}")
    def add(x: int) -> int:
        return x + 1

    @task(cache_key_fn=task_input_hash, refresh_cache=False)
    def hashed(x: int) -> int:
        return x + 1

    assert [add(1), add(1), hashed(1), hashed(1)] == [2] * 4
    assert (add.cache_info().hits, hashed.cache_info().hits, ResultStore().exists("add-1")) == (1, 1, True)


@refused(InvalidArgument, "cache_key_fn is called, and not awaited: give a plain function")
def an_async_function_makes_the_key() -> None:
    async def key(_context: Any, _parameters: Any) -> str:
        return "k"

    task(cache_key_fn=key)(print)


@refused(InvalidArgument, r"'/path/to/keys' looks like a directory.* give Path\('/path/to/keys'\)")
def keys_are_kept_in_a_directory() -> None:
    (TASK_SOURCE + INPUTS).configure(key_storage="/path/to/keys")


@works
def one_thread_computes_for_both() -> None:
    ran: list[int] = []
    policy = INPUTS.configure(isolation_level=IsolationLevel.SERIALIZABLE, lock_manager=MemoryLockManager())

    @task(cache_policy=policy)
    def add(x: int) -> int:
        ran.append(x)
        return x + 42

    threads = [threading.Thread(target=add, args=(2,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ran == [2]


@differs("every key of a policy names the task")
def two_tasks_of_equal_inputs_have_a_key_each() -> None:
    @task(cache_policy=INPUTS)
    def one(x: int) -> int:
        return x + 42

    @task(cache_policy=INPUTS)
    def other(x: int) -> int:
        return x + 43

    assert (one(1), other(1)) == (43, 44)


@works
def nothing_is_cached_when_a_later_task_fails() -> None:
    ran: list[str] = []

    @task(cache_key_fn=lambda *_: "static-1")
    def load() -> str:
        ran.append("load")
        return "data"

    @task(cache_key_fn=lambda *_: "static-2")
    def process(data: str, fail: bool) -> int:
        if fail:
            raise Failure
        return len(data)

    @flow
    def program(fail: bool = True) -> int:
        with transaction():
            return process(data=load(), fail=fail)

    assert caught(program)
    assert program(fail=False) == program(fail=False) == 4
    assert ran == ["load", "load"]


class Closed:
    """What cannot be pickled."""

    def __getstate__(self) -> Any:
        raise TypeError("not serializable")


class Holding(BaseModel):
    """A model with such a one in it."""

    model_config = ConfigDict(arbitrary_types_allowed=True)
    name: str
    closed: Closed


@works
def what_cannot_be_hashed_has_a_key_of_its_own() -> None:
    @task(cache_policy=CacheKeyFnPolicy(cache_key_fn=lambda _, parameters: parameters["it"].name) + RUN_ID)
    def use(it: Holding) -> str:
        return it.name

    @flow
    def program() -> int:
        for _ in range(2):
            use(Holding(name="test", closed=Closed()))
        return use.cache_info().hits

    assert program() == 1


@refused(TypeError, rf"'return_state'; instead: the call returns the result or raises.* {SEE}")
def a_call_gives_a_state() -> None:
    @task(cache_policy=INPUTS)
    def add(x: int) -> int:
        return x

    add(1, return_state=True)  # type: ignore[call-arg]


@works
def a_policy_of_ones_own() -> None:
    @dataclass
    class ByDay(CachePolicy):
        day: str = "monday"

        def compute_key(self, task_ctx: TaskRunContext, inputs: Any, flow_parameters: Any, **_: Any) -> str:
            return f"{task_ctx.task.name}-{inputs['x']}-{self.day}"

    @task(cache_policy=ByDay())
    def add(x: int) -> int:
        return x + 1

    assert (add(1), ResultStore().read("add-1-monday").result) == (2, 2)


@works
def nothing_is_cached() -> None:
    ran: list[int] = []
    for policy in (NO_CACHE, NONE):

        @task(cache_policy=policy)
        def add(x: int) -> None:
            ran.append(x)

        add(1)
        add(1)
    assert ran == [1] * 4
