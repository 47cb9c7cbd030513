"""Real flows on a real, ephemeral Prefect server, with results and locks in Postgres."""

import asyncio
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pgresults.locking import waiting
from pgresults.store import ResultStore
from tests.support.documents import ROOT
from tests.support.prefect_fixtures import MARKS, SQL, require_prefect

prefect: Any = require_prefect()
from prefect import flow, task  # noqa: E402
from prefect.cache_policies import INPUTS, TASK_SOURCE  # noqa: E402
from prefect.task_runners import ThreadPoolTaskRunner  # noqa: E402
from prefect.transactions import IsolationLevel, Transaction  # noqa: E402

from pgresults.integrations.prefect import PostgresResultStorage  # noqa: E402
from tests.support.listing import page  # noqa: E402

pytestmark = MARKS
SERIALIZABLE = IsolationLevel.SERIALIZABLE
A_HOLDER_FOR_EACH_TASK = pytest.mark.skipif(
    "_holder" not in Transaction.__private_attributes__,
    reason="in this Prefect all tasks of a thread are one holder, whichever lock manager there is",
)


def test_a_second_run_finds_what_the_first_one_stored(block: PostgresResultStorage, sql: SQL) -> None:
    calls = []

    @task(cache_policy=INPUTS, cache_expiration=timedelta(hours=1))
    def double(number: int) -> int:
        calls.append(number)
        return 2 * number

    @flow(result_storage=block, persist_result=True)
    def doubling() -> list[int]:
        return [double(number) for number in (1, 2)]

    assert doubling() == doubling() == [2, 4]
    assert calls == [1, 2]
    stored = sql(
        "SELECT provenance #>> '{flow,name}', provenance #>> '{task,name}', expires_at > now() + interval '59 min',"
        " prefect_version, serializer ->> 'type' FROM result WHERE storage_id = %(storage)s"
        " AND provenance ? 'task'"
    )
    assert stored == [("doubling", "double", True, prefect.__version__, "pickle")] * 2


def test_an_expired_result_is_computed_again(block: PostgresResultStorage, ours: ResultStore) -> None:
    calls = []

    @task(cache_key_fn=lambda *_: "key", cache_expiration=timedelta(hours=1), result_storage=block)
    def count() -> int:
        calls.append(1)
        return len(calls)

    @flow
    def counting() -> int:
        return count()

    assert counting() == counting() == 1
    ours.touch("key", datetime.now(UTC) - timedelta(seconds=1))
    assert counting() == 2
    assert [entry.action for entry in ours.history("key")] == ["write", "touch", "write"]


@pytest.mark.parametrize("apart", [False, True], ids=["a record", "a key storage"])
def test_a_result_expires_by_itself(block: PostgresResultStorage, apart: bool) -> None:
    calls = []
    keys = PostgresResultStorage(url=block.url, name=f"{block.name}-keys")
    keys.save(keys.name)
    policy = (TASK_SOURCE + INPUTS).configure(key_storage=keys if apart else None)

    @task(cache_policy=policy, cache_expiration=timedelta(seconds=1), result_storage=block)
    def count() -> int:
        calls.append(1)
        return len(calls)

    @flow
    def counting() -> int:
        return count()

    assert counting() == 1
    while page((keys if apart else block).storage):
        pass
    assert counting() == 2


def test_two_tasks_with_equal_inputs_have_results_of_their_own(block: PostgresResultStorage) -> None:
    """With `INPUTS` alone, Prefect gives both the same key."""

    @task(cache_policy=TASK_SOURCE + INPUTS, result_storage=block)
    def double(number: int) -> int:
        return 2 * number

    @task(cache_policy=TASK_SOURCE + INPUTS, result_storage=block)
    def triple(number: int) -> int:
        return 3 * number

    @flow
    def both() -> tuple[int, int]:
        return double(5), triple(5)

    assert both() == both() == (10, 15)


