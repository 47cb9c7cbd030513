"""A released lock wakes its waiter, wherever it was taken and given back: in a thread, on this loop or another."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest

from pgresults.locking import MemoryLockManager, PostgresLockManager, waiting
from tests.support.locks import WAITERS

pytestmark = pytest.mark.timeout(20)

Work = Callable[[], Any]


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


class Place(NamedTuple):
    """Where a lock is taken and given back."""

    locks: Any
    loop: Loop
    other: Loop

    def acquire(self) -> None:
        assert self.locks.acquire_lock("k", "holder")

    def aacquire(self) -> Any:
        return self.locks.aacquire_lock("k", "holder")

    def release(self) -> None:
        self.locks.release_lock("k", "holder")

    def arelease(self) -> Any:
        return self.locks.arelease_lock("k", "holder")

    def release_and_end(self) -> None:
        """What Prefect does: the release is the last thing that the loop does."""

        def last_act() -> None:
            self.release()
            self.loop._loop.stop()

        self.loop._loop.call_soon_threadsafe(last_act)
        self.loop._end.result()

    def release_beside_a_busy_loop(self) -> None:
        go_on = self.loop.block()
        self.release()
        self.locks.woken.wait()
        go_on.set()

    def release_after_its_end(self) -> None:
        self.loop.end()
        self.release()

    def arelease_after_its_end(self) -> None:
        self.loop.end()
        self.other.run(self.arelease)


ACQUIRES: dict[str, Callable[[Place], Any]] = {
    "sync": Place.acquire,
    "sync, in a thread": lambda place: in_a_thread(place.acquire),
    "sync, on a loop": lambda place: place.loop.run(place.acquire),
    "async": lambda place: place.loop.run(place.aacquire),
}

RELEASES: dict[str, Callable[[Place], Any]] = {
    "sync": Place.release,
    "sync, in a thread": lambda place: in_a_thread(place.release),
    "sync, on its loop": lambda place: place.loop.run(place.release),
    "sync, as the loop's last act": Place.release_and_end,
    "sync, beside a busy loop": Place.release_beside_a_busy_loop,
    "sync, after the loop's end": Place.release_after_its_end,
    "async, on its loop": lambda place: place.loop.run(place.arelease),
    "async, on another loop": lambda place: place.other.run(place.arelease),
    "async, after the loop's end": Place.arelease_after_its_end,
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
    woken = postgres.woken = threading.Event()  # type: ignore[attr-defined]
    place = Place(postgres, loop, other_loop)
    ACQUIRES[acquire](place)
    assert postgres.is_lock_holder("k", "holder")

    def wait(waiter: int) -> bool:
        locks = (postgres, another)[waiter % 2]
        taken = locks.acquire_lock("k", f"waiter {waiter}")
        woken.set()
        locks.release_lock("k", f"waiter {waiter}")
        return taken

    with ThreadPoolExecutor(number) as threads:
        waiting = [threads.submit(wait, waiter) for waiter in range(number)]
        while connection.execute(WAITERS).fetchone() != (2,):
            pass
        RELEASES[release](place)
        assert all(waiter.result() for waiter in waiting)


async def test_two_loops_that_end_take_turns(postgres: PostgresLockManager, connection: Any) -> None:
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
    place = Place(locks, loop, other_loop)
    ACQUIRES[acquire](place)
    with ThreadPoolExecutor(2) as threads:

        def wait() -> bool:
            free = locks.wait_for_lock("k")
            locks.woken.set()
            return bool(free)

        waiting = [threads.submit(wait) for _ in range(2)]
        RELEASES[release](place)
        assert all(waiter.result() for waiter in waiting)
