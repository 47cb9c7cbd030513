"""A released lock wakes its waiter, wherever it was taken and given back: in a thread, on this loop or another."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pgresults.locking import MemoryLockManager, PostgresLockManager, waiting
from tests.support.locks import ADVISORY

pytestmark = pytest.mark.timeout(20)

Work = Callable[[], Any]
WAITERS = f"SELECT count(*) FROM {ADVISORY} AND NOT granted"


@pytest.fixture(autouse=True)
def _only_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks again by himself before the test has failed."""
    monkeypatch.setattr(waiting, "next_look", lambda _: 60.0)


class Loop:
    """An event loop in a thread of its own, which may end at any moment."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._loop = asyncio.new_event_loop()
        self._running = threading.Event()
        self._end = self._thread.submit(self._run)
        self._running.wait()

    def _run(self) -> None:
        self._loop.call_soon(self._running.set)
        self._loop.run_forever()
        self._loop.close()

    def run(self, work: Work) -> Any:
        """Have a coroutine, or a call that blocks the loop, carried out there."""

        async def carried_out() -> Any:
            outcome = work()
            return await outcome if asyncio.iscoroutine(outcome) else outcome

        return asyncio.run_coroutine_threadsafe(carried_out(), self._loop).result()

    def block(self) -> threading.Event:
        """Keep the loop busy until the event that this gives is set."""
        go_on, busy = threading.Event(), threading.Event()
        self._loop.call_soon_threadsafe(lambda: (busy.set(), go_on.wait()))
        busy.wait()
        return go_on

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._end.result()
        self._thread.shutdown()


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    if not loop._end.done():
        loop.end()


@pytest.fixture
def other_loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.end()


def in_a_thread(work: Work) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


ACQUIRES = {
    "sync": lambda locks, loop: locks.acquire_lock("k", "holder"),
    "sync, in a thread": lambda locks, loop: in_a_thread(lambda: locks.acquire_lock("k", "holder")),
    "sync, on a loop": lambda locks, loop: loop.run(lambda: locks.acquire_lock("k", "holder")),
    "async": lambda locks, loop: loop.run(lambda: locks.aacquire_lock("k", "holder")),
}


def release_and_end(locks: Any, loop: Loop, other: Loop) -> None:
    """What Prefect does: the release is the last thing that the loop does."""

    def last_act() -> None:
        locks.release_lock("k", "holder")
        loop._loop.stop()

    loop._loop.call_soon_threadsafe(last_act)
    loop._end.result()


def release_beside_a_busy_loop(locks: Any, loop: Loop, other: Loop) -> None:
    go_on = loop.block()
    locks.release_lock("k", "holder")
    locks.woken.wait()
    go_on.set()


def after_its_end(release: Callable[[Any, Loop], Any]) -> Callable[[Any, Loop, Loop], Any]:
    def ended(locks: Any, loop: Loop, other: Loop) -> None:
        loop.end()
        release(locks, other)

    return ended


RELEASES = {
    "sync": lambda locks, loop, other: locks.release_lock("k", "holder"),
    "sync, in a thread": lambda locks, loop, other: in_a_thread(lambda: locks.release_lock("k", "holder")),
    "sync, on its loop": lambda locks, loop, other: loop.run(lambda: locks.release_lock("k", "holder")),
    "sync, as the loop's last act": release_and_end,
    "sync, beside a busy loop": release_beside_a_busy_loop,
    "sync, after the loop's end": after_its_end(lambda locks, other: locks.release_lock("k", "holder")),
    "async, on its loop": lambda locks, loop, other: loop.run(lambda: locks.arelease_lock("k", "holder")),
    "async, on another loop": lambda locks, loop, other: other.run(lambda: locks.arelease_lock("k", "holder")),
    "async, after the loop's end": after_its_end(
        lambda locks, other: other.run(lambda: locks.arelease_lock("k", "holder"))
    ),
}


@pytest.mark.parametrize("number", [2, 10])
@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("acquire", ACQUIRES)
def test_whoever_waits_is_woken(
    acquire: str,
    release: str,
    number: int,
    loop: Loop,
    other_loop: Loop,
    postgres: PostgresLockManager,
    another: PostgresLockManager,
    connection: Any,
) -> None:
    postgres.woken = threading.Event()
    ACQUIRES[acquire](postgres, loop)
    assert postgres.is_lock_holder("k", "holder")

    def wait(waiter: int) -> bool:
        locks = (postgres, another)[waiter % 2]
        taken = locks.acquire_lock("k", f"waiter {waiter}")
        postgres.woken.set()
        locks.release_lock("k", f"waiter {waiter}")
        return taken

    with ThreadPoolExecutor(number) as threads:
        waiting = [threads.submit(wait, waiter) for waiter in range(number)]
        while connection.execute(WAITERS).fetchone() != (2,):
            pass
        RELEASES[release](postgres, loop, other_loop)
        assert all(waiter.result() for waiter in waiting)


@pytest.mark.parametrize("first", ["async", "sync"])
async def test_two_loops_that_end_take_turns(first: str, postgres: PostgresLockManager, connection: Any) -> None:
    """Each takes the lock async and gives it back sync, as the last thing before its end."""
    inside = threading.Event()

    async def work(holder: str, go_on: Callable[[], Any]) -> bool:
        taken = await postgres.aacquire_lock("k", holder)
        go_on()
        postgres.release_lock("k", holder)
        return taken

    def stay() -> None:
        inside.set()
        while connection.execute(WAITERS).fetchone() == (0,):
            pass

    with ThreadPoolExecutor(2) as threads:
        one = threads.submit(lambda: asyncio.run(work("one", stay)))
        await asyncio.to_thread(inside.wait)
        two = threads.submit(lambda: asyncio.run(work("two", lambda: None)))
        assert await asyncio.wrap_future(one)
        assert await asyncio.wrap_future(two)


def test_a_lock_outlives_the_loop_that_took_it(postgres: PostgresLockManager, another: PostgresLockManager) -> None:
    assert asyncio.run(postgres.aacquire_lock("k", "a"))
    for _ in range(2):
        assert asyncio.run(postgres.aacquire_lock("another", "a"))
        asyncio.run(postgres.arelease_lock("another", "a"))
        assert another.acquire_lock("k", "b", 0) is False
        assert asyncio.run(postgres.aacquire_lock("k", "a", 0)) is True
    asyncio.run(postgres.arelease_lock("k", "a"))
    assert another.acquire_lock("k", "b", 0) is True


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("acquire", ACQUIRES)
def test_in_memory(acquire: str, release: str, loop: Loop, other_loop: Loop) -> None:
    locks: Any = MemoryLockManager()
    locks.woken = threading.Event()
    ACQUIRES[acquire](locks, loop)
    with ThreadPoolExecutor(2) as threads:

        def wait() -> bool:
            free = locks.wait_for_lock("k")
            locks.woken.set()
            return bool(free)

        waiting = [threads.submit(wait) for _ in range(2)]
        RELEASES[release](locks, loop, other_loop)
        assert all(waiter.result() for waiter in waiting)
