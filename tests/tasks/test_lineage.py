"""What a task's result was computed from is recorded by itself: what it called, read and was given, and no more."""

import asyncio
import copy
import gc
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from pgresults import PostgresStorage, ResultStore, flow, task, transaction, unmapped
from pgresults.cache_policies import INPUTS, NO_CACHE
from pgresults.errors import MissingResult
from pgresults.records.lineage import SOURCES
from pgresults.records.remembering import REMEMBERED
from tests.support.database import psycopg_url
from tests.support.programs import python, written

STORED: dict[str, Any] = {}
CONFIGURATION = {"shared": [1, 2]}


class Frame:
    """Stands for an array or a frame: it can be referred to weakly."""

    def __init__(self, data: Any) -> None:
        self.data = data


@pytest.fixture(autouse=True)
def _stored_here(storage: PostgresStorage) -> None:
    STORED.clear()
    STORED.update(cache_policy=INPUTS, result_storage=storage)


def edges(store: ResultStore) -> set[tuple[str, str]]:
    """What was computed from what, by the names of tasks and, of what none wrote, by key."""
    found = set()
    for one in store.find():
        for edge in store.lineage(one.key, depth=1).edges:
            found.add(tuple(version.task or version.flow or version.key for version in (edge.version, edge.parent)))
    return found  # type: ignore[return-value]


def parents(store: ResultStore, key: str) -> list[str | None]:
    """The tasks whose versions the current one of a key was computed from."""
    found = store.lineage(key, depth=1)
    return sorted(edge.parent.task or edge.parent.key for edge in found.edges if edge.version == found.start)


def made(kind: Callable[[Any], Any] = Frame) -> Any:
    @task(**STORED)
    def load(x: Any) -> Any:
        return kind(x)

    return load


def consumer(name: str = "use") -> Any:
    @task(name=name, **STORED)
    def use(*values: Any, **named: Any) -> Any:
        return Frame(len(values) + len(named))

    return use


# What it called


def test_what_a_task_calls_it_is_computed_from(store: ResultStore) -> None:
    load = made()

    @task(**STORED)
    def middle(x: int) -> list[Any]:
        return [load(x).data]

    @task(**STORED)
    def outer(x: int) -> Any:
        return middle(x) + middle(x + 1)

    outer(1)
    assert edges(store) == {("middle", "load"), ("outer", "middle")}
    assert len(parents(store, store.find(task="outer")[0].key)) == 2
    load(7)
    assert edges(store) == {("middle", "load"), ("outer", "middle")}
    assert store.verify().intact


def test_a_stored_result_is_a_parent_as_well(store: ResultStore) -> None:
    load = made()
    load(1)

    @task(**STORED)
    def outer(x: int) -> Any:
        return [load(x).data, *(one.data for one in load.map([1, 2]))]

    outer(1)
    found = store.lineage(store.find(task="outer")[0].key)
    assert [(one.task, one.distance) for one in found.versions] == [("outer", 0), ("load", 1), ("load", 1)]


def test_what_is_not_stored_hands_its_sources_on(store: ResultStore) -> None:
    load, use = made(), consumer()

    @task(cache_policy=NO_CACHE)
    def unstored(x: int) -> Any:
        return Frame(load(x))

    @flow
    def run() -> None:
        use(unstored(1))

    run()
    assert edges(store) == {("use", "load")}


def test_a_failed_call_is_no_parent(store: ResultStore) -> None:
    load = made()

    @task(**STORED)
    def failing(x: int) -> Any:
        load(x)
        raise ArithmeticError

    @task(**STORED)
    def outer(x: int) -> Any:
        with pytest.raises(ArithmeticError):
            failing(x)
        return 1

    outer(1)
    assert edges(store) == set()
    assert store.verify().intact


@pytest.mark.parametrize("apart", [True, False])
def test_a_transaction_around_stores_them_in_order(store: ResultStore, apart: bool) -> None:
    load, use = made(), consumer()

    @flow
    def run() -> None:
        with transaction("around", store=store) as txn:
            loaded = [load(n) for n in range(3)]
            use(*loaded)
            txn.stage(1)
            if apart:
                txn.commit()
        use(loaded[0], loaded[1])

    run()
    assert edges(store) == {("use", "load")}
    assert sorted(len(parents(store, one.key)) for one in store.find(task="use")) == [2, 3]
    assert store.verify().intact


# What it read


