"""Policies: inputs left out of a sum, policies of one's own, names of runs in templates."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import URL

from pgresults import PostgresStorage, ResultStore, flow, task
from pgresults.cache_policies import (
    DEFAULT,
    FLOW_PARAMETERS,
    INPUTS,
    NO_CACHE,
    RUN_ID,
    TASK_SOURCE,
    CachePolicy,
    CompoundCachePolicy,
    Inputs,
)
from pgresults.context import FlowRunContext, TaskRunContext
from pgresults.errors import ConfigurationError, InvalidArgument, InvalidKey
from pgresults.settings import temporary_settings
from pgresults.tasks import Task, aexplain, explain
from tests.support.database import psycopg_url
from tests.support.work import called, calls


@pytest.fixture(autouse=True)
def default_database(shared_url: URL) -> Iterator[None]:
    """The settings name the test's database."""
    with temporary_settings(database_url=psycopg_url(shared_url)):
        yield


def work(x: Any = None, y: Any = None) -> Any:
    """Do something."""
    return called((x, y))


def other(x: Any = None, y: Any = None) -> Any:
    """Do the same."""
    return called((x, y))


def task_of(policy: CachePolicy, fn: Any = work, **options: Any) -> Task[..., Any]:
    """A task of a policy."""
    return task(fn).with_options(cache_policy=policy, **options)


def key(policy: CachePolicy, *args: Any, fn: Any = work) -> str | None:
    """The key of a call."""
    return explain(task_of(policy, fn), *args).key


@pytest.mark.parametrize(
    "policy",
    [
        INPUTS - "x",
        (INPUTS - "x") + INPUTS,
        INPUTS + (INPUTS - "x"),
        (INPUTS + TASK_SOURCE) - "x",
        (TASK_SOURCE - "x") + INPUTS,
        (TASK_SOURCE + FLOW_PARAMETERS - "x") + (INPUTS + TASK_SOURCE),
        CompoundCachePolicy(policies=(INPUTS, Inputs(exclude=frozenset({"x"})))),
        (NO_CACHE - "x") + (INPUTS - "x"),
        INPUTS.configure(isolation_level="READ_COMMITTED") - "x" + INPUTS,
    ],
)
def test_an_input_that_is_left_out_is_left_out_everywhere(policy: CachePolicy) -> None:
    assert key(policy, 1, 1) == key(policy, 2, 1) != key(policy, 1, 2)
    assert not any("x" in name for name in explain(task_of(policy), 1, 2).parts)
    with pytest.raises(InvalidArgument, match=r"leaves out 'x', which is none of its inputs: z") as caught:
        task(lambda z: z).with_options(cache_policy=policy)
    assert caught.value.value == "x"


def test_sums_are_equal_whatever_the_order_and_repetition() -> None:
    assert key(INPUTS + TASK_SOURCE, 1) == key(TASK_SOURCE + INPUTS, 1) == key(INPUTS + TASK_SOURCE + TASK_SOURCE, 1)
    assert key(INPUTS + INPUTS, 1) == key(INPUTS, 1)
    assert key(TASK_SOURCE - "x", 1) == key(TASK_SOURCE, 1)
    assert (INPUTS - "x") - "x" == INPUTS - "x" != INPUTS
    assert (INPUTS.configure(isolation_level="SERIALIZABLE") - "x").isolation_level == "SERIALIZABLE"
    assert ((TASK_SOURCE + RUN_ID).configure(isolation_level="SERIALIZABLE") - "x").isolation_level == "SERIALIZABLE"
    assert NO_CACHE - "x" == NO_CACHE
    with pytest.raises(TypeError, match="not int"):
        TASK_SOURCE - 1  # type: ignore[operator]


class ByX(CachePolicy):
    """A plain subclass, with Prefect's signature."""

    def compute_key(
        self, task_ctx: TaskRunContext, inputs: dict[str, Any], flow_parameters: dict[str, Any], **kwargs: Any
    ) -> str | None:
        """The first input; None: not cached."""
        assert task_ctx.parameters.keys() == inputs.keys() == {"x", "y"}
        value = inputs.pop("x")  # what it does to them is nobody else's
        return None if value is None else f"x={value} {flow_parameters.get('day', 'no day')}"


@dataclass
class Prefixed(CachePolicy):
    """A dataclass with a field of its own."""

    prefix: str = ""

    def compute_key(
        self, task_ctx: TaskRunContext, inputs: dict[str, Any], flow_parameters: dict[str, Any], **kwargs: Any
    ) -> str | None:
        """Prefix and first input."""
        return f"{self.prefix}{inputs['x']}"


class Salted(Inputs):
    """One of ours, changed."""

    def compute_key(
        self, task_ctx: TaskRunContext, inputs: dict[str, Any], flow_parameters: dict[str, Any], **kwargs: Any
    ) -> str | None:
        """The key of some inputs, with salt."""
        known = super().compute_key(task_ctx, {"x": inputs["x"]}, flow_parameters)
        return f"salt-{known}"


