"""What programs for Prefect do with results, transactions, caching and tasks, with only the import renamed.

Each is a shape that stands in Prefect's documentation or in public programs, in words of our own. It works as there, or
is refused with a sentence that helps, or differs in a way that the quickstart names.
"""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from pgresults import flow, task, transaction, unmapped
from pgresults.cache_policies import INPUTS, NO_CACHE, NONE, RUN_ID, TASK_SOURCE, CacheKeyFnPolicy, CachePolicy
from pgresults.context import TaskRunContext, get_run_context
from pgresults.errors import ConfigurationError, InvalidArgument
from pgresults.locking.memory import MemoryLockManager
from pgresults.results import ResultStore, get_result_store
from pgresults.runtime import flow_run, task_run
from pgresults.serializers import CompressedSerializer, JSONSerializer, Serializer
from pgresults.tasks import task_input_hash
from pgresults.transactions import CommitMode, IsolationLevel, atransaction, get_transaction


class Snippet(NamedTuple):
    """A program, and what comes of it.

    ``error`` and ``says``: how it is refused; ``page``: what the quickstart says of it.
    """

    run: Callable[[], object]
    error: type[BaseException] | None = None
    says: str = ""
    page: str = ""


SNIPPETS: dict[str, Snippet] = {}


def works(run: Callable[[], object]) -> Callable[[], object]:
    """It does here what it does there."""
    SNIPPETS[run.__name__] = Snippet(run)
    return run


def refused(error: type[BaseException], says: str, page: str = "") -> Callable[..., Callable[[], object]]:
    """It is refused, with a sentence or by what Python says, and then the page says more."""

    def add(run: Callable[[], object]) -> Callable[[], object]:
        SNIPPETS[run.__name__] = Snippet(run, error, says, page)
        return run

    return add


def differs(page: str) -> Callable[..., Callable[[], object]]:
    """It does something else, as the page says."""

    def add(run: Callable[[], object]) -> Callable[[], object]:
        SNIPPETS[run.__name__] = Snippet(run, page=page)
        return run

    return add


SEE = r"\(see docs/quickstart\.md, 'What is not here'\)"


class Failure(Exception):  # noqa: N818 (not an error of the program)
    """What goes wrong."""


def caught(function: Callable[..., Any], *args: Any) -> bool:
    """Whether a call fails."""
    try:
        function(*args)
    except Failure:
        return True
    return False


# Transactions


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


# Results


@works
def a_template_is_the_key() -> None:
    @task(result_storage_key="hello-{parameters[name]}.pickle")
    def hello(name: str = "world") -> str:
        return f"hello {name}"

    @flow
    def program() -> None:
        hello()
        hello(name="you")

    program()
    assert [ResultStore().read(f"hello-{name}.pickle").result for name in ("world", "you")] == [
        "hello world",
        "hello you",
    ]


@works
def each_task_keeps_its_results_in_its_own_way() -> None:
    @task
    def compute() -> int:
        return 42

    unpersisted = compute.with_options(persist_result=False)
    as_json = compute.with_options(result_serializer="json", result_storage_key="as-json")

    @flow(persist_result=True, cache_result_in_memory=False)
    def program() -> list[int]:
        return [compute(), unpersisted(), as_json()]

    assert program() == [42] * 3
    assert ResultStore().read("as-json").metadata.serializer == JSONSerializer()


@refused(ConfigurationError, r"no storage s3-bucket/mine .* a block of Prefect's as the block that was loaded")
def a_block_is_named() -> None:
    @flow(result_storage="s3-bucket/mine")
    def program() -> int:
        return 1

    program()


@refused(ModuleNotFoundError, "pgresults.filesystems", page="`prefect.filesystems`: `LocalFileSystem`, S3")
def results_are_kept_in_files() -> None:
    from pgresults.filesystems import LocalFileSystem  # type: ignore[import-not-found]

    ResultStore(result_storage=LocalFileSystem(basepath="results"))


