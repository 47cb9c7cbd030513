"""Whatever leaves a task arrives as itself, and its context is left with it."""

import asyncio
import gc
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest

from pgresults import PostgresStorage, ResultStore, flow, get_transaction, task, transaction
from pgresults.cache_policies import INPUTS
from pgresults.context import FlowRunContext, TaskRunContext
from pgresults.database.programs import Program, perform, wait_for
from tests.support.transactions import stored
from tests.support.work import calls

ENDS = [StopIteration("x"), GeneratorExit("x"), StopAsyncIteration("x"), KeyboardInterrupt("x"), SystemExit(3)]
ODD = [*ENDS, type("Odd", (BaseException,), {})("x")]


def _raising(error: BaseException) -> Callable[..., Any]:
    def fail(*_: Any) -> Any:
        raise error

    return fail


@pytest.fixture(autouse=True)
def nothing_stays(storage: PostgresStorage, store: ResultStore) -> Iterator[None]:
    """After every test no run and no transaction is around, and a task stores as before."""
    yield
    names = ("pgresults.", "TEMPLATE")
    left = {
        variable.name: value
        for variable, value in copy_context().items()
        if variable.name.startswith(names) and value and variable.name != "pgresults.settings"
    }
    assert left == {}
    assert FlowRunContext.get() is TaskRunContext.get() is get_transaction() is None
    after = task(lambda: 5, result_storage=storage, result_storage_key="after")
    assert after() == 5
    assert store.read("after").result == 5


@pytest.mark.parametrize("error", ODD, ids=repr)
@pytest.mark.parametrize("kind", ["task", "stored task", "flow", "task in a flow", "task in a transaction"])
def test_what_a_function_raises(error: BaseException, kind: str, storage: PostgresStorage, store: ResultStore) -> None:
    undone = []
    options: dict[str, Any] = {"result_storage": storage, "result_storage_key": "k"} if "stored" in kind else {}
    failing = task(_raising(error), **options)
    failing.on_rollback(undone.append)

    def in_a_transaction() -> None:
        with transaction("t", store) as txn:
            txn.stage(1, on_rollback_hooks=[undone.append])
            failing()

    run = {
        "flow": flow(_raising(error)),
        "task in a flow": flow(lambda: failing()),
        "task in a transaction": in_a_transaction,
    }.get(kind, failing)
    with pytest.raises(type(error)) as caught:
        run()
    assert caught.value is error
    assert "in fail" in "".join(traceback.format_exception(error))
    assert "on its way" not in "".join(traceback.format_exception(error))
    assert stored(store, "k", "t") == {}
    assert len(undone) == {"flow": 0, "task in a flow": 1, "task in a transaction": 2}.get(kind, 1)


@pytest.mark.parametrize("error", ODD, ids=repr)
@pytest.mark.parametrize("kind", ["cache_key_fn", "an input", "on_commit", "a commit hook"])
def test_what_code_around_a_function_raises(
    error: BaseException, kind: str, storage: PostgresStorage, store: ResultStore
) -> None:
    class Input:
        def __reduce__(self) -> Any:
            raise error

    work = task(
        len,
        result_storage=storage,
        **({"cache_key_fn": _raising(error)} if kind == "cache_key_fn" else {"cache_policy": INPUTS}),
    )
    if kind == "on_commit":
        work.on_commit(_raising(error))

    def run() -> None:
        if kind == "a commit hook":
            with transaction("t", store) as txn:
                txn.stage(1, on_commit_hooks=[_raising(error)])
        else:
            work(Input() if kind == "an input" else "one")

    if kind == "an input" and isinstance(error, Exception):
        with pytest.raises(ValueError, match="no digest"):
            run()
        return
    with pytest.raises(type(error)) as caught:
        run()
    assert caught.value is error


@pytest.mark.parametrize("error", ENDS[:3], ids=repr)
def test_a_rollback_hook_that_fails_so_keeps_no_other_from_running(error: Any, store: ResultStore) -> None:
    undone: list[Any] = []
    hooks = [undone.append, _raising(error)]
    expected = ZeroDivisionError if isinstance(error, Exception) else type(error)
    with pytest.raises(expected), transaction("t", store) as txn:  # noqa: PT012 (what fails is the end of the block)
        txn.stage(1, on_rollback_hooks=hooks)
        raise ZeroDivisionError
    assert txn.is_rolled_back()
    assert undone == ([txn] if isinstance(error, Exception) else [])