async def test_what_a_task_reads_it_is_computed_from(store: ResultStore) -> None:
    for key in ("a", "b", "c", "d", "e", "f", "unread"):
        store.write(key, key=key)
    store.write("newer", key="b")
    moment = datetime.now(UTC)

    @task(**STORED)
    async def reading(x: int) -> Any:
        await store.aread("a")
        store.read("b", version=1)
        store.read("c", as_of=moment)
        await store.aread_many(["d"])
        for _ in store.iter_many(["e"]):
            pass
        store.open_read("f").close()
        store.exists("unread")
        with pytest.raises(MissingResult):
            store.read("nothing")
        return x

    await reading(1)
    found = store.lineage(store.find(task="reading")[0].key)
    read = {(one.key, one.version) for one in found.versions[1:]}
    assert read == {("a", 1), ("b", 1), ("c", 1), ("d", 1), ("e", 1), ("f", 1)}


def test_what_is_read_outside_is_nobodys(store: ResultStore) -> None:
    store.write(1, key="a")
    load = made()

    @flow
    def run() -> None:
        store.read("a")
        load(1)

    run()
    assert edges(store) == set()


# What it was given


KINDS: dict[str, Callable[[Any], Any]] = {
    "object": Frame,
    "list": lambda x: [x],
    "dict": lambda x: {"x": x},
    "set": lambda x: {x},
    "pair": lambda x: (Frame(x), [x]),
    "nested": lambda x: [{"x": [x]}],
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_task_is_given_tells_where_it_came_from(store: ResultStore, kind: str) -> None:
    load, use = made(KINDS[kind]), consumer()

    @flow
    def run() -> None:
        for wrap in (lambda x: x, lambda x: [x], lambda x: {"k": (1, [x])}):
            use(wrap(load(1)), named=0)
        use(named=load(1))

    run()
    assert edges(store) == {("use", "load")}
    assert all(len(parents(store, one.key)) == 1 for one in store.find(task="use"))


def test_parts_of_a_result_came_from_there(store: ResultStore) -> None:
    load, use = made(KINDS["pair"]), consumer()

    @flow
    def run() -> None:
        frame, numbers = load(1)
        use(frame)
        use(numbers)

    run()
    assert len(store.find(task="use")) == 2
    assert all(len(parents(store, one.key)) == 1 for one in store.find(task="use"))


SHARED: list[Any] = [None, True, 5, 10**30, 1.5, 2j, "text", "", b"bytes", (), (1, 2), ("a", (1,)), frozenset(), int,
                     len, Frame, UTC, ..., range(3)]  # fmt: skip


@pytest.mark.parametrize("value", SHARED, ids=repr)
def test_what_is_one_object_everywhere_tells_nothing(store: ResultStore, value: Any) -> None:
    load, use = made(lambda _: value), consumer()

    @flow
    def run() -> None:
        use(load(1), [value], x=1)

    run()
    assert edges(store) == set()


def test_what_two_calls_share_is_neither_ones(store: ResultStore) -> None:
    load, use = made(lambda _: CONFIGURATION), consumer()

    @flow
    def run() -> None:
        load(1)
        load(2)
        use(CONFIGURATION, CONFIGURATION["shared"])

    run()
    assert edges(store) == set()


def test_what_is_handed_through_stays_what_it_was(store: ResultStore) -> None:
    load, use = made(), consumer()

    @task(**STORED)
    def check(frame: Any) -> Any:
        return frame

    @task(**STORED)
    def pair(frame: Any, other: Any) -> Any:
        return [frame, other]

    @flow
    def run() -> None:
        frame = load(1)
        check(frame)
        pair(frame, [2])
        use(frame)

    run()
    assert edges(store) == {("check", "load"), ("pair", "load"), ("use", "load")}


def test_what_two_calls_gave_to_one_that_is_not_stored_stays_told_apart(store: ResultStore) -> None:
    load, use = made(), consumer()

    @flow
    def both() -> list[Any]:
        return [load(1), load(2)]

    @task(cache_policy=NO_CACHE, persist_result=False)
    def apart(found: list[Any]) -> None:
        found.append(load(3))

    @flow
    def run(first: Callable[[], list[Any]]) -> None:
        use(first()[0])

    @flow
    def filled() -> None:
        found: list[Any] = []
        apart(found)
        use(found[0], n=1)

    run(both)
    filled()
    assert [len(parents(store, one.key)) for one in store.find(task="use")] == [1, 1]


@pytest.mark.parametrize("mapped", [False, True])
def test_what_is_only_handed_on_did_not_come_from_there(store: ResultStore, mapped: bool) -> None:
    load, use = made(), consumer()

    @task(**STORED)
    def pair(one: Any, other: Any, usual: Any = CONFIGURATION) -> Any:
        return {"one": one, "other": [other], "usual": usual}

    @flow
    def run() -> None:
        options, frame = {"mine": [1]}, load(1)
        if mapped:
            pair.map([frame], unmapped(options))
        else:
            pair(frame, options)
        use(options)
        use(options["mine"])
        use(CONFIGURATION)
        use(frame)

    run()
    assert edges(store) == {("pair", "load"), ("use", "load")}


def test_a_copy_tells_nothing(store: ResultStore) -> None:
    load, use = made(KINDS["list"]), consumer()

    @flow
    def run() -> None:
        use(copy.deepcopy(load(1)), list(load(1)))

    run()
    assert edges(store) == set()


# Who else takes part


async def test_calls_on_an_event_loop_are_told_apart(store: ResultStore) -> None:
    @task(**STORED)
    async def load(x: int) -> Any:
        await asyncio.sleep(0)
        return Frame(x)

    @task(**STORED)
    async def outer(x: int) -> Any:
        both = await asyncio.gather(load(x), load(x + 10))
        return [one.data for one in both] + [one.data for one in await load.amap([x + 20])]

    @flow
    async def run() -> None:
        await asyncio.gather(*(outer(x) for x in range(3)))

    await run()
    for one in store.find(task="outer"):
        assert len(parents(store, one.key)) == 3


@pytest.mark.parametrize("store_within", [None, 10])
def test_calls_in_threads_know_their_run(store: ResultStore, store_within: float | None) -> None:
    load = made()

    @task(**STORED)
    def double(frame: Any) -> Any:
        return Frame([load(frame.data + 100).data])

    @task(**STORED)
    def outer(x: int) -> Any:
        frames = load.map([1, 2])
        doubled = double.map(frames, store_within=store_within)
        with ThreadPoolExecutor(1) as pool:
            pool.submit(load, 77).result()  # begins without the run
        return len(doubled)

    @flow
    def run() -> None:
        outer(1)

    run()
    assert edges(store) == {("outer", "load"), ("outer", "double"), ("double", "load")}
    assert all(len(parents(store, one.key)) == 2 for one in store.find(task="double"))
    assert len(parents(store, store.find(task="outer")[0].key)) == 4
    assert store.verify().intact


PROCESSES = """
from pgresults import ResultStore, flow, task
from pgresults.cache_policies import INPUTS

@task(cache_policy=INPUTS)
def load(x):
    return [x]

@task(cache_policy=INPUTS)
def double(values, x):
    return {"n": values * 2 + load(x + 100)}

@task(cache_policy=INPUTS)
def total(parts):
    return len(parts)

@flow
def run():
    loaded = load.map([1, 2])
    total(double.map(loaded, [1, 2], processes=2))

if __name__ == "__main__":
    run()
    store = ResultStore()
    for name in ("total", "double"):
        for one in store.find(task=name):
            print(name, sorted(edge.parent.task for edge in store.lineage(one.key, depth=1).edges))
"""


@pytest.mark.slow
def test_calls_in_processes_bring_back_what_they_are(fresh_url: URL, tmp_path: Path) -> None:
    written(tmp_path, {"program.py": PROCESSES})
    said = python("program.py", directory=tmp_path, PGRESULTS_DATABASE_URL=psycopg_url(fresh_url))
    assert said == ["total ['double', 'double']", "double ['load', 'load']", "double ['load', 'load']"]


# Flows


def test_a_flow_says_what_it_called(store: ResultStore, storage: PostgresStorage) -> None:
    load, use = made(), consumer()

    @flow(result_storage=storage)
    def inner() -> Any:
        return Frame(load(1))

    @flow(result_storage=storage)
    def outer() -> Any:
        use(inner())
        return 1

    outer()
    assert edges(store) == {("inner", "load"), ("use", "inner"), ("outer", "inner"), ("outer", "use")}


# What stays


def test_nothing_is_kept_after_the_run(store: ResultStore) -> None:
    del store
    load, use = made(), consumer()
    seen: list[weakref.ref[Any]] = []

    @flow
    def run() -> None:
        for n in range(5):
            frame = load(n)
            seen.append(weakref.ref(frame))
            use(frame)
            del frame
            gc.collect()
            assert seen[-1]() is None
        memory = REMEMBERED.get()
        seen.append(weakref.ref(memory))
        seen.append(weakref.ref(SOURCES.get()))
        load([1])

    run()
    gc.collect()
    assert [one() for one in seen] == [None] * 7
    assert REMEMBERED.get() is SOURCES.get() is None
