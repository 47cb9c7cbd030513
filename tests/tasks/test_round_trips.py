"""What a call costs: one round trip where there is a result, two where it is computed, and no lock for a hit."""

from collections.abc import Callable
from typing import Any

import pytest

from pgresults import PostgresStorage, ResultStore, flow, task, transaction
from pgresults.cache_policies import INPUTS
from pgresults.database.connections import AsyncConnection, Connection
from tests.support.calls import Call
from tests.support.transactions import held
from tests.support.work import called, calls


@pytest.fixture
def conversations(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How often the server was asked something since this was asked last."""
    asked = 0

    def counted(cls: type) -> None:
        wait = cls.wait  # type: ignore[attr-defined]

        def waiting(self: Any, *args: Any, **options: Any) -> Any:
            nonlocal asked
            asked += 1
            return wait(self, *args, **options)

        monkeypatch.setattr(cls, "wait", waiting)

    def since() -> int:
        nonlocal asked
        number, asked = asked, 0
        return number

    counted(Connection)
    counted(AsyncConnection)
    return since


@pytest.fixture(params=["sync", "async"])
async def run(request: pytest.FixtureRequest, storage: PostgresStorage) -> Any:
    """Calls a function as a task, sync or async, with warm connections."""

    def made(**options: Any) -> Call:
        async def work(x: int) -> int:
            return int(called(x))

        fn: Any = work if request.param == "async" else called
        made_task = task(fn, result_storage=storage, **{"cache_policy": INPUTS, **options})

        async def run(x: int) -> Any:
            outcome = made_task(x)
            return await outcome if request.param == "async" else outcome

        return run

    await made()(0)
    yield made
    await storage.aclose()


async def test_a_hit_is_one_and_a_miss_two(run: Any, conversations: Callable[[], int]) -> None:
    work = run()
    conversations()
    assert await work(1) == 1
    assert conversations() == 2
    assert await work(1) == 1
    assert conversations() == 1
    assert calls == [0, 1]


async def test_a_refreshed_call_only_writes(run: Any, conversations: Callable[[], int]) -> None:
    work = run(refresh_cache=True)
    conversations()
    await work(1)
    assert conversations() == 1


async def test_a_hit_takes_no_lock_and_waits_for_none(
    run: Any, storage: PostgresStorage, store: ResultStore, connection: Any, conversations: Callable[[], int]
) -> None:
    locks = storage.lock_manager()
    work = run(cache_policy=INPUTS.configure(isolation_level="SERIALIZABLE", lock_manager=locks))
    await work(1)
    assert held(connection, store) == []
    for key in [row.key for row in store.find()]:
        locks.acquire_lock(key, "somebody")
    conversations()
    assert await work(1) == 1
    assert conversations() == 1
    assert calls == [0, 1]


async def test_a_hit_within_a_flow_or_transaction_is_one(run: Any, conversations: Callable[[], int]) -> None:
    work = run()
    await work(1)

    @flow
    async def etl() -> None:
        await work(1)

    await etl()
    conversations()
    await etl()
    assert conversations() == 1
    with transaction():
        await work(1)
    assert conversations() == 1


async def test_a_miss_within_a_transaction_looks_once(run: Any, conversations: Callable[[], int]) -> None:
    work = run()
    conversations()
    with transaction():
        await work(1)
        assert conversations() == 1
    assert 1 <= conversations() <= 2


async def test_settings_and_stores_that_change_are_seen(
    storage: PostgresStorage, shared_url: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    @task(cache_policy=INPUTS, persist_result=True)
    def work(x: int) -> str:
        return str(called(x))

    stores = [ResultStore(result_storage=PostgresStorage(shared_url, f"{storage.name}-{n}")) for n in range(2)]
    flows = [flow(lambda: work(1), result_storage=store.result_storage, persist_result=False) for store in stores]
    for run in [*flows, *flows]:
        assert run() == "1"
    assert calls == [1, 1]
    url = shared_url.set(drivername="postgresql").render_as_string(hide_password=False)
    monkeypatch.setenv("PGRESULTS_DATABASE_URL", url)
    work(storage.name)  # type: ignore[arg-type]
    monkeypatch.setenv("PGRESULTS_DATABASE_SCHEMA", "nowhere")
    with pytest.raises(Exception, match="nowhere"):
        work(storage.name)  # type: ignore[arg-type]
    assert len(calls) == 3