@works
def a_record_says_what_it_is() -> None:
    store = ResultStore()
    metadata = store.write({"answer": 42}, key="my-result")
    record = store.read(key="my-result")
    assert (record.result, record.metadata.storage_key, record.metadata.expiration) == (
        {"answer": 42},
        "my-result",
        None,
    )
    assert record.metadata == metadata
    assert record.metadata.serializer.type == "pickle"
    assert type(record).from_metadata(metadata).result == {"answer": 42}


@works
def serializers_compress_and_are_ones_own() -> None:
    class Reversed(Serializer[str]):
        type: str = "snippet-reversed"

        def dumps(self, obj: str) -> bytes:
            return obj[::-1].encode()

        def loads(self, blob: bytes) -> str:
            return blob.decode()[::-1]

    for serializer in (Reversed(), "compressed/json", CompressedSerializer(serializer="json", compressionlib="zlib")):
        store = ResultStore(serializer=serializer)
        store.write("text", key="serialized")
        assert store.read("serialized").result == "text"


@works
def json_is_written_without_spaces() -> None:
    store = ResultStore(serializer=JSONSerializer(dumps_kwargs={"separators": (",", ":")}))
    assert store.write({"a": [1, 2]}, key="compact").size == len('{"a":[1,2]}')


@refused(ValueError, "takes a function or class, which no record can hold: name a function in 'object_encoder'")
def json_is_encoded_by_a_class() -> None:
    import json

    JSONSerializer(dumps_kwargs={"cls": json.JSONEncoder})


@refused(ConfigurationError, "unknown serializer type 'parquet'; the known types are")
def an_unknown_serializer() -> None:
    ResultStore(serializer="parquet")


@works
def a_task_reads_with_the_store_around() -> None:
    @task(persist_result=True, result_storage_key="first")
    def first() -> int:
        return 1

    @task
    def second() -> int:
        return get_result_store().read("first").result + 1  # type: ignore[no-any-return]

    @flow
    def program() -> int:
        first()
        return second()

    assert program() == 2


# Caching


@works
def source_and_inputs_make_the_key() -> None:
    ran: list[int] = []

    @task(cache_policy=TASK_SOURCE + INPUTS, cache_expiration=timedelta(days=1))
    def add(x: int) -> int:
        ran.append(x)
        return x + 42

    assert [add(1), add(1), add(2), *ran] == [43, 43, 44, 1, 2]


@works
def an_input_is_left_out() -> None:
    ran: list[int] = []

    @task(cache_policy=INPUTS - "debug")
    def add(x: int, debug: bool = False) -> int:
        ran.append(x)
        return x + 42

    assert [add(1), add(1, debug=True), *ran] == [43, 43, 1]


@works
def a_function_makes_the_key() -> None:
    @task(cache_key_fn=lambda context, parameters: f"{context.task.name}-{parameters['x']}")
    def add(x: int) -> int:
        return x + 1

    @task(cache_key_fn=task_input_hash, refresh_cache=False)
    def hashed(x: int) -> int:
        return x + 1

    assert [add(1), add(1), hashed(1), hashed(1)] == [2] * 4
    assert (add.cache_info().hits, hashed.cache_info().hits, ResultStore().exists("add-1")) == (1, 1, True)


@refused(InvalidArgument, "cache_key_fn is called, and not awaited: give a plain function")
def an_async_function_makes_the_key() -> None:
    async def key(_context: Any, _parameters: Any) -> str:
        return "k"

    task(cache_key_fn=key)(print)


@refused(InvalidArgument, r"'/path/to/keys' looks like a directory.* give Path\('/path/to/keys'\)")
def keys_are_kept_in_a_directory() -> None:
    (TASK_SOURCE + INPUTS).configure(key_storage="/path/to/keys")


