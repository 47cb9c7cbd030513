"""Flows whose database goes away and comes back while they run."""

import os
import signal
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import make_url

from pgresults.database import migrations
from pgresults.server.embedded import EmbeddedPostgres
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.database import psycopg_url
from tests.support.listing import page
from tests.support.prefect_fixtures import MARKS, require_prefect

prefect: Any = require_prefect()
from prefect import flow, task  # noqa: E402
from prefect.cache_policies import INPUTS, TASK_SOURCE  # noqa: E402
from prefect.transactions import IsolationLevel  # noqa: E402

from pgresults.integrations.prefect import PostgresResultStorage  # noqa: E402

pytestmark = MARKS
CALLS = TASK_SOURCE + INPUTS


def kill(server: EmbeddedPostgres) -> None:
    """End a server without letting it finish anything."""
    pid = server.status().pid
    assert pid is not None
    os.kill(pid, signal.SIGQUIT)
    while server.is_running():
        pass


@pytest.fixture
def block(prefect_server: None, server: EmbeddedPostgres) -> Any:
    """A block on a server of the test's own, which the block does not start."""
    url = make_url(server.url)
    migrations.upgrade(url.set(drivername="postgresql+psycopg"))
    block = PostgresResultStorage(url=psycopg_url(url))
    block.save(f"outage-{uuid4().hex}")
    yield block
    block.lock_manager().close()
    block.storage.close()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("end", [EmbeddedPostgres.stop, kill])
def test_a_flow_goes_on_through_an_outage(
    block: Any, server: EmbeddedPostgres, end: Callable[[EmbeddedPostgres], None]
) -> None:
    calls: list[int] = []

    @task(cache_policy=CALLS, result_storage=block)
    def square(number: int) -> int:
        calls.append(number)
        return number**2

    @flow
    def squares() -> list[int]:
        before = square(1)
        end(server)
        during = square(2)
        server.ensure_running()
        return [before, during, square(1), square(2), square(3)]

    assert squares() == [1, 4, 1, 4, 9]
    assert calls == [1, 2, 2, 3]
    assert len(page(PostgresStorage(server, "prefect"))) == 3
    assert ResultStore(result_storage=block.storage).verify().intact


@pytest.mark.timeout(300)
@pytest.mark.parametrize("end", [EmbeddedPostgres.stop, kill])
def test_without_its_lock_no_task_runs(
    block: Any, server: EmbeddedPostgres, end: Callable[[EmbeddedPostgres], None]
) -> None:
    calls: list[int] = []
    policy = CALLS.configure(isolation_level=IsolationLevel.SERIALIZABLE, lock_manager=block.lock_manager())

    @task(cache_policy=policy, result_storage=block)
    def square(number: int) -> int:
        calls.append(number)
        return number**2

    @flow
    def squares() -> list[Any]:
        before = square(1)
        end(server)
        during = square(2, return_state=True)
        server.ensure_running()
        return [before, during.type.name, square(2)]

    assert squares() == [1, "FAILED", 4]
    assert calls == [1, 2]