@pytest.mark.parametrize("error", ENDS[:3], ids=repr)
def test_a_map_gives_it_to_its_caller(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        task(_raising(error)).map([1, 2])
    assert caught.value is error


@pytest.mark.parametrize("error", ENDS[1:3], ids=repr)
async def test_async_functions(error: BaseException, storage: PostgresStorage, store: ResultStore) -> None:
    @task(result_storage=storage, result_storage_key="k")
    async def fail(_: int = 0) -> None:
        await asyncio.sleep(0)
        raise error

    with pytest.raises(type(error)) as caught:
        await fail()
    assert caught.value is error
    assert stored(store, "k") == {}
    with pytest.raises(type(error)):
        await fail.amap([1, 2])
    await storage.aclose()


async def test_stop_iteration_out_of_a_coroutine_is_pythons(storage: PostgresStorage) -> None:
    @task(result_storage=storage, cache_policy=INPUTS)
    async def fail() -> None:
        raise StopIteration

    with pytest.raises(RuntimeError, match="coroutine raised StopIteration"):
        await fail()
    await storage.aclose()


async def test_generators_that_are_closed_within_a_transaction(storage: PostgresStorage, store: ResultStore) -> None:
    def numbers() -> Iterator[int]:
        with transaction("t", store) as txn:
            txn.stage(1)
            yield 1

    async def anumbers() -> AsyncIterator[int]:
        async with transaction("t", store) as txn:
            txn.stage(1)
            yield 1

    blocking = numbers()
    assert next(blocking) == 1
    blocking.close()  # type: ignore[attr-defined]
    awaiting = anumbers()
    assert await anext(awaiting) == 1
    await awaiting.aclose()  # type: ignore[attr-defined]
    assert get_transaction() is None
    assert stored(store, "t") == {}
    await storage.aclose()


def test_a_program_treats_it_as_any_failure() -> None:
    seen = []

    def inner() -> Program[None]:
        try:
            yield from wait_for(_raising(StopIteration(1)), None)  # type: ignore[arg-type]
        except Exception as error:
            seen.append(type(error).__bases__)
            yield from wait_for(lambda: seen.append("waited"), None)  # type: ignore[arg-type]
            raise
        finally:
            yield from wait_for(lambda: seen.append("left"), None)  # type: ignore[arg-type]

    def outer() -> Program[None]:
        yield from inner()

    with pytest.raises(StopIteration) as caught:
        perform(outer())
    assert caught.value.value == 1
    assert seen[1:] == ["waited", "left"]


ABANDONED = """
import asyncio, sys
from pgresults import PostgresStorage, ResultStore, task, flow, transaction
from pgresults.cache_policies import INPUTS

storage = PostgresStorage(sys.argv[1], "abandoned")
locked = INPUTS.configure(isolation_level="SERIALIZABLE", lock_manager=storage.lock_manager())

@task(result_storage=storage, cache_policy=locked)
async def wait(x):
    started.set()
    await asyncio.Event().wait()

@flow
async def run():
    async with transaction("t", ResultStore(result_storage=storage)) as txn:
        txn.stage(1)
        await wait(1)

async def begin():
    global started, left
    started = asyncio.Event()
    left = asyncio.ensure_future(run())
    await started.wait()

loop = asyncio.new_event_loop()
loop.run_until_complete(begin())
loop.close()
del left
import gc; gc.collect()
print("ended")
"""


def test_a_loop_that_is_closed_with_a_task_under_way(tmp_path: Path, storage: PostgresStorage) -> None:
    (tmp_path / "program.py").write_text(ABANDONED)
    url = storage.database.url().set(drivername="postgresql").render_as_string(hide_password=False)
    done = subprocess.run(
        [sys.executable, "-W", "ignore::ResourceWarning", "program.py", url],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout == "ended\n"
    said = [line for line in done.stderr.splitlines() if "Error" in line or "Exception ignored" in line]
    assert said == []


def test_a_coroutine_that_nobody_awaits_leaves_nothing_around(storage: PostgresStorage) -> None:
    @task(result_storage=storage, cache_policy=INPUTS)
    async def work() -> None:
        await asyncio.Event().wait()

    loop = asyncio.new_event_loop()
    under_way = loop.create_task(work())
    for _ in range(50):
        loop.run_until_complete(asyncio.sleep(0.001))
    under_way._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.run_until_complete(storage.aclose())
    loop.close()
    del under_way
    gc.collect()
    assert calls == []
