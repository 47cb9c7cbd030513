"""Whose results a task finds: same names, closures, decorators, methods."""

import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any, Self, overload

import cloudpickle
import pytest
from pydantic import BaseModel, ConfigDict, PrivateAttr
from sqlalchemy import URL

from pgresults import PostgresStorage, flow, task, transaction
from pgresults.cache_policies import INPUTS, TASK_SOURCE
from pgresults.errors import InvalidArgument, SerializationError
from pgresults.settings import temporary_settings
from pgresults.tasks import Task, explain
from tests.support.database import psycopg_url
from tests.support.work import called, calls

Adder = Callable[[int], int]


@pytest.fixture(autouse=True)
def default_storage(shared_url: URL, storage: PostgresStorage) -> Iterator[None]:
    """The settings name the test's storage."""
    with temporary_settings(database_url=psycopg_url(shared_url), results__default_storage=storage.name):
        storage.save(storage.name)
        yield


def cached(fn: Any) -> Any:
    """A task of a function, whose key is made of its inputs."""
    return task(fn).with_options(cache_policy=INPUTS)


def plain(x: int = 1) -> int:
    """A function of a name that leads to it."""
    return x


@overload
def several(x: int) -> int: ...
@overload
def several(x: str) -> str: ...
@cached
def several(x: Any) -> Any:
    """A function that is declared three times and defined once."""
    return x


def doubled(fn: Adder) -> Adder:
    """A decorator without wraps."""

    def double(x: int) -> int:
        return 2 * fn(x)

    return double


def times(number: int, lock: Any = None) -> Callable[[Adder], Adder]:
    """A decorator with wraps, which keeps a number and a lock."""

    def decorate(fn: Adder) -> Adder:
        @wraps(fn)
        def multiply(x: int) -> int:
            with lock or threading.Lock():
                return number * fn(x)

        return multiply

    return decorate


@cached
@times(3, threading.Lock())
def tripled(x: int) -> int:
    """A function of a name, below a decorator."""
    return x


def local(x: int) -> int:
    """A function that others are local to."""
    return x


def adder(number: Any) -> Any:
    """A task that closes over a number."""

    @cached
    def add(x: int) -> Any:
        return number, x

    return add


def test_a_name_that_leads_to_the_function_is_its_identity() -> None:
    assert cached(plain).identity == f"{__name__}:plain"
    assert several.identity == f"{__name__}:several"
    assert Report.rows.identity == f"{__name__}:Report.rows"
    assert task(math.floor).identity == "math:floor"
    assert tripled.identity.startswith(f"{__name__}:tripled#")


def test_what_a_function_closes_over_belongs_to_it() -> None:
    assert adder(1).identity == adder(1).identity != adder(2).identity
    assert adder(1)(10) != adder(2)(10)
    assert adder(1).identity != adder(1.0).identity != adder(True).identity
    assert adder(plain).identity != adder(local).identity
    assert adder(lambda: 1).identity != adder(lambda: 2).identity


def test_lambdas_and_partials_and_instances() -> None:
    one, two = cached(lambda x: x + 1), cached(lambda x: x + 2)
    assert one.identity != two.identity
    assert one.code_hash != two.code_hash
    assert (one(1), two(1)) == (2, 3)
    assert (
        cached(partial(plain, 1)).identity == cached(partial(plain, 1)).identity != cached(partial(plain, 2)).identity
    )
    assert cached(Scale(2)).identity == cached(Scale(2)).identity != cached(Scale(3)).identity
    assert (cached(Scale(2))(5), cached(Scale(3))(5)) == (10, 15)


def test_decorators() -> None:
    assert cached(doubled(plain)).identity != cached(doubled(local)).identity
    assert cached(doubled(plain))(2) == 4
    assert cached(plain)(2) == 2
    assert cached(times(2)(plain)).identity != cached(times(3)(plain)).identity != cached(plain).identity
    assert cached(times(2)(plain)).identity == cached(times(2)(plain)).identity
    assert tripled(2) == 6


def test_one_definition_that_runs_several_times() -> None:
    tasks = []
    for number in (1, 2):

        @cached
        def scale(x: int, number: int = number) -> int:
            return x * number

        tasks.append(scale)
        assert scale(7) == 7 * number
    assert tasks[0].identity != tasks[1].identity


def test_a_variable_counts_when_it_holds_another_object() -> None:
    number = 1
    seen: list[int] = []

    @cached
    def add(x: int) -> int:
        seen.append(x)
        return x + number

    first = add.identity
    assert add(1) == add(1) == 2
    assert seen == [1]  # what is kept in a list makes no other function of it
    number = 2
    assert add(1) == 3
    assert add.identity != first
    number = 1
    assert add.identity == first