class Initialised(CachePolicy):
    """Somebody's own initialiser, which does not know ours."""

    def __init__(self, number: int) -> None:
        self.number = number

    def compute_key(self, ctx: Any, given: Any, flow: Any) -> str | None:
        """Names do not matter."""
        return f"{self.number}-{given['x']}"


def test_policies_of_ones_own_alone_make_the_key_as_it_is(storage: PostgresStorage, store: ResultStore) -> None:
    assert key(ByX(), 1) == "x=1 no day"
    assert key(ByX(), None) is None
    assert key(Prefixed(prefix="a/"), 1) == "a/1"
    assert key(Initialised(3), 1) == "3-1"
    assert str(key(Salted(), 1, 1)).startswith("salt-")
    assert key(Salted(), 1, 1) == key(Salted(), 1, 2) != key(Salted(), 2, 1)

    @flow
    def daily(day: str) -> str | None:
        return key(ByX(), 1)

    assert daily("monday") == "x=1 monday"
    cached = task_of(Prefixed(prefix="a/", isolation_level="READ_COMMITTED"), result_storage=storage)
    assert [cached(1, 2), cached(1, 3), cached(2, 2)] == [(1, 2), (1, 2), (2, 2)]
    assert calls == [(1, 2), (2, 2)]
    assert store.read("a/1").result == (1, 2)


@pytest.mark.parametrize(
    "policy", [ByX(), Prefixed(prefix="a/"), Initialised(3), Salted()], ids=lambda p: type(p).__name__
)
def test_policies_of_ones_own_in_a_sum(policy: CachePolicy) -> None:
    for both in (policy + TASK_SOURCE, TASK_SOURCE + policy, (policy + INPUTS) - "y"):
        assert key(both, 1, 1) == key(both, 1, 2) != key(both, 2, 1)
        assert key(both, 1) != key(both, 1, fn=other)  # whose task it is belongs to it
        assert key(both, 1) != key(policy, 1)
        parts = explain(task_of(both), 1).parts
        assert {"task", f"policy {type(policy).__name__}"} <= parts.keys()
    configured = policy.configure(isolation_level="SERIALIZABLE")
    assert configured.isolation_level == "SERIALIZABLE"
    assert policy.isolation_level is None
    assert type(configured) is type(policy)


async def test_policies_of_ones_own_are_explained() -> None:
    told = await aexplain(task_of(ByX()), 1)
    assert (told.key, told.parts) == ("x=1 no day", {"policy ByX": "x=1 no day"})
    await asyncio.sleep(0)


def test_two_policies_of_one_class_in_a_sum() -> None:
    a, b = Prefixed(prefix="a"), Prefixed(prefix="b")
    assert len({key(a + b, 1), key(b + a, 1), key(a, 1), key(a + INPUTS, 1)}) == 4
    assert key(a + a, 1) == key(a + Prefixed(prefix="a"), 1) != key(a + b, 1)


def test_what_gives_no_key_is_refused() -> None:
    class Numbered(CachePolicy):
        def compute_key(self, *_: Any, **__: Any) -> Any:
            return 1

    with pytest.raises(InvalidKey, match="not a str"):
        key(Numbered(), 1)
    with pytest.raises(InvalidKey, match="policy Numbered gave no key: it is a int"):
        key(Numbered() + INPUTS, 1)
    with pytest.raises(NotImplementedError, match="CachePolicy has no method compute_key"):
        key(CachePolicy(), 1)
    with pytest.raises(InvalidArgument, match="isolation_level"):
        Prefixed(prefix="a", isolation_level="SOMETIMES")  # type: ignore[arg-type]


def test_runs_have_names_of_their_own(storage: PostgresStorage, store: ResultStore) -> None:
    names: list[str] = []

    @task(result_storage=storage, result_storage_key="{flow_run.name}__{task_run.name}")
    def named(x: int) -> int:
        run, outer = TaskRunContext.get(), FlowRunContext.get()
        assert run is not None
        assert outer is not None
        names.append(f"{outer.flow_run.name}__{run.task_run.name}")
        assert (run.task_run.task_name, outer.flow_run.flow_name) == ("named", "etl")
        return x

    @flow(name="etl")
    def run() -> tuple[int, int]:
        return named(1), named(2)

    assert [run(), run()] == [(1, 2), (1, 2)]
    assert len(set(names)) == 4
    assert all(name.startswith("etl-") and "__named-" in name for name in names)
    assert [store.read(name).result for name in names] == [1, 2, 1, 2]


def test_templates_are_told_what_to_name() -> None:
    wrong = task(work).with_options(result_storage_key="{nosuch}")
    with pytest.raises(ConfigurationError, match=r"\{parameters\[x\]\}.*names a run.* is never met again"):
        explain(wrong, 1)


def test_the_default_is_for_one_run() -> None:
    assert DEFAULT - "x" == DEFAULT - "x" != DEFAULT

    @flow
    def run(x: int) -> str | None:
        return key(DEFAULT - "x", x)

    assert run(1) != run(1)
