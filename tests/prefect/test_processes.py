"""Prefect's tasks in many processes: who executes, who waits, and who takes over from a process that was killed."""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pgresults.store import ResultStore
from tests.support.listing import page
from tests.support.prefect_fixtures import MARKS, require_prefect

prefect: Any = require_prefect()
from pgresults.integrations.prefect import PostgresResultStorage  # noqa: E402

pytestmark = [*MARKS, pytest.mark.slow]

FLOW = """
import os, sys, time
from pathlib import Path

from prefect import flow, task
from prefect.blocks.core import Block
from prefect.cache_policies import INPUTS
from prefect.transactions import IsolationLevel
import pgresults.integrations.prefect

marks, block_name, others = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
block = Block.load("postgres-result-storage/" + block_name)
policy = INPUTS.configure(isolation_level=IsolationLevel.SERIALIZABLE, lock_manager=block.lock_manager())


@task(cache_policy=policy, result_storage=block)
def square(number: int) -> int:
    print("inside", time.monotonic(), flush=True)
    (marks / f"executed-{os.getpid()}").touch()
    while len(list(marks.glob("ready-*"))) < others:
        time.sleep(0.05)
    return number**2


@flow(persist_result=False)
def squares() -> int:
    (marks / f"ready-{os.getpid()}").touch()
    return square(7)


print("result", squares(), flush=True)
"""

TASKS = """
from prefect import task


@task(persist_result=True)
def double(number: int, padding: str = "") -> int:
    return 2 * number
"""


@pytest.fixture
def start(block: PostgresResultStorage, tmp_path: Path) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Starts Python processes that use the test's server; ends those that are left."""
    environment = {
        **os.environ,
        "PREFECT_API_URL": prefect.settings.PREFECT_API_URL.value(),
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_LOGGING_LEVEL": "ERROR",
        "PREFECT_LOGGING_TO_API_ENABLED": "false",
        "PREFECT_RESULTS_DEFAULT_STORAGE_BLOCK": f"postgres-result-storage/{block.name}",
        "PREFECT_TASKS_SCHEDULING_DEFAULT_STORAGE_BLOCK": f"postgres-result-storage/{block.name}",
        "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "PYTHONWARNINGS": "ignore",
    }
    started: list[subprocess.Popen[str]] = []

    def start(program: str, *arguments: str) -> "subprocess.Popen[str]":
        command = (sys.executable, "-c", program, *arguments)
        started.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def until(condition: Callable[[], Any]) -> None:
    """Wait for something; pytest's time-out ends it."""
    while not condition():
        time.sleep(0.05)


@pytest.mark.timeout(560)
@pytest.mark.parametrize("processes", [50])
def test_fifty_processes_execute_once(
    block: PostgresResultStorage,
    ours: ResultStore,
    tmp_path: Path,
    start: Callable[..., "subprocess.Popen[str]"],
    processes: int,
) -> None:
    workers = [start(FLOW, str(tmp_path), block.name, str(processes)) for _ in range(processes)]
    outputs = [worker.communicate()[0] for worker in workers]
    assert [output.splitlines()[-1] for output in outputs] == ["result 49"] * processes
    assert len(list(tmp_path.glob("executed-*"))) == 1
    [listed] = page(ours.result_storage)
    assert [entry.action for entry in ours.history(listed.key)] == ["write"]


@pytest.mark.timeout(300)
def test_another_process_takes_over_from_a_killed_one(
    block: PostgresResultStorage,
    ours: ResultStore,
    tmp_path: Path,
    start: Callable[..., "subprocess.Popen[str]"],
) -> None:
    for_ever = "1000"
    holder = start(FLOW, str(tmp_path), block.name, for_ever)
    assert holder.stdout is not None
    assert holder.stdout.readline().startswith("inside")
    waiting = start(FLOW, str(tmp_path), block.name, "2")
    assert waiting.stdout is not None
    until(lambda: any(lock.waiters for lock in block.lock_manager().held_locks()))
    killed_at = time.monotonic()
    os.kill(holder.pid, signal.SIGKILL)
    inside, at = waiting.stdout.readline().split()
    assert inside == "inside"
    seconds = float(at) - killed_at  # one clock for all processes of a machine
    logging.getLogger(__name__).info("taken over %.3f s after the kill", seconds)
    assert 0 < seconds < 10, "a waiter that missed the death would look again after 30 s"
    assert waiting.communicate()[0] == "result 49\n"
    [listed] = page(ours.result_storage)
    assert len(ours.history(listed.key)) == 1


@pytest.mark.timeout(300)
def test_a_background_workers_parameters_and_results(
    block: PostgresResultStorage, ours: ResultStore, tmp_path: Path, start: Callable[..., "subprocess.Popen[str]"]
) -> None:
    (tmp_path / "background.py").write_text(TASKS)
    padding = "x" * 3_000_000
    start("from prefect.task_worker import serve; from background import double; serve(double)")
    client = start(
        "from background import double\n"
        f"future = double.delay(4, padding='x' * {len(padding)})\n"
        "future.wait()\n"
        "print(future.result())"
    )
    assert client.communicate()[0] == "8\n"
    [parameters] = page(ours.result_storage, "parameters/")
    assert parameters.size > len(padding)
    assert ours.read(parameters.key).result["parameters"] == {"number": 4, "padding": padding}
    assert 8 in [ours.read(listed.key).result for listed in page(ours.result_storage) if listed.key != parameters.key]


@pytest.mark.timeout(300)
def test_a_second_process_finds_what_the_first_one_stored(
    block: PostgresResultStorage, tmp_path: Path, start: Callable[..., "subprocess.Popen[str]"]
) -> None:
    for _ in range(2):
        assert start(FLOW, str(tmp_path), block.name, "1").communicate()[0].splitlines()[-1] == "result 49"
    assert len(list(tmp_path.glob("executed-*"))) == 1
