"""Spans: which there are, what they say, whose children they are."""

import asyncio
import threading
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode
from sqlalchemy import URL, make_url

from pgresults import PostgresStorage, ResultStore, task, transaction
from pgresults.cache_policies import INPUTS
from pgresults.database.telemetry import attributes_of
from pgresults.errors import InvalidArgument, MissingResult, SerializationError, StorageUnavailable
from pgresults.settings import current_settings
from tests.support.calls import Call
from tests.telemetry.conftest import Telemetry, parents

TRACER = trace.get_tracer("tests")


async def test_a_write_and_a_read_say_what_the_conventions_ask_for(
    telemetry: Telemetry, store: ResultStore, storage: PostgresStorage, call: Call
) -> None:
    await call(store, "write", b"x" * 100, key="secret/1")
    await call(store, "read", "secret/1")
    write, read = telemetry.span("write"), telemetry.span("read")
    url = storage.database.url()
    for span in (write, read):
        assert span.kind is SpanKind.CLIENT
        assert span.status.status_code is StatusCode.UNSET
        said = dict(span.attributes or {})
        assert said["db.system.name"] == "postgresql"
        assert said["db.namespace"] == f"{url.database}|pgresults"
        assert span.name == f"{said['db.operation.name']} {url.database}|pgresults"
        assert said["server.address"] == (url.host or url.query["host"])
        assert said["pgresults.storage"] == storage.name
        assert said["pgresults.payload.size"] > 100
        assert "error.type" not in said
        assert "secret" not in f"{span.name} {said}"
    assert dict(read.attributes or {})["pgresults.hit"] is True


def test_what_is_not_there_is_an_answer_and_no_error(telemetry: Telemetry, store: ResultStore) -> None:
    with pytest.raises(MissingResult):
        store.read("k")
    assert not store.exists("k")
    for operation in ("read", "exists"):
        span = telemetry.span(operation)
        assert span.status.status_code is StatusCode.UNSET
        assert dict(span.attributes or {})["pgresults.hit"] is False


def test_many_written_at_once_are_a_batch(telemetry: Telemetry, store: ResultStore) -> None:
    store.write_many({"a": 1, "b": 2, "c": 3})
    store.write_many(((f"k{number}", b"x" * 100) for number in range(5)), atomic=False)
    store.write_many({"alone": 1})
    assert sorted(store.read_many(["a", "b", "z"])) == ["a", "b"]
    assert store.exists_many(["a", "z"]) == {"a"}
    said = [dict(span.attributes or {}) for span in telemetry.spans("BATCH write")]
    assert [one.get("db.operation.batch.size") for one in said] == [3, 5, None]
    assert said[1]["pgresults.payload.size"] >= 500
    batch, read = telemetry.spans("BATCH write")[0], telemetry.span("read_many")
    assert dict(telemetry.span("exists_many").attributes or {})["pgresults.found"] == 1
    assert batch.name.startswith("BATCH write ")
    assert dict(read.attributes or {})["pgresults.found"] == 2
    assert "db.operation.batch.size" not in dict(read.attributes or {})


def test_files_are_a_write_when_they_are_closed_and_a_read_when_they_are_opened(
    telemetry: Telemetry, store: ResultStore
) -> None:
    with store.open_write("k") as file:
        file.write(b"12345")
        assert telemetry.spans() == []
    with store.open_read("k") as file:
        assert file.read() == b"12345"
    sizes = [dict(telemetry.span(name).attributes or {})["pgresults.payload.size"] for name in ("write", "read")]
    assert sizes == [5, 5]


