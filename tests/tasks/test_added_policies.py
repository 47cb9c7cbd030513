"""Sums and differences of cache policies, the caller's own among them: what each says counts."""

from dataclasses import dataclass
from typing import Any

import pytest

from pgresults import PostgresStorage, task
from pgresults.cache_policies import INPUTS, TASK_SOURCE, CachePolicy
from pgresults.tasks import explain


@dataclass
class By(CachePolicy):
    name: str

    def compute_key(self, task_ctx: Any, inputs: dict[str, Any], flow_parameters: Any, **_: Any) -> str | None:
        return None if inputs[self.name] is None else str(inputs[self.name])


class Plain(CachePolicy):
    """No dataclass: equal, as Python sees it, to every other one of its kind."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def compute_key(self, task_ctx: Any, inputs: dict[str, Any], flow_parameters: Any, **_: Any) -> str | None:
        return str(inputs[self.name])


def function_of(name: str) -> CachePolicy:
    return CachePolicy.from_cache_key_fn(lambda _, inputs: str(inputs[name]))


def by(name: str) -> CachePolicy:
    return By(name=name)


@pytest.mark.parametrize("kind", [by, Plain, function_of])
def test_each_of_a_kind_counts(storage: PostgresStorage, kind: Any) -> None:
    @task(cache_policy=kind("a") + kind("b"), result_storage=storage)
    def less(a: int, b: int) -> int:
        return a - b

    assert [less(5, 3), less(3, 5), less(5, 1), less(3, 3)] == [2, -2, 4, 0]


def test_one_that_says_nothing_keeps_its_place(storage: PostgresStorage) -> None:
    @task(cache_policy=By(name="a") + By(name="b"), result_storage=storage)
    def either(a: int | None, b: int | None) -> str:
        return f"{a} {b}"

    assert [either(1, None), either(None, 1)] == ["1 None", "None 1"]


def test_what_is_said_of_locks_has_no_part_in_a_key(storage: PostgresStorage) -> None:
    def key(policy: CachePolicy) -> str | None:
        return explain(function.with_options(cache_policy=policy), 1).key

    @task(result_storage=storage)
    def function(x: int) -> int:
        return x

    assert key(TASK_SOURCE.configure(lock_timeout=1) + TASK_SOURCE + INPUTS) == key(INPUTS + TASK_SOURCE)


@pytest.mark.parametrize("policy", [INPUTS, TASK_SOURCE, INPUTS + TASK_SOURCE, By(name="a")])
def test_what_is_said_of_locks_outlasts_a_subtraction(policy: CachePolicy) -> None:
    assert (policy.configure(lock_timeout=0.3) - "x").lock_timeout == 0.3
