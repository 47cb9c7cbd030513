"""What programs for Prefect do with transactions."""

import asyncio
import threading
from pathlib import Path
from typing import Any

from pgresults import flow, task, transaction
from pgresults.locking.memory import MemoryLockManager
from pgresults.results import ResultStore
from pgresults.transactions import CommitMode, IsolationLevel, atransaction, get_transaction
from tests.tasks.snippets.table import Failure, caught, refused, works


@works
def a_file_is_removed_when_a_later_task_fails() -> None:
    file = Path("written.txt")

    @task
    def write(text: str) -> None:
        file.write_text(text)

    @write.on_rollback
    def remove(_: Any) -> None:
        file.unlink()

    @task
    def check() -> None:
        raise Failure

    @flow
    def pipeline(text: str) -> None:
        with transaction():
            write(text)
            assert file.exists()
            check()

    assert caught(pipeline, "text")
    assert not file.exists()


@works
def a_hook_is_told_of_the_commit() -> None:
    told: list[str] = []

    @task(cache_key_fn=lambda *_: "told")
    def write() -> int:
        return 1

    @write.on_commit
    def confirm(txn: Any) -> None:
        told.append(txn.key)

    @flow
    def pipeline() -> None:
        with transaction():
            write()
            assert told == []

    pipeline()
    assert told == ["told"]


@works
def work_with_a_key_is_done_once() -> None:
    done: list[int] = []

    @flow
    def pipeline() -> str:
        with transaction(key="download-and-write") as txn:
            if txn.is_committed():
                return "before"
            done.append(1)
            return "now"

    assert [pipeline(), pipeline(), *done] == ["now", "before", 1]


@works
def two_threads_under_one_lock_do_work_once() -> None:
    done: list[str] = []

    @flow
    def pipeline(key: str) -> None:
        store = ResultStore(lock_manager=MemoryLockManager())
        with transaction(key=key, isolation_level=IsolationLevel.SERIALIZABLE, store=store) as txn:
            if not txn.is_committed():
                done.append(threading.current_thread().name)

    threads = [threading.Thread(target=pipeline, args=("race",)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 1


@refused(
    ModuleNotFoundError, "pgresults.locking.filesystem", page="`FileSystemLockManager` (`prefect.locking.filesystem`)"
)
def locks_in_files() -> None:
    from pgresults.locking.filesystem import FileSystemLockManager  # type: ignore[import-not-found]

    FileSystemLockManager(lock_files_directory=Path("locks"))


@works
def what_was_set_is_there_for_hooks_and_children() -> None:
    @task
    def write(name: str) -> None:
        Path(name).write_text("text")

    @write.on_rollback
    def remove(txn: Any) -> None:
        Path(txn.get("name")).unlink()

    @flow
    def pipeline(name: str) -> None:
        with transaction() as txn:
            txn.set("name", name)
            write(name)
            with transaction() as child:
                assert child.get("name") == name
                assert child.get("nothing", None) is None
            raise Failure

    assert caught(pipeline, "named.txt")
    assert not Path("named.txt").exists()


@works
def what_is_staged_is_read_afterwards() -> None:
    store = ResultStore()
    with transaction(key="outer", store=store) as outer:
        outer.stage({"a": 1}, on_rollback_hooks=[], on_commit_hooks=[])
        with transaction(key="inner", store=store, commit_mode=CommitMode.EAGER) as inner:
            assert get_transaction() is inner
            inner.stage(2, None, None)
        assert store.read("inner").result == 2
    assert outer.read().result == {"a": 1}  # type: ignore[union-attr]
    with transaction(key="outer", store=store, overwrite=True) as again:
        assert not again.is_committed()
        again.stage(store.create_result_record(3, key="outer"))
    assert store.read("outer").result == 3
    with transaction(key="hooks alone", store=store, write_on_commit=False) as alone:
        alone.stage(4)
    assert alone.is_committed()
    assert not store.exists("hooks alone")


@works
def a_commit_that_is_off_is_rolled_back() -> None:
    undone: list[str] = []
    with transaction(key="off", commit_mode=CommitMode.OFF) as txn:
        txn.stage(1, on_rollback_hooks=[lambda txn: undone.append(txn.key)])
    assert undone == ["off"]
    with transaction(key="off", commit_mode=CommitMode.OFF) as txn:
        txn.stage(1)
        assert txn.commit()
    assert txn.is_committed()


@works
def transactions_on_an_event_loop() -> None:
    async def program() -> None:
        async with atransaction(key="loop", store=ResultStore()) as txn:
            txn.stage(1)
        assert txn.is_committed()
        assert (await ResultStore().aread("loop")).result == 1

    asyncio.run(program())


@refused(TypeError, "'await' expression", page="`await txn.acommit()`, `await txn.aread()`")
def a_transaction_is_read_by_awaiting() -> None:
    async def program() -> None:
        async with atransaction(key="await", store=ResultStore()) as txn:
            txn.stage(1)
        await txn.read()  # type: ignore[misc]

    asyncio.run(program())


@works
def an_async_hook_of_a_plain_transaction_on_a_loop() -> None:
    told: list[str] = []

    async def hook(txn: Any) -> None:
        await asyncio.sleep(0)
        told.append(txn.key)

    async def program() -> None:
        with transaction(key="hooked", store=ResultStore()) as txn:
            txn.stage(1, on_commit_hooks=[hook])

    asyncio.run(program())
    assert told == ["hooked"]