def run_by_default(key: str) -> None:
    """Run a flow that says nothing about where its results go."""

    @task(cache_key_fn=lambda *_: key)
    def one() -> int:
        return 1

    @flow(persist_result=True)
    def default() -> int:
        return one()

    assert default() == 1


def test_the_default_block_is_found_by_its_name(block: PostgresResultStorage, ours: ResultStore) -> None:
    setting = prefect.settings.PREFECT_RESULTS_DEFAULT_STORAGE_BLOCK
    with prefect.settings.temporary_settings({setting: f"postgres-result-storage/{block.name}"}):
        run_by_default("by default")
    assert ours.read("by default").result == 1


def test_the_servers_default_block_is_used(block: PostgresResultStorage, ours: ResultStore) -> None:
    client = prefect.client.orchestration.get_client(sync_client=True)
    if not hasattr(client, "update_server_default_result_storage"):
        pytest.skip("this Prefect's server has no default")
    client.update_server_default_result_storage(block._block_document_id)
    try:
        run_by_default("the server's default")
    finally:
        client.clear_server_default_result_storage()
    assert ours.read("the server's default").result == 1


def test_a_key_storage_holds_metadata_with_its_expiration(block: PostgresResultStorage, ours: ResultStore) -> None:
    calls = []
    keys = PostgresResultStorage(url=block.url, name=f"{block.name}-keys")
    keys.save(keys.name)
    policy = INPUTS.configure(key_storage=keys)

    @task(cache_policy=policy, result_storage=block, cache_expiration=timedelta(hours=1))
    def double(number: int) -> int:
        calls.append(number)
        return 2 * number

    @flow
    def doubling() -> int:
        return double(4)

    assert doubling() == doubling() == 8
    assert calls == [4]
    assert len(ResultStore(result_storage=keys.storage).expiring(timedelta(hours=2))) == 1
    assert len(page(ours.result_storage)) == 1


def test_a_retried_task_keeps_its_lock(block: PostgresResultStorage) -> None:
    calls = []
    policy = INPUTS.configure(isolation_level=SERIALIZABLE, lock_manager=block.lock_manager())

    @task(cache_policy=policy, result_storage=block, retries=2)
    def flaky(number: int) -> int:
        calls.append(number)
        if len(calls) < 3:
            raise ValueError("not yet")
        return number

    @flow
    def trying() -> int:
        return flaky(1)

    assert trying() == trying() == 1
    assert len(calls) == 3


def test_tasks_under_a_thread_pool_run_once_each(block: PostgresResultStorage) -> None:
    calls = []
    policy = INPUTS.configure(isolation_level=SERIALIZABLE, lock_manager=block.lock_manager())

    @task(cache_policy=policy, result_storage=block)
    def square(number: int) -> int:
        calls.append(number)
        return number**2

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=6))
    def squares() -> list[int]:
        return square.map([1, 2, 3] * 4).result()

    assert squares() == [1, 4, 9] * 4
    assert sorted(calls) == [1, 2, 3]


@A_HOLDER_FOR_EACH_TASK
async def test_async_tasks_take_locks_and_find_results(block: PostgresResultStorage) -> None:
    calls = []
    policy = INPUTS.configure(isolation_level=SERIALIZABLE, lock_manager=block.lock_manager())

    @task(cache_policy=policy, result_storage=block)
    async def square(number: int) -> int:
        calls.append(number)
        await asyncio.sleep(0)
        return number**2

    @flow
    async def squares() -> list[int]:
        return list(await asyncio.gather(*(square(number) for number in [1, 2] * 3)))

    assert await squares() == [1, 4] * 3
    assert sorted(calls) == [1, 2]


