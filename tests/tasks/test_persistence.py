"""Whether results are stored: as a task or flow says, else as the run around; and what a task says of it in the log."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pgresults import PostgresStorage, flow, should_persist_result, task
from pgresults.cache_policies import DEFAULT, INPUTS, NO_CACHE, RUN_ID
from pgresults.errors import InvalidArgument
from pgresults.settings import temporary_settings
from tests.support.database import psycopg_url
from tests.support.listing import page


@pytest.fixture(autouse=True)
def _default(storage: PostgresStorage) -> Iterator[None]:
    """What says nothing of a storage finds the test's database."""
    with temporary_settings(database_url=psycopg_url(storage.database.url())):
        yield


def _made(kind: str, persist: bool | None, inside: Callable[[], Any]) -> Callable[[], Any]:
    return (flow if kind == "flow" else task)(lambda: (should_persist_result(), inside()), persist_result=persist)


@pytest.mark.parametrize("inner", ["flow", "task"])
@pytest.mark.parametrize("outer", ["flow", "task"])
@pytest.mark.parametrize("said", [True, False])
def test_what_is_inside_takes_it_over(outer: str, inner: str, said: bool) -> None:
    leaf = _made("task", None, should_persist_result)
    middle = _made(inner, None, leaf)
    assert _made(outer, said, middle)() == (said, (said, (said, said)))
    contrary = _made(inner, not said, leaf)
    assert _made(outer, said, contrary)() == (said, (not said, (not said, not said)))
    assert _made(outer, None, middle)() == (False, (False, (False, False)))
    with temporary_settings(results__persist_by_default=True):
        assert _made(outer, None, middle)() == (True, (True, (True, True)))


def test_a_subflow_is_stored_with_its_flow(storage: PostgresStorage) -> None:
    @flow
    def inner() -> int:
        return 1

    @flow(result_storage=storage)
    def outer() -> int:
        return inner()

    outer()
    assert len(page(storage)) == 2
    outer.with_options(persist_result=False)()
    assert len(page(storage)) == 2


def test_after_a_run_inside_the_outer_one_counts_again() -> None:
    @task(persist_result=False)
    def quiet() -> bool:
        return should_persist_result()

    @flow(persist_result=True)
    def run() -> list[bool]:
        return [should_persist_result(), quiet(), should_persist_result()]

    assert run() == [True, False, True]
    assert should_persist_result() is False


@pytest.mark.parametrize("make", [task, flow])
@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("persist_result", "yes"),
        ("persist_result", 1),
        ("persist_result", []),
        ("cache_result_in_memory", "no"),
        ("name", 5),
        ("name", ""),
        ("result_storage", 5),
        ("result_serializer", 5),
    ],
)
def test_a_value_of_another_kind_is_refused(make: Any, option: str, value: Any) -> None:
    with pytest.raises(InvalidArgument, match=f"{option} of a {make.__name__}") as refused:
        make(**{option: value})(print)
    assert (refused.value.argument, refused.value.value) == (option, value)
    with pytest.raises(InvalidArgument, match=option):
        make(print).with_options(**{option: value})
    assert getattr(make(**{option: None})(print), option) in (None, "print", True)


@pytest.mark.parametrize(
    ("option", "value"),
    [("refresh_cache", "no"), ("refresh_cache", 0), ("cache_key_fn", "k"), ("result_storage_key", 1)],
)
def test_a_value_of_another_kind_is_refused_for_tasks(option: str, value: Any) -> None:
    with pytest.raises(InvalidArgument, match=option):
        task(**{option: value})(print)  # type: ignore[call-overload]


def test_what_can_never_be_found_says_so_once(storage: PostgresStorage, caplog: Any) -> None:
    @task
    def bare() -> int:
        return 1

    def said(*calls: Callable[[], Any]) -> list[tuple[int, str]]:
        caplog.clear()
        for call in calls:
            call()
        return [(record.levelno, record.getMessage().partition(":")[0]) for record in caplog.records]

    caplog.set_level(logging.INFO, "pgresults.tasks")
    [not_stored] = said(bare, bare, bare.with_options(name="other"))
    assert not_stored == (logging.INFO, "the results of bare are not stored, so every call runs")
    never = (logging.WARNING, "the results of bare are stored, but never found again")
    again = bare.with_options(result_storage=storage)
    assert again.cache_policy == DEFAULT
    assert said(again, again, bare.with_options(persist_result=True)) == [never]

    def named() -> None:
        """Do nothing."""

    assert len(said(task(named, result_storage=storage, cache_policy=RUN_ID + INPUTS))) == 1
    in_a_flow = task(lambda: 1, result_storage=storage)
    assert said(flow(lambda: in_a_flow())) == []
    for quiet in (
        task(lambda: 1, persist_result=False),
        task(lambda: 1, result_storage=storage, cache_policy=NO_CACHE),
        task(lambda: 1, result_storage=storage, cache_policy=INPUTS),
    ):
        assert said(quiet) == []


@pytest.mark.parametrize("level", [logging.DEBUG, logging.INFO])
def test_hits_and_misses_are_logged_for_who_debugs(storage: PostgresStorage, caplog: Any, level: int) -> None:
    @task(result_storage=storage, result_storage_key="k")
    def work() -> int:
        return 1

    caplog.set_level(level, "pgresults.tasks")
    work()
    work()
    assert [record.getMessage() for record in caplog.records] == (
        ["miss: work under 'k'", "hit: work under 'k'"] if level == logging.DEBUG else []
    )