def test_a_counter_of_the_functions_own_does_not_count() -> None:
    count = 0

    @cached
    def work(x: int) -> int:
        def one_more() -> None:
            nonlocal count
            count += 1

        one_more()
        return x

    assert [work(1), work(1)] == [1, 1]
    assert count == 1


def test_a_function_that_calls_itself() -> None:
    def factorial() -> Any:
        @cached
        def inner(n: int) -> int:
            called(n)
            return 1 if n == 0 else n * int(inner(n - 1))

        return inner

    assert factorial().identity == factorial().identity
    assert [factorial()(3), factorial()(3)] == [6, 6]
    assert calls == [3, 2, 1, 0]


def test_what_has_no_stable_digest_is_refused_when_a_key_is_made() -> None:
    lock = threading.Lock()
    add = adder(lock)
    assert add.with_options(persist_result=False, cache_policy=None)(1) == (lock, 1)
    with pytest.raises(SerializationError, match=r"adder\.<locals>\.add .*lock.* Give that as a parameter"):
        add(1)
    assert tripled.identity  # a lock of a decorator's, where a name says which function it is


def test_the_source_digest_says_what_runs() -> None:
    assert task(plain).code_hash == task(plain).code_hash != task(local).code_hash
    assert task(times(2)(plain)).code_hash != task(plain).code_hash
    names: dict[str, Any] = {}
    exec("def made(x=1): return x", names)
    exec("def other(x=2): return x", names)
    assert task(names["made"]).code_hash != task(names["other"]).code_hash
    assert cached(names["made"]).identity != cached(names["other"]).identity


