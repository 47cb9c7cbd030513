"""Under which key a task stores: policies, templates, key functions."""

import threading
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import URL

from pgresults import PostgresStorage, ResultStore, flow, task
from pgresults.cache_policies import DEFAULT, FLOW_PARAMETERS, INPUTS, NO_CACHE, RUN_ID, TASK_SOURCE, CachePolicy
from pgresults.errors import ConfigurationError, InvalidArgument, SerializationError
from pgresults.settings import temporary_settings
from pgresults.tasks import explain
from tests.support.database import psycopg_url
from tests.support.listing import page
from tests.support.work import called, calls


def test_the_default_policy_is_inputs_source_and_run(storage: PostgresStorage) -> None:
    @task(result_storage=storage)
    def work(x: int) -> int:
        return int(called(x))

    @flow
    def twice() -> None:
        work(1)
        work(1)

    assert work.cache_policy == DEFAULT
    twice()
    twice()
    work(1)
    assert calls == [1, 1, 1]


def test_storage_key_templates(storage: PostgresStorage, store: ResultStore) -> None:
    @task(
        result_storage=storage,
        result_storage_key="reports/{parameters[day]}/{task_run.task_name}",
        result_serializer="json",
    )
    def report(day: str) -> dict[str, str]:
        return {"day": str(called(day))}

    assert report("monday") == report("monday")
    assert calls == ["monday"]
    assert store.read("reports/monday/report").result == {"day": "monday"}
    with pytest.raises(ConfigurationError, match="nosuch"):
        report.with_options(result_storage_key="{parameters[nosuch]}")("monday")


def test_flow_names_in_templates(storage: PostgresStorage) -> None:
    @task(result_storage=storage, result_storage_key="{flow_run.flow_name}/{parameters[x]}")
    def work(x: int) -> int:
        return x

    @flow(name="etl")
    def run() -> None:
        work(1)

    run()
    assert [row.key for row in page(storage)] == ["etl/1"]


def test_key_functions(storage: PostgresStorage) -> None:
    @task(result_storage=storage, cache_key_fn=lambda _, parameters: parameters["key"])
    def work(key: str | None) -> str | None:
        return str(called(key))

    work("a"), work("a"), work(None), work(None)
    assert calls == ["a", None, None]
    assert [row.key for row in page(storage)] == ["a"]


def _key(policy: CachePolicy, *args: Any, fn: Any = None) -> str | None:
    def work(x: Any = None, y: Any = None) -> None:
        """Do nothing."""

    return explain(task(fn or work).with_options(cache_policy=policy, persist_result=True), *args).key


@pytest.fixture
def default_database(shared_url: URL) -> Iterator[None]:
    """The settings name the test's database."""
    with temporary_settings(database_url=psycopg_url(shared_url)):
        yield


