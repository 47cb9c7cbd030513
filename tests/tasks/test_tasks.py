"""Tasks: what is computed, what is read, what is stored, under which key."""

import asyncio
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import URL, make_url

from pgresults import (
    EmbeddedPostgres,
    PostgresStorage,
    ResultStore,
    flow,
    get_result_store,
    task,
    transaction,
)
from pgresults.cache_policies import (
    DEFAULT,
    FLOW_PARAMETERS,
    INPUTS,
    NO_CACHE,
    RUN_ID,
    TASK_SOURCE,
    CachePolicy,
)
from pgresults.context import FlowRunContext, TaskRunContext, carried
from pgresults.database import migrations
from pgresults.errors import ConfigurationError, InvalidArgument, MissingResult, PgResultsError, SerializationError
from pgresults.runtime.mapping import MapProgress
from pgresults.settings import temporary_settings
from pgresults.tasks import Task, aexplain, explain
from tests.support.database import psycopg_url
from tests.support.listing import page

calls: list[Any] = []


@pytest.fixture(autouse=True)
def _no_calls() -> Iterator[None]:
    calls.clear()
    yield
    calls.clear()


def called(x: Any) -> Any:
    """Do the work that tasks of these tests do."""
    calls.append(x)
    return x


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
        result_storage=storage, result_storage_key="reports/{parameters[day]}/{task_run.name}", result_serializer="json"
    )
    def report(day: str) -> dict[str, str]:
        return {"day": str(called(day))}

    assert report("monday") == report("monday")
    assert calls == ["monday"]
    assert store.read("reports/monday/report").result == {"day": "monday"}
    with pytest.raises(ConfigurationError, match="nosuch"):
        report.with_options(result_storage_key="{parameters[nosuch]}")("monday")


def test_flow_names_in_templates(storage: PostgresStorage) -> None:
    @task(result_storage=storage, result_storage_key="{flow_run.name}/{parameters[x]}")
    def work(x: int) -> int:
        return x

    @flow(name="etl")
    def run() -> None:
        work(1)

    run()
    assert [row.key for row in page(storage)] == ["etl/1"]


def test_expiration_and_refresh(storage: PostgresStorage, store: ResultStore) -> None:
    @task(result_storage=storage, result_storage_key="k", cache_expiration=timedelta(hours=1))
    def work() -> int:
        return int(called(len(calls)))

    assert [work(), work(), work.with_options(refresh_cache=True)()] == [0, 0, 1]
    record = store.read("k")
    assert record.expiration is not None
    assert record.metadata.created_at is not None
    assert timedelta(minutes=59) < record.expiration - record.metadata.created_at <= timedelta(minutes=61)
    with pytest.raises(InvalidArgument, match="timedelta"):
        work.with_options(cache_expiration=3600)  # type: ignore[typeddict-item]
    with pytest.raises(InvalidArgument, match="above zero"):
        work.with_options(cache_expiration=timedelta(0))
    with pytest.raises(InvalidArgument, match="for ever"):  # not after the work is done
        work.with_options(cache_expiration=timedelta.max)


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
        with pytest.raises(TypeError, match=r"storage\.lock_manager\(\), not str"):
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
        return run.result_store.result_storage.name, outer.flow_run.name

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


def test_threads_share_the_flow_run(storage: PostgresStorage) -> None:
    @task(result_storage=storage, cache_policy=RUN_ID + INPUTS)
    def work(x: int) -> int:
        return int(called(x))

    @flow
    def run() -> list[int]:
        work(1)
        with ThreadPoolExecutor(2) as pool:
            assert pool.submit(carried(work), 1).result() == 1
        return work.map([1, 2, 3])

    assert run() == [1, 2, 3]
    assert sorted(calls) == [1, 2, 3]


@task(cache_policy=INPUTS + RUN_ID, persist_result=True)
def in_process(x: int) -> tuple[int, Any]:
    """Say in which flow run this is."""
    run = FlowRunContext.get()
    return x, run.flow_run.id if run else None


@flow
def spread(workers: int) -> tuple[Any, Any]:
    """Map over processes."""
    run = FlowRunContext.get()
    assert run is not None
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return run.flow_run.id, in_process.map([1, 2], executor=pool)


