"""Mapping over threads and processes: what is live is read, the rest is called once, and a death is told."""

import os
import pickle
import signal
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from pgresults import PostgresStorage, flow, get_result_store, task
from pgresults.cache_policies import FLOW_PARAMETERS, INPUTS, NO_CACHE, RUN_ID
from pgresults.context import FlowRunContext, carried
from pgresults.errors import InvalidArgument, PgResultsError, SerializationError
from pgresults.runtime.mapping import MapProgress
from pgresults.tasks import Task
from tests.support.listing import page
from tests.support.work import called, calls


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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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
