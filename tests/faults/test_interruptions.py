"""Exceptions from signal handlers, at whatever line: everything is whole after them, and they arrive as themselves."""

import dis
import gc
import json
import linecache
import signal
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from pgresults import ResultStore, flow, task, transaction
from pgresults.cache_policies import INPUTS
from pgresults.errors import SerializationError
from pgresults.interruptions import is_interruption
from pgresults.locking import MemoryLockManager
from tests.faults.conftest import Tell
from tests.faults.interrupted import left_behind
from tests.support.database import psycopg_url

PROGRAM = Path(__file__).with_name("interrupted.py")
OURS = str(Path(sys.modules["pgresults"].__file__ or "").parent)


def interrupted(url: URL, kind: str, rounds: int) -> dict[str, int]:
    ended = subprocess.run(
        (sys.executable, PROGRAM, psycopg_url(url), kind, str(rounds)), capture_output=True, text=True, check=True
    )
    return {what: count for what, count in json.loads(ended.stdout.splitlines()[-1]).items() if count}


def interrupt(url: URL, kind: str, rounds: int, tell: Tell) -> None:
    seen = interrupted(url, kind, rounds)
    arrived, swallowed = seen.pop("arrived"), seen.pop("swallowed", 0)
    assert arrived + swallowed == rounds
    foreign = {what: count for what, count in seen.items() if what.startswith("foreign")}
    assert foreign == {}
    stuck = sum(seen.values())
    tell(f"an exception from a signal: {kind}", rounds=rounds, acknowledged=arrived, lost=0, stuck=stuck)


@pytest.mark.parametrize("kind", ["locks", "results", "trees"])
def test_nothing_is_left_of_an_interruption(fresh_url: URL, kind: str, tell: Tell) -> None:
    interrupt(fresh_url, kind, 200, tell)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["locks", "results", "trees"])
def test_nothing_is_left_of_twenty_thousand(fresh_url: URL, kind: str, tell: Tell) -> None:
    interrupt(fresh_url, kind, 20_000, tell)


MEMORY = MemoryLockManager()


class Another:
    """Somebody else's lock manager."""

    def __init__(self) -> None:
        self.acquire_lock, self.release_lock = MEMORY.acquire_lock, MEMORY.release_lock
        self.is_locked, self.is_lock_holder = MEMORY.is_locked, MEMORY.is_lock_holder
        self.wait_for_lock = MEMORY.wait_for_lock


@task
def called(x: int) -> int:
    return x


class Interruption(BaseException):
    """What comes at a line; it says at which."""


def is_out_of_reach(frame: types.FrameType) -> bool:
    """Whether no signal comes where a tracer is called: where nothing is done, or a ``with`` calls its exit."""
    instruction = dis.opname[frame.f_code.co_code[frame.f_lasti]]
    line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
    return instruction == "NOP" or (line.startswith("with ") and instruction in {"LOAD_CONST", "SWAP"})