@pytest.mark.timeout(60, func_only=True)
@pytest.mark.parametrize("number", [2, 10])
@A_HOLDER_FOR_EACH_TASK
def test_async_tasks_that_wait_for_a_lock_are_woken(
    block: PostgresResultStorage, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Prefect takes a task's lock async and gives it back sync, on the event loop on which the others wait."""
    monkeypatch.setattr(waiting, "next_look", lambda _: 1000.0)
    calls = []
    policy = (TASK_SOURCE + INPUTS).configure(isolation_level=SERIALIZABLE, lock_manager=block.lock_manager())

    @task(cache_policy=policy, result_storage=block)
    async def square(number: int) -> int:
        calls.append(number)
        while not any(lock.waiters for lock in block.lock_manager().held_locks()):
            await asyncio.sleep(0)
        return number**2

    @flow
    async def at_once() -> list[int]:
        return list(await asyncio.gather(*(square(3) for _ in range(number))))

    @flow
    async def submitted() -> list[int]:
        return [future.result() for future in [square.submit(4) for _ in range(number)]]

    assert asyncio.run(at_once()) == [9] * number
    assert asyncio.run(submitted()) == [16] * number
    assert calls == [3, 4]


@pytest.mark.skipif(
    not hasattr(prefect.task_runners, "ProcessPoolTaskRunner"), reason="this Prefect has no process runner"
)
@pytest.mark.timeout(200)
def test_tasks_under_a_process_pool_run_once_each(
    block: PostgresResultStorage, ours: ResultStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = str(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # where a worker finds this module
    policy = (INPUTS - "marks").configure(isolation_level=SERIALIZABLE, lock_manager=block.lock_manager())

    @task(cache_policy=policy, result_storage=block)
    def square(number: int, marks: str) -> int:
        Path(marks, f"{number}-{os.getpid()}").touch()
        return number**2

    @flow(task_runner=prefect.task_runners.ProcessPoolTaskRunner(max_workers=2))
    def squares() -> list[int]:
        return square.map([1, 2, 3] * 2, prefect.unmapped(marks)).result()

    assert squares() == [1, 4, 9] * 2
    assert sorted(mark.name[0] for mark in tmp_path.iterdir()) == ["1", "2", "3"]
    assert str(os.getpid()) not in {mark.name[2:] for mark in tmp_path.iterdir()}
    assert all(entry.fence for listed in page(ours.result_storage) for entry in ours.history(listed.key))


def test_none_and_generators_are_cached_and_exceptions_are_not(block: PostgresResultStorage, ours: ResultStore) -> None:
    calls = []

    @task(cache_key_fn=lambda *_: "none", result_storage=block)
    def nothing() -> None:
        calls.append("none")

    @task(cache_key_fn=lambda *_: "generator", result_storage=block)
    def numbers() -> Any:
        calls.append("generator")
        yield from (1, 2)

    @task(cache_key_fn=lambda *_: "failure", result_storage=block)
    def failing() -> None:
        calls.append("failure")
        raise ValueError("broken")

    @flow
    def all_three() -> tuple[None, list[int], str]:
        state = failing(return_state=True)
        return nothing(), list(numbers()), state.name

    assert all_three() == all_three() == (None, [1, 2], "Failed")
    assert sorted(calls) == ["failure", "failure", "generator", "generator", "none"]
    assert ours.read("none").result is None
    assert not ours.exists("failure")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_hundred_mapped_tasks_run_twice(block: PostgresResultStorage, sql: SQL) -> None:
    calls = []

    @task(cache_policy=INPUTS, cache_expiration=timedelta(days=1))
    def double(number: int) -> int:
        calls.append(number)
        return 2 * number

    @flow(result_storage=block, persist_result=True, task_runner=ThreadPoolTaskRunner(max_workers=8))
    def doubling() -> list[int]:
        return double.map(range(200)).result()

    assert doubling() == doubling() == [2 * number for number in range(200)]
    assert sorted(calls) == list(range(200))
    described = sql(
        "SELECT count(*), count(expires_at), count(provenance #>> '{flow,run_id}') FROM result"
        " WHERE storage_id = %(storage)s AND provenance #>> '{task,name}' = 'double'"
        " AND provenance #>> '{flow,name}' = 'doubling'"
    )
    assert described == [(200, 200, 200)]