def in_cell(code: str, notebook: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A task of a function that a notebook's cell defines."""
    monkeypatch.setenv("JPY_SESSION_NAME", notebook)
    names: dict[str, Any] = {"__name__": "__main__", "get_ipython": None}
    exec(compile(code, f"/tmp/ipykernel_{len(calls)}/1.py", "exec"), names)
    calls.append(code)
    names["load"] = cached(names["load"])
    return names["load"]


def test_cells_of_notebooks(monkeypatch: pytest.MonkeyPatch) -> None:
    code, edited = "def load(x): return x", "def load(x): return -x"
    first = in_cell(code, "/a.ipynb", monkeypatch)
    assert first.identity.startswith("/a.ipynb:load#")
    assert in_cell(code, "/a.ipynb", monkeypatch).identity == first.identity
    assert in_cell(edited, "/a.ipynb", monkeypatch).identity != first.identity
    assert in_cell(code, "/b.ipynb", monkeypatch).identity != first.identity


def install(number: int) -> Any:
    """Bind a name of the module anew."""
    global installed

    @cached
    def installed(x: int) -> int:
        return x * number

    return installed


def test_a_name_that_is_bound_anew_by_a_function() -> None:
    one = install(2)
    assert one(5) == 10
    assert install(3)(5) == 15


def test_the_order_in_which_tasks_of_one_factory_are_used_does_not_matter() -> None:
    numbers = [1]
    first = adder(numbers)
    numbers.append(2)
    second = adder(numbers)
    assert second.identity != first.identity  # each as it was when the task was made
    assert first.identity == adder([1]).identity


class Scale:
    """Something that can be called."""

    def __init__(self, by: int) -> None:
        self.by = by

    def __call__(self, x: int) -> int:
        return self.by * x


@dataclass
class Report:
    """Rows with a name."""

    name: str

    @cached
    def rows(self, x: int) -> tuple[str, int]:
        """The name is a part of the result."""
        return str(called(self.name)), x

    @classmethod
    @cached
    def made(cls, x: int) -> tuple[str, int]:
        """The class is a part of the result."""
        return str(called(cls.__name__)), x

    @cached
    @classmethod
    def remade(cls, x: int) -> tuple[str, int]:
        """The class is a part of the result."""
        return str(called(cls.__name__)), x

    @cached
    @staticmethod
    def static(x: int) -> int:
        """Neither instance nor class."""
        return int(called(x))

    def copied(self) -> Self:
        """An equal one."""
        return type(self)(self.name)


class Summary(Report):
    """A report of a class of its own."""

    @cached
    def rows(self, x: int) -> tuple[str, int]:
        """More than the rows."""
        return super().rows(x)


def test_an_instance_is_an_input() -> None:
    may, june = Report("may"), Report("june")
    assert [may.rows(1), june.rows(1), may.rows(x=1), may.copied().rows(1)] == [
        ("may", 1),
        ("june", 1),
        ("may", 1),
        ("may", 1),
    ]
    assert calls == ["may", "june"]
    assert Report.rows(may, 1) == ("may", 1)
    assert Summary("may").rows(1) == ("may", 1)
    assert calls == ["may", "june", "may"]
    assert set(explain(may.rows, 1).parts) == {"task", "input self", "input x"}
    may.name = "july"
    assert may.rows(1) == ("july", 1)


@pytest.mark.parametrize("name", ["made", "remade"])
def test_a_class_is_an_input(name: str) -> None:
    assert [getattr(cls, name)(1) for cls in (Report, Summary, Report)] == [
        ("Report", 1),
        ("Summary", 1),
        ("Report", 1),
    ]
    assert getattr(Report("may"), name)(1) == ("Report", 1)
    assert calls == ["Report", "Summary"]
    assert explain(getattr(Report, name), 1).hit


class Settings(BaseModel):
    """A model with a task."""

    model_config = ConfigDict(ignored_types=(Task,))
    factor: int = 1
    _salt: int = PrivateAttr(default=0)

    @cached
    def scaled(self, x: int) -> int:
        """What a model holds is a part of the key."""
        return int(called(x)) * self.factor + self._salt


def test_models_are_instances_too() -> None:
    salted = Settings()
    salted._salt = 1
    assert [Settings().scaled(2), Settings(factor=1).scaled(2), Settings(factor=2).scaled(2), salted.scaled(2)] == [
        2,
        2,
        4,
        3,
    ]
    assert calls == [2, 2, 2]


def test_classes_made_in_functions() -> None:
    def make(factor: int) -> Any:
        class Base:
            @cached
            def scaled(self, x: int) -> int:
                return int(called(x)) * factor

        class Local(Base):
            @cached
            def scaled(self, x: int) -> int:
                return super().scaled(x) + 1

        return Local()

    assert [make(2).scaled(5), make(3).scaled(5), make(2).scaled(5)] == [11, 16, 11]
    assert calls == [5, 5]


def test_static_methods_have_neither() -> None:
    assert [Report.static(1), Report("may").static(1)] == [1, 1]
    assert calls == [1]


def test_a_bound_task_is_the_same_task() -> None:
    seen = []

    class Local:
        @cached
        def rows(self, x: int) -> int:
            return x

    Local.rows.on_commit(lambda _: seen.append("commit"))
    bound = Local().rows
    assert bound(1) == 1
    assert seen == ["commit"]
    assert bound.with_options(refresh_cache=True)(1) == 1
    assert bound.on_rollback(lambda _: seen.append("rollback"))
    with transaction() as outer:
        Local.rows(Local(), 2)
        outer.rollback()
    assert seen == ["commit", "commit", "rollback"]
    assert bound.identity == Local.rows.identity
    assert cloudpickle.loads(cloudpickle.dumps(bound)).identity == bound.identity


def test_the_method_of_an_instance_as_a_task() -> None:
    may, june = cached(Report("may").copied), cached(Report("june").copied)
    assert [may(), june()] == [Report("may"), Report("june")]
    tasks = [Report("may").rows, Report("may").rows.with_options(name="other")]
    assert [cloudpickle.loads(cloudpickle.dumps(one))(1) for one in tasks] == [("may", 1)] * 2
    assert Report("may").rows.map([1, 2]) == [("may", 1), ("may", 2)]


def test_an_instance_of_which_no_key_can_be_made() -> None:
    class Connected:
        def __init__(self) -> None:
            self.lock = threading.Lock()

        @cached
        def rows(self, x: int) -> int:
            return int(called(x))

        @task(cache_policy=INPUTS - "self")
        def free(self, x: int) -> int:
            return int(called(x))

    with pytest.raises(SerializationError, match=r"'self' of 'rows'.*lock.*INPUTS - \"self\""):
        Connected().rows(1)
    assert [Connected().free(1), Connected().free(1)] == [1, 1]
    assert calls == [1]


def test_a_task_of_a_task_runs_both() -> None:
    inner: Task[..., int] = task(plain).with_options(cache_policy=INPUTS + TASK_SOURCE)
    outer = flow(inner)
    assert outer.fn is inner
    assert outer(1) == 1
    assert explain(inner, 1).hit


def test_a_sentinel_or_lock_that_is_a_default_does_not_matter() -> None:
    missing = object()

    @cached
    def work(x: int, given: object = missing, lock: Any = threading.Lock()) -> int:  # noqa: B008
        return int(called(x))

    with pytest.raises(SerializationError, match="was made with"):  # it is local, and so its defaults tell what it is
        work(1)
    assert [with_sentinel(1), with_sentinel(1)] == [1, 1]
    assert calls == [1]
    with pytest.raises(SerializationError, match=r"'given' of 'with_sentinel'.*bare object"):
        with_sentinel(1, object())


@cached
def with_sentinel(x: int, given: object = object()) -> int:
    """Somebody may tell whether something was given."""
    return int(called(x))


def test_an_input_to_leave_out_must_be_one() -> None:
    with pytest.raises(InvalidArgument, match=r"leaves out 'y', which is none of its inputs: x"):
        task(plain).with_options(cache_policy=INPUTS - "y")
