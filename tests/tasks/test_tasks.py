"""Tasks: what is computed, what is read, and what is stored."""

import asyncio
import threading
from datetime import timedelta
from typing import Any

import pytest

from pgresults import PostgresStorage, ResultStore, flow, task, transaction
from pgresults.cache_policies import INPUTS, NO_CACHE
from pgresults.context import FlowRunContext, TaskRunContext
from pgresults.errors import InvalidArgument, MissingResult
from pgresults.tasks import aexplain
from tests.support.listing import page
from tests.support.work import called, calls


def test_a_live_result_is_returned_without_running(storage: PostgresStorage) -> None:
    @task(cache_policy=INPUTS, result_storage=storage)
    def double(x: int, by: int = 2) -> int:
        return int(called(x)) * by

    assert [double(1), double(1), double(x=1), double(1, by=2), double(2)] == [2, 2, 2, 2, 4]
    assert calls == [1, 2]
    assert double(1, by=3) == 3


async def test_async_tasks_do_the_same(storage: PostgresStorage) -> None:
    @task(cache_policy=INPUTS, result_storage=storage)
    async def double(x: int) -> int:
        await asyncio.sleep(0)
        return int(called(x)) * 2

    assert [await double(1), await double(1)] == [2, 2]
    assert calls == [1]
    explanation = await aexplain(double, 1)
    assert explanation.hit
    await storage.aclose()


def test_an_exception_is_never_a_result(storage: PostgresStorage) -> None:
    @task(cache_policy=INPUTS, result_storage=storage)
    def fail(x: int) -> int:
        called(x)
        raise KeyError(x)

    for _ in range(2):
        with pytest.raises(KeyError):
            fail(1)
    assert calls == [1, 1]
    assert page(storage) == []


def test_nothing_is_stored_unless_something_says_so(storage: PostgresStorage) -> None:
    @task
    def plain(x: int) -> int:
        return int(called(x))

    assert plain.persist_result is None
    assert [plain(1), plain(1)] == [1, 1]
    assert plain.with_options(result_storage=storage).persist_result is True
    assert plain.with_options(result_storage=storage, persist_result=False).persist_result is False
    assert plain.with_options(cache_policy=NO_CACHE).persist_result is None
    assert plain.with_options(cache_key_fn=lambda *_: "k", result_serializer="json").persist_result is True
    quiet = plain.with_options(result_storage=storage, persist_result=False, cache_policy=INPUTS)
    assert [quiet(1), quiet(1)] == [1, 1]
    assert calls == [1] * 4
    assert page(storage) == []


def test_expiration_and_refresh(storage: PostgresStorage, store: ResultStore) -> None:
    @task(result_storage=storage, result_storage_key="k", cache_expiration=timedelta(hours=1))
    def work() -> int:
        return int(called(len(calls)))

    assert [work(), work(), work.with_options(refresh_cache=True)()] == [0, 0, 1]
    record = store.read("k")
    assert record.expiration is not None
    assert record.metadata.created_at is not None
    assert timedelta(minutes=59) < record.expiration - record.metadata.created_at <= timedelta(minutes=61)
    assert work.with_options(cache_expiration=3600).cache_expiration == timedelta(hours=1)
    with pytest.raises(InvalidArgument, match="timedelta"):
        work.with_options(cache_expiration="3600")  # type: ignore[typeddict-item]
    with pytest.raises(InvalidArgument, match="above zero"):
        work.with_options(cache_expiration=timedelta(0))
    with pytest.raises(InvalidArgument, match="1,000,000 days"):  # not after the work is done
        work.with_options(cache_expiration=timedelta.max)


def test_hooks_of_a_transaction(storage: PostgresStorage) -> None:
    seen: list[str] = []

    @task(result_storage=storage, cache_policy=INPUTS)
    def work(x: int) -> int:
        return x

    work.on_commit(lambda _: seen.append("commit"))
    work.on_rollback(lambda _: seen.append("rollback"))
    work(1)

    def failing() -> None:
        with transaction():
            work(2)
            raise KeyError

    with pytest.raises(KeyError):
        failing()
    assert seen == ["commit", "rollback"]
    assert len(page(storage)) == 1
    work.with_options(name="other")(3)
    assert seen[-1] == "commit"


def test_tasks_of_a_transaction_are_stored_together(storage: PostgresStorage) -> None:
    @task(result_storage=storage, result_storage_key="{parameters[x]}")
    def work(x: str) -> str:
        return x

    with transaction():
        work("a")
        work("b")
        assert page(storage) == []
    assert [row.key for row in page(storage)] == ["a", "b"]


def test_contexts(storage: PostgresStorage) -> None:
    @task(result_storage=storage)
    def inner(x: int) -> tuple[Any, Any]:
        run, outer = TaskRunContext.get(), FlowRunContext.get()
        assert run is not None
        assert outer is not None
        assert run.task_run.flow_run_id == outer.flow_run.id
        assert (run.task.name, dict(run.parameters), run.persist_result) == ("inner", {"x": 1}, True)
        assert (outer.flow.name, dict(outer.parameters), outer.persist_result) == ("run", {"y": 2}, False)
        return run.result_store.result_storage.name, outer.flow_run.flow_name

    @flow
    def run(y: int) -> tuple[Any, Any]:
        return inner(1)

    assert run(2) == (storage.name, "run")
    assert TaskRunContext.get() is FlowRunContext.get() is None


def test_what_ran_is_recorded_with_the_result(storage: PostgresStorage, store: ResultStore) -> None:
    @task(result_storage=storage, result_storage_key="k")
    def work() -> int:
        return 1

    @flow(name="nightly")
    def run() -> None:
        work()

    run()
    provenance = store.read("k").metadata.provenance
    assert provenance is not None
    assert provenance["task"]["name"] == "work"
    assert provenance["task"]["code"] == work.code_hash
    assert provenance["flow"]["name"] == "nightly"


def test_an_unpicklable_result_is_returned_and_reported(
    storage: PostgresStorage, caplog: pytest.LogCaptureFixture
) -> None:
    @task(result_storage=storage, cache_policy=INPUTS)
    def work() -> Any:
        return threading.Lock()

    assert work() is not None
    assert page(storage) == []
    assert "cannot be serialized" in caplog.text
    assert 'Use the serializer "json"' in caplog.text


def test_methods_and_generators(storage: PostgresStorage) -> None:
    class Report:
        @task(result_storage=storage, cache_policy=INPUTS - "self")
        def rows(self, x: int) -> int:
            return int(called(x))

    assert [Report().rows(1), Report().rows(1)] == [1, 1]
    assert calls == [1]
    with pytest.raises(TypeError, match="generator"):

        @task
        def many() -> Any:
            yield 1

    assert repr(Report.rows) == "<Task 'rows'>"
    with pytest.raises(TypeError, match="no option 'cache_polcy'"):
        task(cache_polcy=INPUTS)(called)  # type: ignore[call-overload]


def test_missing_results_say_why(storage: PostgresStorage, store: ResultStore) -> None:
    with pytest.raises(MissingResult, match="never written"):
        store.read("k")