def test_paths_as_prefect_uses_them(telemetry: Telemetry, storage: PostgresStorage) -> None:
    storage.write_path("p", b"12345")
    assert storage.read_path("p") == b"12345"
    with pytest.raises(MissingResult):
        storage.read_path("q")
    sizes = [dict(span.attributes or {}).get("pgresults.payload.size") for span in telemetry.spans()]
    assert sizes == [5, 5, None]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_tasks_span_is_around_its_read_and_write(telemetry: Telemetry, storage: PostgresStorage, kind: str) -> None:
    double: Any = doubling(storage, kind)
    with TRACER.start_as_current_span("caller"):
        for _ in range(2):
            called(double, 1)
    spans = telemetry.spans()
    miss, hit = telemetry.spans("task")
    assert miss.name == f"task {double.name}"
    assert miss.kind is SpanKind.INTERNAL
    assert [dict(span.attributes or {})["pgresults.hit"] for span in (miss, hit)] == [False, True]
    assert parents(telemetry.span("write"), spans) == ["commit", "task", "caller"]
    assert parents(telemetry.span("user"), spans) == ["task", "caller"]
    assert [parents(span, spans) for span in telemetry.spans("read")] == [["task", "caller"]] * 2
    assert trace.get_current_span() is trace.INVALID_SPAN


def doubling(storage: PostgresStorage, kind: str) -> Any:
    if kind == "sync":

        @task(result_storage=storage, cache_policy=INPUTS)
        def double(n: int) -> int:
            with TRACER.start_as_current_span("user"):
                return 2 * n

        return double

    @task(result_storage=storage, cache_policy=INPUTS)
    async def adouble(n: int) -> int:
        with TRACER.start_as_current_span("user"):
            return 2 * n

    return adouble


def called(function: Any, *args: Any) -> Any:
    return asyncio.run(function(*args)) if function.isasync else function(*args)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_calls_of_a_map_are_children_of_who_maps(telemetry: Telemetry, storage: PostgresStorage, kind: str) -> None:
    double: Any = doubling(storage, kind)
    with TRACER.start_as_current_span("caller"):
        results = asyncio.run(double.amap(range(20))) if kind == "async" else double.map(range(20))
    assert results == [2 * n for n in range(20)]
    spans = telemetry.spans()
    assert [parents(span, spans) for span in telemetry.spans("task")] == [["caller"]] * 20
    assert [parents(span, spans) for span in telemetry.spans("write")] == [["commit", "task", "caller"]] * 20
    by_task = {span.parent.span_id for span in telemetry.spans("user") if span.parent}
    assert by_task == {span.context.span_id for span in telemetry.spans("task") if span.context}


def test_coroutines_beside_each_other_keep_their_own(telemetry: Telemetry, store: ResultStore) -> None:
    async def work(number: int) -> None:
        with TRACER.start_as_current_span(f"caller-{number}"):
            await store.awrite(number, key=f"k{number}")
            await store.aread(f"k{number}")

    async def all_of_them() -> None:
        await asyncio.gather(*map(work, range(10)))

    asyncio.run(all_of_them())
    spans = telemetry.spans()
    for operation in ("read", "write"):
        around = [parents(span, spans) for span in telemetry.spans(operation)]
        assert sorted(around) == [[f"caller-{number}"] for number in range(10)]


def test_a_failure_is_a_status_and_a_type_and_no_message(telemetry: Telemetry, storage: PostgresStorage) -> None:
    @task(result_storage=storage, cache_policy=INPUTS)
    def fail(secret: str) -> None:
        raise LookupError(secret)

    with pytest.raises(LookupError):
        fail("hidden")
    failed = telemetry.span("task")
    assert failed.status.status_code is StatusCode.ERROR
    assert failed.status.description is None
    assert dict(failed.attributes or {})["error.type"] == "LookupError"
    assert failed.events == ()
    assert "hidden" not in failed.to_json()


def test_what_the_server_called_a_failure_is_its_type(telemetry: Telemetry, shared_url: URL) -> None:
    storage = PostgresStorage(shared_url.set(database="no_such_database"))
    with pytest.raises(Exception, match="no_such_database"):
        ResultStore(result_storage=storage).write(1, key="k")
    failed = telemetry.span("write")
    assert dict(failed.attributes or {})["error.type"] == "3D000"
    assert dict(failed.attributes or {})["db.response.status_code"] == "3D000"
    storage.close()