def test_processes_share_the_flow_run(storage: PostgresStorage) -> None:
    run, found = spread.with_options(result_storage=storage)(2)
    assert found == [(1, run), (2, run)]
    assert len(page(storage)) == 3


@task(persist_result=True, cache_policy=RUN_ID + INPUTS)
def outer_parameter(name: str, nested: Task[[], int] | None = None) -> str:
    """Format a parameter of the flow."""
    if nested is not None:
        nested()
    run = FlowRunContext.get()
    return f"{run.parameters[name] if run else None}"


@task(cache_policy=FLOW_PARAMETERS)
def of_flow_parameters() -> int:
    """Do nothing."""
    return 1


@flow
def with_a_lock(lock: Any, plain: str, *calls: Any) -> list[str]:
    """Map over processes, to which one of the parameters cannot go."""
    return outer_parameter.map(*zip(*calls, strict=True), processes=1)


def test_processes_do_without_parameters_that_cannot_be_sent(storage: PostgresStorage) -> None:
    run = with_a_lock.with_options(result_storage=storage)
    assert run(threading.Lock(), "seen", ("plain", None)) == ["seen"]
    with pytest.raises(SerializationError, match=r"left behind.*lock"):
        run(threading.Lock(), "seen", ("lock", None))
    with pytest.raises(SerializationError, match=r"left behind.*lock"):
        run(threading.Lock(), "seen", ("plain", of_flow_parameters))


@task
def die(x: int) -> None:
    """End this process as the system does when memory is short."""
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_is_reported() -> None:
    with pytest.raises(PgResultsError, match="a worker process was killed"):
        die.map([1], processes=1)


FACTORIAL = """
from pgresults import task

@task
def factorial(x):
    return x * factorial(x - 1) if x else 1

if __name__ == "__main__":
    print(factorial.map([3, 5], processes=1))
"""