@works
def one_thread_computes_for_both() -> None:
    ran: list[int] = []
    policy = INPUTS.configure(isolation_level=IsolationLevel.SERIALIZABLE, lock_manager=MemoryLockManager())

    @task(cache_policy=policy)
    def add(x: int) -> int:
        ran.append(x)
        return x + 42

    threads = [threading.Thread(target=add, args=(2,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ran == [2]


@differs("every key of a policy names the task")
def two_tasks_of_equal_inputs_have_a_key_each() -> None:
    @task(cache_policy=INPUTS)
    def one(x: int) -> int:
        return x + 42

    @task(cache_policy=INPUTS)
    def other(x: int) -> int:
        return x + 43

    assert (one(1), other(1)) == (43, 44)


@works
def nothing_is_cached_when_a_later_task_fails() -> None:
    ran: list[str] = []

    @task(cache_key_fn=lambda *_: "static-1")
    def load() -> str:
        ran.append("load")
        return "data"

    @task(cache_key_fn=lambda *_: "static-2")
    def process(data: str, fail: bool) -> int:
        if fail:
            raise Failure
        return len(data)

    @flow
    def program(fail: bool = True) -> int:
        with transaction():
            return process(data=load(), fail=fail)

    assert caught(program)
    assert program(fail=False) == program(fail=False) == 4
    assert ran == ["load", "load"]


class Closed:
    """What cannot be pickled."""

    def __getstate__(self) -> Any:
        raise TypeError("not serializable")


class Holding(BaseModel):
    """A model with such a one in it."""

    model_config = ConfigDict(arbitrary_types_allowed=True)
    name: str
    closed: Closed


@works
def what_cannot_be_hashed_has_a_key_of_its_own() -> None:
    @task(cache_policy=CacheKeyFnPolicy(cache_key_fn=lambda _, parameters: parameters["it"].name) + RUN_ID)
    def use(it: Holding) -> str:
        return it.name

    @flow
    def program() -> int:
        for _ in range(2):
            use(Holding(name="test", closed=Closed()))
        return use.cache_info().hits

    assert program() == 1


@refused(TypeError, rf"'return_state'; instead: the call returns the result or raises.* {SEE}")
def a_call_gives_a_state() -> None:
    @task(cache_policy=INPUTS)
    def add(x: int) -> int:
        return x

    add(1, return_state=True)  # type: ignore[call-arg]


@works
def a_policy_of_ones_own() -> None:
    @dataclass
    class ByDay(CachePolicy):
        day: str = "monday"

        def compute_key(self, task_ctx: TaskRunContext, inputs: Any, flow_parameters: Any, **_: Any) -> str:
            return f"{task_ctx.task.name}-{inputs['x']}-{self.day}"

    @task(cache_policy=ByDay())
    def add(x: int) -> int:
        return x + 1

    assert (add(1), ResultStore().read("add-1-monday").result) == (2, 2)


@works
def nothing_is_cached() -> None:
    ran: list[int] = []
    for policy in (NO_CACHE, NONE):

        @task(cache_policy=policy)
        def add(x: int) -> None:
            ran.append(x)

        add(1)
        add(1)
    assert ran == [1] * 4


# Tasks and flows


@refused(
    TypeError,
    rf"a task has no option 'retries'; instead: a retry library.* {SEE}\. Its options are name, persist_result",
)
def a_task_is_tried_again() -> None:
    task(retries=3, retry_delay_seconds=[1, 2])(print)  # type: ignore[call-overload]


@refused(TypeError, rf"a flow has no option 'log_prints'; instead: logging\.getLogger\(__name__\) {SEE}")
def prints_are_logged() -> None:
    flow(log_prints=True)(print)  # type: ignore[call-overload]


@refused(TypeError, rf"a flow has no option 'flow_run_name'; instead: name=.* {SEE}")
def runs_are_named() -> None:
    flow(flow_run_name="on-{day}")(print)  # type: ignore[call-overload]


@refused(TypeError, rf"a task has no option 'tags'; instead: tags= and provenance= of ResultStore\.write.* {SEE}")
def a_task_has_tags() -> None:
    task(tags=["database"])(print)  # type: ignore[call-overload]


@refused(TypeError, rf"a task has no option 'timeout_seconds'; instead: asyncio\.timeout.* {SEE}")
def a_task_has_a_time_out() -> None:
    task(timeout_seconds=5)(print)  # type: ignore[call-overload]


@refused(TypeError, rf"a flow has no option 'on_failure'; instead: try/except around the call.* {SEE}")
def a_hook_is_told_of_a_failure() -> None:
    flow(on_failure=[print])(print)  # type: ignore[call-overload]


@refused(TypeError, r"a task has no option 'cache_polcy'; see docs/quickstart\.md.* Its options are .*cache_policy")
def an_option_is_misspelt() -> None:
    task(cache_polcy=INPUTS)(print)  # type: ignore[call-overload]


@refused(ImportError, rf"pgresults has no get_run_logger; instead: logging\.getLogger\(__name__\) {SEE}")
def a_run_has_a_logger() -> None:
    from pgresults import get_run_logger  # noqa: F401


@refused(AttributeError, rf"has no 'submit'; instead: my_task\.map\(\.\.\.\).* {SEE}")
def a_call_is_submitted() -> None:
    task(print).submit("text").result()  # type: ignore[attr-defined]


@refused(TypeError, rf"'wait_for'; instead: the order of the calls {SEE}")
def a_call_waits_for_others() -> None:
    @task
    def add(x: int) -> int:
        return x

    add(1, wait_for=[])  # type: ignore[call-arg]


@refused(AttributeError, rf"has no 'serve'; instead: a scheduler or job queue.* {SEE}")
def a_flow_is_served() -> None:
    flow(print).serve(name="deployed")  # type: ignore[attr-defined]


@works
def a_task_is_mapped() -> None:
    @task(cache_policy=INPUTS)
    def add(x: int, y: int) -> int:
        return x + y

    @flow
    def program() -> list[int]:
        return add.map([1, 2, 3], unmapped(10))

    assert program() == [11, 12, 13]


@refused(
    AttributeError, "'list' object has no attribute 'result'", page="| `task.map(…)` | futures | a list of results"
)
def mapped_calls_are_futures() -> None:
    @task(cache_policy=INPUTS)
    def add(x: int) -> int:
        return x

    add.map([1, 2]).result()  # type: ignore[attr-defined]


@differs('are checked against their annotations and coerced: `"5"` becomes 5 | are taken as they are')
def parameters_of_flows_are_coerced() -> None:
    @flow
    def program(number: int) -> object:
        return number

    assert program("5") == "5"  # type: ignore[arg-type]


@works
def runs_know_who_they_are() -> None:
    @task
    def inner() -> tuple[Any, ...]:
        return task_run.task_name, flow_run.flow_name, get_run_context().task.name  # type: ignore[union-attr]

    @flow(name="nightly")
    def program() -> tuple[Any, ...]:
        return inner()

    assert program() == ("inner", "nightly", "inner")


@works
def async_tasks_run_together() -> None:
    @task(cache_policy=INPUTS)
    async def double(x: int) -> int:
        await asyncio.sleep(0)
        return 2 * x

    @flow(persist_result=True)
    async def program() -> list[int]:
        return await asyncio.gather(*(double(x) for x in range(3)))

    assert asyncio.run(program()) == [0, 2, 4]


@differs("raises, after everything is rolled back")
def a_commit_that_fails_is_told() -> None:
    def hook(_: Any) -> None:
        raise Failure

    def program() -> None:
        with transaction(key="fails", store=ResultStore()) as txn:
            txn.stage(1, on_commit_hooks=[hook])

    assert caught(program)
    assert not ResultStore().exists("fails")
