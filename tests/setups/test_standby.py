"""A standby: everything is read there as on its primary, and nothing is promised that only the primary can keep."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from pgresults import PostgresStorage, ResultStore, task, transaction
from pgresults.cache_policies import CacheKeyFnPolicy
from pgresults.errors import ConfigurationError, MissingResult
from pgresults.server.embedded import EmbeddedPostgres
from tests.support.calls import Call
from tests.support.standbys import caught_up

pytestmark = pytest.mark.slow


def store_on(server: EmbeddedPostgres) -> ResultStore:
    storage = PostgresStorage(server.url)
    return ResultStore(result_storage=storage, lock_manager=storage.lock_manager())


@pytest.fixture
def standby(servers: tuple[EmbeddedPostgres, EmbeddedPostgres]) -> Iterator[ResultStore]:
    """A store on the standby of one that has two results, one of whose keys is locked."""
    there, here = map(store_on, servers)
    there.write({"a": 1}, key="small", tags=["t"], expires_in=timedelta(hours=1))
    there.write(bytes(3_000_000), key="large")
    there.acquire_lock("small", "me")
    caught_up(*servers)
    yield here
    there.release_lock("small", "me")
    for store in (there, here):
        store.lock_manager.close()
        store.result_storage.close()


async def test_everything_can_be_read(call: Call, standby: ResultStore) -> None:
    assert (await call(standby, "read", "small")).result == {"a": 1}
    assert len((await call(standby, "read", "large")).result) == 3_000_000
    assert await call(standby, "exists", "small")
    assert [found.key for found in await call(standby, "find", tags=["t"])] == ["small"]
    assert len(await call(standby, "read_many", ["small", "large"])) == 2
    assert (await call(standby, "history", "small"))[-1].action == "write"
    assert [listed.key for listed in await call(standby, "expiring", timedelta(days=1))] == ["small"]
    assert (await call(standby, "verify")).intact
    with pytest.raises(MissingResult):
        await call(standby, "read", "nothing")


async def test_nobody_holds_a_lock_there(call: Call, standby: ResultStore) -> None:
    assert not await call(standby, "is_locked", "small")
    assert not await call(standby, "is_lock_holder", "small", "me")
    assert await call(standby, "wait_for_lock", "small", 0)
    assert await call(standby.lock_manager, "held_locks") == []


async def test_taking_one_is_refused_with_the_reason(call: Call, standby: ResultStore) -> None:
    for name, *arguments in [
        ("acquire_lock", "small", "another"),
        ("write", 1, "small"),
        ("delete", "small"),
        ("touch", "small", None),
        ("sweep",),
    ]:
        with pytest.raises(ConfigurationError, match=r"standby|lets this session read") as refusal:
            await call(standby, name, *arguments)
        assert refusal.value.setting == "database_url"
        assert "primary" in str(refusal.value)
    with pytest.raises(ConfigurationError, match="standby"):
        await call(standby.lock_manager, "break_lock", "small", "why")
    assert (await call(standby, "read", "small")).result == {"a": 1}


def test_a_transaction_with_a_lock_is_refused_with_the_reason(standby: ResultStore) -> None:
    with (
        pytest.raises(ConfigurationError, match="standby"),
        transaction("new", standby, isolation_level="SERIALIZABLE") as txn,
    ):
        txn.stage(1)

    async def work() -> None:
        async with transaction("new", standby, isolation_level="SERIALIZABLE") as txn:
            txn.stage(1)

    with pytest.raises(ConfigurationError, match="standby"):
        asyncio.run(work())


def test_what_a_task_has_computed_on_the_primary_is_found(servers: Any) -> None:
    there, here = map(store_on, servers)
    calls = []

    def twice(number: int) -> int:
        calls.append(number)
        return 2 * number

    for store in (there, here):
        policy = CacheKeyFnPolicy(cache_key_fn=lambda *_: "twice three")
        policy = policy.configure(isolation_level="SERIALIZABLE", lock_manager=store.lock_manager)
        assert task(twice, cache_policy=policy, result_storage=store.result_storage)(3) == 6
        caught_up(*servers)
    assert calls == [3]
    for store in (there, here):
        store.lock_manager.close()
        store.result_storage.close()
