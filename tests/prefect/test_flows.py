"""Real flows on a real, ephemeral Prefect server, with results and locks in Postgres."""

import asyncio
import os
import pickle
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from pgresults.errors import InvalidArgument, MissingResult
from pgresults.store import ResultStore
from tests.support.database import psycopg_url
from tests.support.documents import ROOT
from tests.support.prefect_fixtures import MARKS, SQL, require_prefect

prefect: Any = require_prefect()
from prefect import flow, task  # noqa: E402
from prefect.blocks.core import Block  # noqa: E402
from prefect.cache_policies import INPUTS  # noqa: E402
from prefect.filesystems import LocalFileSystem, RemoteFileSystem, WritableFileSystem  # noqa: E402
from prefect.locking.protocol import LockManager  # noqa: E402
from prefect.results import ResultStore as TheirStore  # noqa: E402
from prefect.task_runners import ThreadPoolTaskRunner  # noqa: E402
from prefect.transactions import IsolationLevel, Transaction  # noqa: E402

from pgresults.integrations.prefect import PostgresLockManager, PostgresResultStorage  # noqa: E402
from pgresults.integrations.prefect.files import import_files  # noqa: E402
from pgresults.integrations.prefect.places import source_of  # noqa: E402
from tests.support.listing import page  # noqa: E402

pytestmark = MARKS
SERIALIZABLE = IsolationLevel.SERIALIZABLE


def test_the_block_comes_back_from_the_server_without_showing_its_url(block: PostgresResultStorage) -> None:
    loaded = Block.load(f"postgres-result-storage/{block.name}")
    assert isinstance(loaded, PostgresResultStorage)
    assert loaded.storage is block.storage
    assert block.url is not None
    assert block.url.get_secret_value() not in repr(loaded) + str(loaded.model_dump(mode="json"))
    client = prefect.client.orchestration.get_client(sync_client=True)
    shown = client.read_block_document_by_name(block.name, "postgres-result-storage", include_secrets=False)
    assert shown.data["url"] == "********"


def test_a_block_has_one_place(shared_url: URL) -> None:
    url = psycopg_url(shared_url)
    with pytest.raises(ValueError, match="not both") as refused:
        PostgresResultStorage(url=url, path="somewhere")
    assert url not in str(refused.value)


def test_the_lock_manager_is_one_of_prefects(block: PostgresResultStorage) -> None:
    manager = block.lock_manager()
    assert isinstance(manager, LockManager)
    assert pickle.loads(pickle.dumps(manager)) == manager
    assert TheirStore(result_storage=block, lock_manager=manager).supports_isolation_level(SERIALIZABLE)


@pytest.mark.parametrize("serializer", ["pickle", "json", "compressed/pickle", "compressed/json"])
def test_a_record_comes_back_as_prefect_wrote_it(
    block: PostgresResultStorage, ours: ResultStore, serializer: str, tmp_path: Path
) -> None:
    expiration = datetime.now(UTC) + timedelta(hours=1)
    result = {"a": [1, "é"], "b": None}
    for storage in (block, LocalFileSystem(basepath=str(tmp_path))):
        store = TheirStore(result_storage=storage, serializer=prefect.serializers.Serializer(type=serializer))
        record = store.create_result_record(result, key="folder/key", expiration=expiration)
        store.persist_result_record(record)
        read = TheirStore(result_storage=storage).read("folder/key")
        assert (read.metadata, read.result) == (record.metadata, result)
    assert ours.read("folder/key").result == result
    entry = ours.history("folder/key")[0]
    assert entry.expiration == expiration
    assert ours.expiring(timedelta(hours=2))[0].serializer == serializer


def test_payloads_are_stored_as_raw_bytes(block: PostgresResultStorage, ours: ResultStore) -> None:
    store = TheirStore(result_storage=block)
    store.write(b"\x00" * 30_000, key="k")
    size = ours.history("k")[0].size
    assert size is not None
    assert 30_000 <= size < 30_100, "base64 would be a third more"


def test_what_is_no_record_is_kept_as_it_is(block: PostgresResultStorage) -> None:
    blobs = (b"", b"\x00\xff", b"{", b'{"metadata": {}, "result": "x"}', b'{"metadata": 1, "result": 2}', b"[1]")
    for blob in blobs:
        block.write_path("blob", blob)
        assert block.read_path("blob") == blob


def test_prefect_reads_what_pgresults_wrote(block: PostgresResultStorage, ours: ResultStore) -> None:
    ours.write({"a": 1}, key="k")
    assert TheirStore(result_storage=block).read("k").result == {"a": 1}


async def test_both_ways_of_calling(block: PostgresResultStorage) -> None:
    await block.write_path("k", b"awaited")
    assert block.read_path("k", _sync=True) == await block.read_path("k") == await block.aread_path("k") == b"awaited"
    with pytest.raises(MissingResult, match="never written"):
        await block.read_path("other")


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


@pytest.mark.skipif(
    "_holder" not in Transaction.__private_attributes__,
    reason="in this Prefect all tasks of a thread are one holder, whichever lock manager there is",
)
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


@pytest.mark.parametrize("key", ["with/slash", "absolute/", "späce ünïcode ✓", "a" * 2048, "%41{x}\\:?*"])
def test_keys_may_be_any_text(block: PostgresResultStorage, ours: ResultStore, key: str) -> None:
    store = TheirStore(result_storage=block)
    store.write("value", key=key)
    assert TheirStore(result_storage=block).read(key).result == "value"
    assert [listed.key for listed in page(ours.result_storage)] == [key.lstrip("/")]


def test_imported_files_are_read_back_equal(block: PostgresResultStorage, tmp_path: Path) -> None:
    files, keys = TheirStore(result_storage=LocalFileSystem(basepath=str(tmp_path))), ["a", "folder/b", "c"]
    for key in keys:
        files.write({"key": key, "time": datetime.now(UTC)}, key=key, expiration=datetime.now(UTC) + timedelta(hours=1))
    source = source_of(str(tmp_path))
    assert [one.outcome for one in import_files(block.storage, source, source.names())] == ["imported"] * 3
    imported = TheirStore(result_storage=block)
    for key in keys:
        ours, theirs = imported.read(key), files.read(key)
        assert (ours.metadata, ours.result) == (theirs.metadata, theirs.result)


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


def test_results_of_saved_blocks_are_imported(block: PostgresResultStorage, ours: ResultStore, tmp_path: Path) -> None:
    local, remote = LocalFileSystem(basepath=str(tmp_path)), RemoteFileSystem(basepath="memory://results/")
    for number, old in enumerate((local, remote)):
        name = f"{block.name}-{number}"
        old.save(name, _sync=True)
        TheirStore(result_storage=old).write(number, key=f"key-{number}")
        source = source_of(f"block:{old.get_block_type_slug()}/{name}")
        assert [one.outcome for one in import_files(block.storage, source, source.names())] == ["imported"]
        assert TheirStore(result_storage=block).read(f"key-{number}").result == number
    for refused in (f"postgres-result-storage/{block.name}", "local-file-system/none"):
        with pytest.raises(InvalidArgument, match=r"cannot be listed|no block"):
            source_of(f"block:{refused}")


def test_it_is_a_writable_file_system(block: PostgresResultStorage) -> None:
    assert isinstance(block, WritableFileSystem)
    assert isinstance(block.lock_manager(), PostgresLockManager)