@contextmanager
def at_line(number: int) -> Iterator[list[int]]:
    """Interrupt the n-th line of ours that is run; tells how many there were."""
    count = [0]

    def trace(frame: types.FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(OURS):
            return None
        if event == "line" and not is_out_of_reach(frame):
            count[0] += 1
            if count[0] == number:
                sys.settrace(None)
                raise Interruption(f"{frame.f_code.co_qualname}:{frame.f_lineno}")
        return trace

    gc.disable()  # what is called then lets no exception out
    sys.settrace(trace)
    try:
        yield count
    finally:
        sys.settrace(None)
        gc.enable()


def acquire(store: ResultStore) -> None:
    store.acquire_lock("lock")


def acquire_in_memory(_: ResultStore) -> None:
    MEMORY.acquire_lock("lock", "holder")


def acquire_anothers(store: ResultStore) -> None:
    ResultStore(result_storage=store.result_storage, lock_manager=Another()).acquire_lock("lock", "holder")


def release(store: ResultStore) -> None:
    store.release_lock("lock")


def write(store: ResultStore) -> None:
    store.write([1], key="w")


def read(store: ResultStore) -> None:
    store.read("w")


def commit(store: ResultStore) -> None:
    with transaction(key="t", store=store, isolation_level="SERIALIZABLE", overwrite=True) as txn:
        txn.stage([1])


def tree(store: ResultStore) -> None:
    with transaction(key="t", store=store, isolation_level="SERIALIZABLE", overwrite=True) as outer:
        with transaction(key="u", store=store, isolation_level="SERIALIZABLE", overwrite=True) as inner:
            inner.stage([1])
        outer.stage([2])


def call(store: ResultStore) -> None:
    policy = INPUTS.configure(lock_manager=store.lock_manager, isolation_level="SERIALIZABLE")
    called.with_options(cache_policy=policy, result_storage=store.result_storage, refresh_cache=True)(1)


async def aacquire(store: ResultStore) -> None:
    await store.aacquire_lock("lock")


async def arelease(store: ResultStore) -> None:
    await store.arelease_lock("lock")


async def awrite(store: ResultStore) -> None:
    await store.awrite([1], key="w")


async def aread(store: ResultStore) -> None:
    await store.aread("w")


async def acommit(store: ResultStore) -> None:
    async with transaction(key="t", store=store, isolation_level="SERIALIZABLE", overwrite=True) as txn:
        txn.stage([1])


def run(store: ResultStore) -> None:
    flow(lambda: called(1), persist_result=True, result_storage=store.result_storage, name="run")()


SLOW = [pytest.param(work, marks=pytest.mark.slow) for work in (commit, tree, call, run)]
WORK = (acquire, acquire_in_memory, acquire_anothers, release, write, read, *SLOW)


@pytest.mark.parametrize("work", WORK, ids=lambda work: work.__name__)
def test_a_call_may_be_interrupted_at_any_line(
    guarded: ResultStore, work: Callable[[ResultStore], Any], tell: Tell
) -> None:
    def attempt(number: int) -> tuple[str, int]:
        """Interrupt a call; says where it was and how many lines it took."""
        if work is release:
            acquire(guarded)
        place = "nowhere"
        try:
            with at_line(number) as lines:
                work(guarded)
        except Interruption as interruption:
            place = str(interruption)
        interrupted = place != "nowhere"
        if work in {acquire_in_memory, acquire_anothers} and not interrupted:
            MEMORY.release_lock("lock", "holder")
        if (work is acquire and not interrupted) or (work is release and interrupted and holds(guarded)):
            release(guarded)
        return place, lines[0]

    write(guarded)
    attempt(0)
    _, total = attempt(0)
    assert total > 10
    left = []
    for number in range(1, total + 1):
        place, _ = attempt(number)
        left += [(place, what) for what, found in left_behind(guarded).items() if found]
        if MEMORY.is_locked("lock"):
            left.append((place, "lock in memory"))
            MEMORY.release_lock("lock", "holder")
        write(guarded)
    assert not left, "\n".join(map(str, left))
    assert guarded.verify().intact
    tell(f"an exception at a line: {work.__name__}", rounds=total, acknowledged=total, lost=0, stuck=len(left))


def holds(store: ResultStore) -> bool:
    return store.is_lock_holder("lock")


class TimeIsUpError(Exception):
    """A time-out of the user's."""


class Slow:
    """An object whose pickling takes so long that a time-out comes."""

    def __reduce__(self) -> Any:
        signal.raise_signal(signal.SIGALRM)
        return Slow, ()


class Bad:
    """An object that cannot be pickled."""

    def __reduce__(self) -> Any:
        raise TimeIsUpError


def test_a_time_out_is_no_failure_of_what_it_interrupts(store: ResultStore) -> None:
    def ring(*_: object) -> None:
        raise TimeIsUpError

    before = signal.signal(signal.SIGALRM, ring)
    try:
        with pytest.raises(TimeIsUpError) as caught:
            store.write(Slow(), key="k")
        assert is_interruption(caught.value)
        with pytest.raises(SerializationError):
            store.write(Bad(), key="k")
    finally:
        signal.signal(signal.SIGALRM, before)
    assert not store.exists("k")
