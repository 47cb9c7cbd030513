"""Values that are incremented under locks while processes are killed and servers of the cluster die."""

import random
import time
from pathlib import Path

import pytest
from sqlalchemy import URL

from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.faults.conftest import Tell
from tests.faults.test_lock_faults import NAME, Workers, check
from tests.support import citus
from tests.support.citus import Server, until

pytestmark = [pytest.mark.citus, pytest.mark.slow, pytest.mark.timeout(300)]

SECONDS = 90.0
SEED = 20


def cut_off(coordinator: Server) -> None:
    """End two of the sessions that programs have."""
    coordinator.ask(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name = 'pgresults' ORDER BY random() LIMIT 2"
    )


def test_increments_outlive_servers(server_url: URL, fresh_url: URL, tmp_path: Path, tell: Tell) -> None:
    cluster = [Server(url.set(database=fresh_url.database)) for url in citus.servers(server_url)]
    coordinator, *workers = cluster
    if not coordinator.is_here():
        pytest.skip("processes of the cluster cannot be killed from here")
    chance = random.Random(SEED)
    programs = Workers(fresh_url, tmp_path, 4)
    faults = dict.fromkeys(("kill", "stop", "cut off", "worker", "coordinator"), 0)
    try:
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            time.sleep(chance.uniform(0.2, 1.5))  # the moment of a fault is meant to be any
            fault = chance.choices(list(faults), (4, 4, 4, 2, 1))[0]
            faults[fault] += 1
            if fault == "kill":
                programs.kill(chance)
            elif fault == "stop":
                programs.stop_for_a_while(chance)
            elif fault == "cut off":
                cut_off(coordinator)
            else:
                dying = chance.choice(workers) if fault == "worker" else coordinator
                dying.crash()
                until(dying.is_up)
    finally:
        programs.end()
    citus.settle(cluster)
    acknowledged = programs.acknowledged()
    lost = check(fresh_url, acknowledged, at_least=1)
    storage = PostgresStorage(fresh_url, NAME)
    stuck = int(not storage.lock_manager().acquire_lock("counter", "next", 30))
    assert ResultStore(result_storage=storage).verify().intact
    assert all(faults.values())
    rounds = sum(faults.values())
    tell("servers of a cluster die", rounds=rounds, acknowledged=len(acknowledged), lost=lost, stuck=stuck)
