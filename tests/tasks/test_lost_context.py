"""A thread of one's own begins without the flow around: a task in it says so, once."""

import asyncio
import logging
import threading
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import Any

import pytest

from pgresults import PostgresStorage, flow, task
from pgresults.context import FlowRunContext, carried
from pgresults.tasks import Task


def _in_a_thread(work: Callable[[], Any]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


@pytest.fixture
def warnings(caplog: Any) -> Callable[[], list[str]]:
    """What was said at the level of warnings about threads."""

    def found() -> list[str]:
        return [record.getMessage() for record in caplog.records if "has no part in the flow" in record.getMessage()]

    caplog.set_level(logging.WARNING, "pgresults.tasks")
    return found


def _work(**options: Any) -> Task[[], Any]:
    def work() -> Any:
        run = FlowRunContext.get()
        return run and run.flow.name

    return task(work, **options)


@pytest.mark.parametrize("by", ["options", "the flow"])
def test_a_task_to_be_stored_that_lost_its_flow_warns_once(
    by: str, storage: PostgresStorage, warnings: Callable[[], list[str]]
) -> None:
    work = _work(result_storage=storage, result_storage_key="k") if by == "options" else _work()

    @flow(result_storage=storage)
    def etl() -> None:
        for _ in range(2):
            _in_a_thread(work)

    etl()
    [said] = warnings()
    assert "work runs in a thread that has no part in the flow etl" in said
    assert "asyncio.to_thread" in said
    assert "copy_context().run" in said


def test_who_keeps_the_context_or_needs_none_is_not_warned(
    storage: PostgresStorage, warnings: Callable[[], list[str]]
) -> None:
    work = _work(result_storage=storage, result_storage_key="{flow_run.id}")
    quiet, seen = _work(), []

    @flow
    def etl() -> None:
        _in_a_thread(lambda: seen.append(quiet()))  # nobody stores it
        _in_a_thread(carried(lambda: seen.append(work())))
        _in_a_thread(partial(copy_context().run, lambda: seen.append(work())))
        seen.append(asyncio.run(asyncio.to_thread(work)))
        seen.append(work())

    etl()
    assert seen == [None, *["etl"] * 4]
    _in_a_thread(_work(result_storage=storage, result_storage_key="k"))  # no flow is running
    assert warnings() == []


def test_the_main_thread_lost_nothing(storage: PostgresStorage, warnings: Callable[[], list[str]]) -> None:
    inside, leave = threading.Event(), threading.Event()

    @flow
    def etl() -> None:
        inside.set()
        leave.wait()

    thread = threading.Thread(target=etl)
    thread.start()
    inside.wait()
    _work(result_storage=storage, result_storage_key="k")()
    leave.set()
    thread.join()
    assert warnings() == []
