"""A release whose answer is lost, one that fails, and what is left of released locks."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import URL

from pgresults.errors import LockLostError, StorageUnavailable
from pgresults.locking import PostgresLockManager
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.calls import Call
from tests.support.proxy import Proxy

pytestmark = pytest.mark.timeout(60)

RELEASE = b"SET released"


@pytest.fixture
def proxy(shared_url: URL) -> Iterator[Proxy]:
    with Proxy(shared_url) as proxy:
        yield proxy


@pytest.fixture
def lossy(proxy: Proxy, storage: PostgresStorage) -> Iterator[ResultStore]:
    """A store behind the proxy."""
    behind = PostgresStorage(proxy.url, storage.name)
    yield ResultStore(result_storage=behind, lock_manager=behind.lock_manager())
    behind.close()


async def test_an_answer_that_is_lost_once(call: Call, lossy: ResultStore, proxy: Proxy, storage: Any) -> None:
    await call(lossy, "acquire_lock", "k", "a")
    proxy.lose(RELEASE)
    await call(lossy, "release_lock", "k", "a")
    assert proxy.losses == 0
    assert storage.lock_manager().acquire_lock("k", "b", 0) is True
    with pytest.raises(ValueError, match="does not hold"):
        await call(lossy, "release_lock", "k", "a")
    await lossy.result_storage.aclose()


@pytest.mark.parametrize("since", ["nothing", "taken", "taken and released", "forgotten"])
async def test_a_release_whose_answers_are_lost_is_said_again(
    call: Call, lossy: ResultStore, proxy: Proxy, storage: Any, since: str
) -> None:
    await call(lossy, "acquire_lock", "k", "a")
    proxy.lose(RELEASE, 9)
    with pytest.raises(StorageUnavailable):
        await call(lossy, "release_lock", "k", "a")
    proxy.losses = 0
    direct = storage.lock_manager()
    if since.startswith("taken"):
        assert direct.acquire_lock("k", "b", 0)
    if since == "taken and released":
        direct.release_lock("k", "b")
    if since == "forgotten":
        direct.forget_released()
    with pytest.raises(LockLostError):  # it may have been released, and was
        await call(lossy, "write", "late", key="k", holder="a")
    await call(lossy, "release_lock", "k", "a")
    assert direct.is_locked("k") is (since == "taken")
    with pytest.raises(ValueError, match="does not hold"):
        await call(lossy, "release_lock", "k", "a")
    await lossy.result_storage.aclose()


async def test_what_was_taken_over_was_not_released(call: Call, lossy: ResultStore, proxy: Proxy, storage: Any) -> None:
    """The connection went, and with it the lock, before the release came."""
    await call(lossy, "acquire_lock", "k", "a")
    lossy.lock_manager._sessions._process.session.connection.close()
    assert storage.lock_manager().acquire_lock("k", "b", 10)
    with pytest.raises(ValueError, match="does not hold"):
        await call(lossy, "release_lock", "k", "a")
    assert storage.lock_manager().is_lock_holder("k", "b")
    await lossy.result_storage.aclose()


async def test_a_release_that_fails_keeps_what_proves(call: Call, shared_url: URL, storage: PostgresStorage) -> None:
    with Proxy(shared_url) as proxy:
        behind = PostgresStorage(proxy.url, storage.name)
        lossy = ResultStore(result_storage=behind, lock_manager=behind.lock_manager())
        await call(lossy, "acquire_lock", "k", "a")
        grant = behind.lock_manager()._grant("k", "a")
        await call(lossy, "write", 1, key="k", holder="a")
        proxy.lose(b"", 99)
        with pytest.raises(StorageUnavailable):
            await call(lossy, "release_lock", "k", "a")
        proxy.losses = 0
        kept = behind.lock_manager()._grant("k", "a")
        assert (kept.fence, kept.token) == (grant.fence, grant.token)
        await behind.aclose()


async def test_a_sweep_takes_what_is_left(call: Call, guarded: ResultStore, connection: Any) -> None:
    rows = "SELECT key FROM pgresults.lock WHERE storage_id = %s ORDER BY key"
    for n in range(7):
        await call(guarded, "acquire_lock", f"k{n}", "a")
        if n:
            await call(guarded, "release_lock", f"k{n}", "a")
    fence = guarded.lock_manager._grant("k0", "a").fence
    assert await call(guarded, "sweep", 2) == 0
    assert connection.execute(rows, [guarded.result_storage.id]).fetchall() == [("k0",)]
    await call(guarded, "acquire_lock", "k1", "b", 0)
    assert guarded.lock_manager._grant("k1", "b").fence > fence + 6
    await guarded.result_storage.aclose()


def test_the_server_sweeps_alone(guarded: ResultStore, connection: Any) -> None:
    for n in range(5):
        guarded.acquire_lock(f"k{n}", "a")
        guarded.release_lock(f"k{n}", "a")
    assert connection.execute("SELECT pgresults.sweep(3, %s)", [guarded.result_storage.id]).fetchone() == (0,)
    query = "SELECT count(*) FROM pgresults.lock WHERE storage_id = %s"
    assert connection.execute(query, [guarded.result_storage.id]).fetchone() == (2,)
    assert connection.execute("SELECT pgresults.forget_released()").fetchone()[0] >= 2
    assert connection.execute(query, [guarded.result_storage.id]).fetchone() == (0,)


def test_sweeping_beside_acquirers(shared_url: URL, storage: PostgresStorage) -> None:
    """Whoever comes for a row that is being deleted has it all the same, without waiting, and fences only grow."""
    managers = [PostgresLockManager(shared_url, storage.name) for _ in range(2)]
    store = ResultStore(result_storage=storage)
    done: list[int] = []

    def work(locks: PostgresLockManager, holder: str) -> None:
        for _ in range(100):
            for key in (f"own {holder}", "shared"):
                assert locks.acquire_lock(key, holder, 0 if key.startswith("own") else 20)
                if key == "shared":
                    done.append(locks._grant(key, holder).fence)
                locks.release_lock(key, holder)

    with ThreadPoolExecutor(3) as threads:
        working = [threads.submit(work, locks, f"h{n}") for n, locks in enumerate(managers)]
        while not all(future.done() for future in working):
            store.sweep()
        for future in working:
            future.result()
    assert done == sorted(set(done))
    assert len(done) == 200
    for manager in managers:
        manager.close()
        manager.database.close()


def test_names_stay_apart(guarded: ResultStore, shared_url: URL, connection: Any) -> None:
    other = PostgresLockManager(shared_url, f"test-{uuid4().hex}")
    other.acquire_lock("k", "a")
    other.release_lock("k", "a")
    guarded.sweep()
    query = "SELECT count(*) FROM pgresults.lock WHERE storage_id = %s"
    assert connection.execute(query, [other._storage_id]).fetchone() == (1,)
    other.close()
    other.database.close()