def test_a_program_maps_a_task_that_calls_itself(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(FACTORIAL)
    done = subprocess.run([sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[6, 120]\n", "")


WAITING = """
import os, threading
from pgresults import task

@task
def wait(x):
    print("worker", flush=True)
    threading.Event().wait()

if __name__ == "__main__":
    wait.map([1, 2], processes=2)
"""


def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(WAITING)
    with subprocess.Popen([sys.executable, "program.py"], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert [process.stdout.readline() for _ in range(2)] == ["worker\n"] * 2
        finally:
            process.kill()
        assert process.stdout.read() == ""  # nobody is left to write


storages: list[PostgresStorage] = []


@task(result_storage_key="{parameters[x]}")
def count_storages(x: int) -> int:
    """Count the storages, each with connections of its own, that calls in this process had."""
    if all(storage is not get_result_store().result_storage for storage in storages):
        storages.append(get_result_store().result_storage)
    return len(storages)


def test_calls_in_a_process_share_connections(storage: PostgresStorage) -> None:
    work = count_storages.with_options(result_storage=storage)
    assert work.map(range(9), processes=1) == [1] * 9
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert work.map(range(10, 19), executor=pool) == [1] * 9


def test_a_copy_of_a_task_is_sent_by_its_name(storage: PostgresStorage) -> None:
    copy = in_process.with_options(result_storage=storage)
    copied = pickle.loads(pickle.dumps(copy))
    assert copied.fn is in_process.fn
    assert (copied.result_storage.name, copied.cache_policy) == (storage.name, in_process.cache_policy)
    assert pickle.loads(pickle.dumps(in_process)) is in_process


def test_a_map_reads_what_is_live_and_calls_the_rest_once(storage: PostgresStorage) -> None:
    @task(result_storage=storage, cache_policy=INPUTS)
    def double(x: int, by: int) -> int:
        return int(called(x)) * by

    seen: list[MapProgress] = []
    double(1, 2)
    assert double.map([1, 3, 1, 3, 4], [2] * 5, progress=seen.append) == [2, 6, 2, 6, 8]
    assert sorted(calls) == [1, 3, 4]
    assert (seen[0], seen[-1]) == (MapProgress(5, 2, 0), MapProgress(5, 3, 2))
    assert [now.done for now in seen] in ([2, 3, 5], [2, 4, 5])
    with ThreadPoolExecutor() as pool:
        pool.shutdown()  # nothing is left to be called
        assert double.map([1, 3, 4], [2] * 3, executor=pool) == [2, 6, 8]
    assert double.with_options(refresh_cache=True).map([1], [2]) == [2]
    assert len(calls) == 4
    with pytest.raises(InvalidArgument, match="not both"):
        double.map([5], [2], executor=pool, processes=1)


def test_a_map_calls_everything_where_nothing_is_kept(storage: PostgresStorage) -> None:
    assert task(called).map([1, 1]) == [1, 1]
    assert task(called, result_storage=storage, cache_policy=NO_CACHE).map([1, 1]) == [1, 1]
    assert calls == [1] * 4
    assert task(called).map([]) == []


def test_a_failure_keeps_the_rest_of_a_map_from_beginning(storage: PostgresStorage) -> None:
    failed = threading.Event()

    @task(result_storage=storage, result_storage_key="{parameters[x]}")
    def work(x: int) -> int:
        called(x)
        if x > 2:
            failed.wait()
        return x // (x - 2)

    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(ZeroDivisionError):
            work.map(range(1, 100), executor=pool)
        failed.set()
    assert calls in ([1, 2], [1, 2, 3])
    assert "1" in {row.key for row in page(storage)}


def test_one_of_many_threads_computes(storage: PostgresStorage) -> None:
    policy = INPUTS.configure(isolation_level="SERIALIZABLE", lock_manager=storage.lock_manager())

    @task(result_storage=storage, cache_policy=policy)
    def work(x: int) -> int:
        return int(called(x))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(carried(work), [1] * 8)) == [1] * 8
    assert calls == [1]


async def test_one_of_many_coroutines_computes(storage: PostgresStorage) -> None:
    policy = INPUTS.configure(isolation_level="SERIALIZABLE", lock_manager=storage.lock_manager())

    @task(result_storage=storage, cache_policy=policy)
    async def work(x: int) -> int:
        return int(called(x))

    assert await asyncio.gather(*(work(1) for _ in range(8))) == [1] * 8
    assert calls == [1]
    await storage.aclose()


def test_serializable_needs_locks(storage: PostgresStorage) -> None:
    policy = INPUTS.configure(isolation_level="SERIALIZABLE")

    @task(result_storage=storage, cache_policy=policy)
    def work() -> int:
        return 1

    with pytest.raises(ConfigurationError, match="lock_manager"):
        work()
    with transaction(
        "outer", ResultStore(result_storage=storage, lock_manager=storage.lock_manager()), write_on_commit=False
    ):
        assert work() == 1


def _count(url: str, name: str) -> int:
    """Call a task that leaves a row wherever it runs."""
    storage = PostgresStorage(url, name)
    policy = INPUTS.configure(isolation_level="SERIALIZABLE", lock_manager=storage.lock_manager())

    @task(result_storage=storage, cache_policy=policy)
    def work(x: int) -> int:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("INSERT INTO ran VALUES (1)")
            connection.execute("SELECT pg_sleep(0.5)")  # the others come meanwhile
        return x

    try:
        return work(42)
    finally:
        storage.close()


def _one_computes(url: str, processes: int, start: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE ran (x int)")
        name = f"test-{uuid4().hex}"
        with ProcessPoolExecutor(processes, mp_context=get_context(start)) as pool:
            outcomes = [pool.submit(_count, url, name) for _ in range(processes)]
            assert [outcome.result() for outcome in outcomes] == [42] * processes
        (ran,) = connection.execute("SELECT count(*) FROM ran").fetchone() or (None,)
    assert ran == 1


def test_one_of_ten_processes_computes(fresh_url: URL) -> None:
    _one_computes(psycopg_url(fresh_url), 10, "spawn")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_one_of_a_hundred_processes_computes(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path)
    try:
        migrations.upgrade(make_url(server.ensure_running()).set(drivername="postgresql+psycopg"))
        _one_computes(server.url, 100, "fork")
    finally:
        server.stop()


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

    with pytest.raises(TypeError, match="below @classmethod"):
        task(classmethod(called))  # type: ignore[call-overload]
    assert repr(Report.rows) == "<Task 'rows'>"
    with pytest.raises(TypeError, match="no option 'cache_polcy'"):
        task(cache_polcy=INPUTS)(called)  # type: ignore[call-overload]


def test_missing_results_say_why(storage: PostgresStorage, store: ResultStore) -> None:
    with pytest.raises(MissingResult, match="never written"):
        store.read("k")