@pytest.mark.usefixtures("default_database")
class TestPolicies:
    """What goes into keys."""

    def test_inputs(self) -> None:
        assert _key(INPUTS, 1) == _key(INPUTS, 1) != _key(INPUTS, 2)
        assert _key(INPUTS - "x", 1) == _key(INPUTS - "x", 2)
        assert _key(INPUTS - "x", 1, 1) != _key(INPUTS - "x", 1, 2)
        assert _key(DEFAULT - "x" - "y", 1) != _key(INPUTS, 1)

    def test_order_does_not_matter_where_it_has_no_meaning(self) -> None:
        assert _key(INPUTS, {8, 16}) == _key(INPUTS, {16, 8})  # they collide: the sets iterate in different orders
        assert list({8, 16}) != list({16, 8})
        assert _key(INPUTS, {"a": 1, "b": 2}) == _key(INPUTS, {"b": 2, "a": 1})
        assert _key(INPUTS, [1, 2]) != _key(INPUTS, [2, 1])
        assert _key(INPUTS, 1) != _key(INPUTS, "1")

    def test_source(self) -> None:
        def one(x: int = 0) -> int:
            return x + 1

        def two(x: int = 0) -> int:
            return x + 2

        assert _key(TASK_SOURCE, fn=one) == _key(TASK_SOURCE, fn=one) != _key(TASK_SOURCE, fn=two)

    def test_runs(self) -> None:
        @flow
        def run(parameter: int, policy: CachePolicy) -> list[str | None]:
            return [_key(policy, 1), _key(policy, 1)]

        one, same = run(1, RUN_ID)
        assert one == same != run(1, RUN_ID)[0]
        assert _key(RUN_ID) != _key(RUN_ID)
        assert run(1, FLOW_PARAMETERS) == run(1, FLOW_PARAMETERS) != run(2, FLOW_PARAMETERS)
        assert _key(FLOW_PARAMETERS) is None
        assert _key(NO_CACHE) is None

    @pytest.mark.parametrize("policy", [INPUTS, RUN_ID, FLOW_PARAMETERS, INPUTS + RUN_ID], ids=str)
    def test_tasks_do_not_take_each_others_results(self, policy: CachePolicy) -> None:
        def one(x: int = 0) -> int:
            return x + 1

        def two(x: int = 0) -> int:
            return x + 2

        @flow
        def run() -> list[str | None]:
            return [_key(policy, 1, fn=function) for function in (one, one, two)]

        first, same, other = run()
        assert first == same != other
        renamed = task(one).with_options(name="other", cache_policy=INPUTS, persist_result=True)
        assert explain(renamed, 1).key == _key(INPUTS, 1, fn=one)

    def test_sums(self) -> None:
        assert _key(INPUTS + TASK_SOURCE, 1) == _key(TASK_SOURCE + INPUTS, 1)
        assert INPUTS + NO_CACHE == INPUTS == NO_CACHE + INPUTS
        serializable = INPUTS.configure(isolation_level="SERIALIZABLE")
        assert (serializable + TASK_SOURCE).isolation_level == "SERIALIZABLE"
        with pytest.raises(InvalidArgument, match="isolation_level"):
            serializable + INPUTS.configure(isolation_level="READ_COMMITTED")
        with pytest.raises(TypeError):
            INPUTS + "name"
        with pytest.raises(InvalidArgument, match=r"SERIALIZABLE, not 'SERIALISABLE'"):
            INPUTS.configure(isolation_level="SERIALISABLE")
        with pytest.raises(ConfigurationError, match=r"storage\.lock_manager\(\)"):
            INPUTS.configure(lock_manager="postgres")  # type: ignore[arg-type]

    def test_an_input_that_cannot_be_hashed_is_named(self) -> None:
        with pytest.raises(SerializationError, match=r"input 'x' of 'work'.*INPUTS - "):
            _key(INPUTS, threading.Lock())


def test_explain_says_what_would_happen(storage: PostgresStorage) -> None:
    @task(cache_policy=INPUTS + TASK_SOURCE, result_storage=storage)
    def work(x: int) -> int:
        return int(called(x))

    before = explain(work, 1)
    assert not before.hit
    assert "never written" in before.reason
    assert set(before.parts) == {"task", "input x", "task source"}
    work(1)
    after = explain(work, 1)
    assert (after.hit, after.key) == (True, before.key)
    assert "refresh_cache" in explain(work.with_options(refresh_cache=True), 1).reason
    assert explain(work.with_options(persist_result=False), 1).key is None
    with pytest.raises(TypeError, match="not of a function"):
        explain(work.fn, 1)  # type: ignore[arg-type]
    assert calls == [1]


def test_key_storage_apart(storage: PostgresStorage, shared_url: URL) -> None:
    keys = PostgresStorage(shared_url, f"keys-{uuid4().hex}")

    @task(
        result_storage=storage,
        cache_policy=INPUTS.configure(key_storage=keys),
        result_storage_key="payload/{parameters[x]}",
    )
    def work(x: int) -> int:
        return int(called(x))

    assert [work(1), work(1)] == [1, 1]
    assert calls == [1]
    assert [row.key for row in page(storage)] == ["payload/1"]
    assert [row.key for row in page(keys)] == [explain(work, 1).key]