def test_an_outage_and_what_is_no_result(telemetry: Telemetry, store: ResultStore) -> None:
    gone = PostgresStorage("postgresql://u:hidden@localhost:1/d")
    with pytest.raises(StorageUnavailable):
        ResultStore(result_storage=gone).read("k")
    with pytest.raises(SerializationError):
        store.write(threading.Lock(), key="k")
    read, write = telemetry.span("read"), telemetry.span("write")
    assert dict(read.attributes or {})["error.type"] == "pgresults.errors.StorageUnavailable"
    assert dict(read.attributes or {})["server.port"] == 1
    assert dict(write.attributes or {})["error.type"] == "pgresults.errors.SerializationError"
    assert "hidden" not in read.to_json() + write.to_json()
    gone.close()


def test_arguments_of_no_use_are_refused_as_ever(telemetry: Telemetry, store: ResultStore) -> None:
    wrong: Any = 5
    for refused in (
        lambda: store.write_many(wrong),
        lambda: store.read_many(wrong),
        lambda: store.read(wrong),
        lambda: store.write(1, key=wrong),
    ):
        with pytest.raises((InvalidArgument, TypeError)):
            refused()
    assert {span.status.status_code for span in telemetry.spans()} == {StatusCode.ERROR}


def test_keys_are_named_where_that_was_asked_for(telemetry: Telemetry, shared_url: URL) -> None:
    settings = current_settings().model_copy(update={"telemetry_keys": True})
    storage = PostgresStorage(shared_url, "telling", settings=settings)
    with transaction("k", ResultStore(result_storage=storage)) as txn:
        txn.stage(1)
    assert dict(telemetry.span("write").attributes or {})["pgresults.key"] == "k"
    storage.close()


def test_a_tree_is_one_commit(telemetry: Telemetry, store: ResultStore) -> None:
    with transaction("a", store) as outer:
        outer.stage(1)
        with transaction("b", store) as inner:
            inner.stage(2)
    assert parents(telemetry.span("BATCH write"), telemetry.spans()) == ["commit"]
    assert dict(telemetry.span("commit").attributes or {})["pgresults.committed"] is True


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_waiting_for_a_lock_is_a_span(telemetry: Telemetry, guarded: ResultStore, kind: str) -> None:
    guarded.acquire_lock("k", "me")
    if kind == "sync":
        taken = guarded.acquire_lock("k", "you", timeout=0.05)
    else:
        taken = asyncio.run(guarded.aacquire_lock("k", "you", timeout=0.05))
    assert taken is False
    guarded.release_lock("k", "me")
    assert guarded.acquire_lock("k", "you")
    guarded.release_lock("k", "you")
    wait = telemetry.span("wait_for_lock")
    assert dict(wait.attributes or {})["pgresults.lock.acquired"] is False
    assert [point.count for point in telemetry.points("pgresults.lock.wait_time")] == [1]


def test_a_cancelled_call_leaves_nothing_behind(telemetry: Telemetry, guarded: ResultStore) -> None:
    guarded.acquire_lock("k", "me")

    async def cancelled() -> None:
        with TRACER.start_as_current_span("caller") as caller:
            waiting = asyncio.ensure_future(guarded.aacquire_lock("k", "you"))
            done, _ = await asyncio.wait([waiting], timeout=0.2)
            assert not done
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert trace.get_current_span() is caller

    asyncio.run(cancelled())
    guarded.release_lock("k", "me")
    said = dict(telemetry.span("wait_for_lock").attributes or {})
    assert said["error.type"] == "asyncio.exceptions.CancelledError"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://u:p@db.example.com/team", {"db.namespace": "team|s", "server.address": "db.example.com"}),
        (
            "postgresql://u:p@db.example.com:6432/team",
            {"db.namespace": "team|s", "server.address": "db.example.com", "server.port": 6432},
        ),
        ("postgresql:///team?host=/run/postgresql", {"db.namespace": "team|s", "server.address": "/run/postgresql"}),
        ("postgresql:///team?host=a&host=b", {"db.namespace": "team|s", "server.address": "a,b"}),
        ("postgresql:///?service=team", {"db.namespace": "s"}),
        ("postgresql:///?dbname=team&password=p", {"db.namespace": "team|s"}),
    ],
)
def test_a_database_is_named_without_what_is_secret(url: str, expected: dict[str, Any]) -> None:
    assert attributes_of(make_url(url), None, "s") == {"db.system.name": "postgresql", **expected}
