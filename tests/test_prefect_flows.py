"""Real flows on a real, ephemeral Prefect server, with results and locks in Postgres."""

import asyncio
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import URL

from conftest import psycopg_url
from pgresults.errors import MissingResult
from pgresults.store import ResultStore

pytestmark = [
    pytest.mark.prefect,
    pytest.mark.filterwarnings("default"),  # Prefect and its server have warnings of their own
]
prefect: Any = pytest.importorskip("prefect", reason="needs an installed Prefect")
from prefect import flow, task  # noqa: E402
from prefect.blocks.core import Block  # noqa: E402
from prefect.cache_policies import INPUTS  # noqa: E402
from prefect.filesystems import LocalFileSystem, WritableFileSystem  # noqa: E402
from prefect.locking.protocol import LockManager  # noqa: E402
from prefect.results import ResultRecord as TheirRecord  # noqa: E402
from prefect.results import ResultStore as TheirStore  # noqa: E402
from prefect.task_runners import ThreadPoolTaskRunner  # noqa: E402
from prefect.testing.utilities import prefect_test_harness  # noqa: E402
from prefect.transactions import IsolationLevel, Transaction, transaction  # noqa: E402

from pgresults.integrations.prefect import PostgresLockManager, PostgresResultStorage  # noqa: E402
from pgresults.integrations.prefect_files import import_files, source_of  # noqa: E402

SQL = Callable[[str], list[tuple[Any, ...]]]
SERIALIZABLE = IsolationLevel.SERIALIZABLE


@pytest.fixture(scope="module", autouse=True)
def _server() -> Iterator[None]:
    with prefect_test_harness():
        yield


@pytest.fixture
def block(shared_url: URL) -> PostgresResultStorage:
    """A saved block on a storage of the test's own."""
    name = f"test-{uuid4().hex}"
    block = PostgresResultStorage(url=psycopg_url(shared_url), name=name)
    block.save(name)
    return block


@pytest.fixture
def sql(block: PostgresResultStorage) -> SQL:
    """Asks the tables of the block's storage; ``%(storage)s`` is its id."""

    def ask(query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(psycopg_url(block.storage.database.url())) as connection:
            connection.execute("SET search_path TO pgresults")
            return connection.execute(query, {"storage": block.storage.id}).fetchall()

    return ask


@pytest.fixture
def ours(block: PostgresResultStorage) -> ResultStore:
    """The same results, as pgresults sees them."""
    return ResultStore(result_storage=block.storage)


def test_the_block_comes_back_from_the_server_without_showing_its_url(block: PostgresResultStorage) -> None:
    loaded = Block.load(f"postgres-result-storage/{block.name}")
    assert isinstance(loaded, PostgresResultStorage)
    assert loaded.storage is block.storage
    assert block.url is not None
    assert block.url.get_secret_value() not in repr(loaded) + str(loaded.model_dump(mode="json"))


def test_a_block_has_one_place(shared_url: URL) -> None:
    with pytest.raises(ValueError, match="not both"):
        PostgresResultStorage(url=psycopg_url(shared_url), path="somewhere")


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


def test_the_default_block_is_found_by_its_name(
    block: PostgresResultStorage, ours: ResultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    @task(cache_key_fn=lambda *_: "by default")
    def one() -> int:
        return 1

    @flow(persist_result=True)
    def default() -> int:
        return one()

    with prefect.settings.temporary_settings(
        {prefect.settings.PREFECT_DEFAULT_RESULT_STORAGE_BLOCK: f"postgres-result-storage/{block.name}"}
    ):
        assert default() == 1
    assert ours.read("by default").result == 1


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
    assert len(ours.storage().page()) == 1


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


def test_a_rollback_stores_nothing(block: PostgresResultStorage, ours: ResultStore) -> None:
    undone = []

    @task(cache_key_fn=lambda *_: "first", result_storage=block)
    def first() -> int:
        return 1

    @first.on_rollback
    def undo(_: Any) -> None:
        undone.append(1)

    @task
    def second() -> None:
        raise ValueError("broken")

    @flow
    def both() -> None:
        with transaction():
            first()
            second()

    with pytest.raises(ValueError, match="broken"):
        both()
    assert undone == [1]
    assert not ours.exists("first")


def test_prefects_transaction_with_our_store_and_locks(block: PostgresResultStorage, ours: ResultStore) -> None:
    store = TheirStore(result_storage=block, lock_manager=block.lock_manager())
    with transaction(key="key", store=store, isolation_level=SERIALIZABLE) as first:
        assert ours.storage().lock_manager().is_locked("key")
        first.stage("value")
    with transaction(key="key", store=store, isolation_level=SERIALIZABLE) as again:
        assert again.is_committed()
        record = again.read()
        assert isinstance(record, TheirRecord)
        assert record.result == "value"
    assert not block.lock_manager().is_locked("key")


def test_a_background_workers_parameters(block: PostgresResultStorage, ours: ResultStore) -> None:
    @task(result_storage=block)
    def double(number: int) -> int:
        return 2 * number

    double.delay(4)
    [listed] = ours.storage().page("parameters/")
    assert TheirRecord.deserialize(block.read_path(listed.key)).result["parameters"] == {"number": 4}


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


WORKER = """
import os, sys, time
from pathlib import Path
from prefect.results import ResultStore
from prefect.transactions import IsolationLevel, transaction
from pgresults.integrations.prefect import PostgresResultStorage

url, name, marks, kind = sys.argv[1:]
block = PostgresResultStorage(url=url, name=name)
store = ResultStore(result_storage=block, lock_manager=block.lock_manager())
with transaction(key="key", store=store, isolation_level=IsolationLevel.SERIALIZABLE) as open:
    if not open.is_committed():
        Path(marks, str(os.getpid())).touch()
        print("inside", flush=True)
        if kind == "hangs":
            time.sleep(600)
        open.stage("done")
print(time.time(), store.read("key").result, flush=True)
"""


def _worker(block: PostgresResultStorage, marks: Path, kind: str) -> "subprocess.Popen[str]":
    assert block.url is not None
    arguments = (block.url.get_secret_value(), block.storage.name, str(marks), kind)
    return subprocess.Popen([sys.executable, "-c", WORKER, *arguments], stdout=subprocess.PIPE, text=True)


@pytest.mark.timeout(100)
def test_processes_execute_once(block: PostgresResultStorage, tmp_path: Path) -> None:
    workers = [_worker(block, tmp_path, "works") for _ in range(4)]
    outputs = [worker.communicate()[0] for worker in workers]
    assert all(output.rstrip().endswith("done") for output in outputs)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.timeout(100)
def test_another_process_takes_over_from_a_killed_one(block: PostgresResultStorage, tmp_path: Path) -> None:
    hanging = _worker(block, tmp_path, "hangs")
    assert hanging.stdout is not None
    assert hanging.stdout.readline() == "inside\n"
    waiting = _worker(block, tmp_path, "works")
    os.kill(hanging.pid, signal.SIGKILL)
    hanging.wait()
    assert waiting.communicate()[0].rstrip().endswith("done")
    assert len(list(tmp_path.iterdir())) == 2


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


def test_it_is_a_writable_file_system(block: PostgresResultStorage) -> None:
    assert isinstance(block, WritableFileSystem)
    assert isinstance(block.lock_manager(), PostgresLockManager)
