"""Servers that die while a tree over several of them is committed: all of it is there afterwards, or nothing.

A commit is halted where one server has prepared its part and another one is about to, or where all have and one has
not yet been told of the decision. Processes of the cluster are killed, so it must run on this machine.
"""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import psycopg
import pytest
from sqlalchemy import URL

from pgresults.errors import PgResultsError
from pgresults.store import ResultStore
from pgresults.transactions import transaction
from tests.support import citus
from tests.support.citus import PATIENCE, PREPARED, Server, until
from tests.support.database import psycopg_url

pytestmark = pytest.mark.citus

Connection = psycopg.Connection[Any]
KEYS = [f"k{number}" for number in range(12)]
PLACES = """
    SELECT key, s.nodeport, s.shardid
    FROM unnest(%s::text[]) key
    JOIN citus_shards s ON s.shardid = get_shard_id_for_distribution_column('pgresults.history', key)
"""
HOLD = """
    SET citus.enable_ddl_propagation = off;
    SET citus.enable_manual_changes_to_shards = on;
    CREATE FUNCTION public.halt() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_advisory_lock(4711);
        PERFORM pg_advisory_unlock(4711);
        RETURN NULL;
    END
    $$;
    CREATE CONSTRAINT TRIGGER halt AFTER INSERT ON pgresults.history_{} DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION public.halt();
"""
LIFT = "SET citus.enable_ddl_propagation = off; DROP FUNCTION public.halt() CASCADE"
HALTED = (
    "SELECT pid, application_name FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'"
)
DECIDED = "SELECT count(*) FROM pg_dist_transaction"


class Cluster(NamedTuple):
    """The coordinator, the worker whose part of a commit is halted, and the other one."""

    coordinator: Server
    halting: Server
    other: Server


class Halted(NamedTuple):
    """A tree whose commit stands still: what becomes of it, and the processes that serve it."""

    outcome: Future[bool]
    coordinator: int
    halting: int
    other: int
    gate: Connection

    def go_on(self) -> None:
        self.gate.execute("SELECT pg_advisory_unlock(4711)")


@pytest.fixture
def cluster(server_url: URL, shared_url: URL) -> Iterator[Cluster]:
    """The cluster, one of whose workers halts before it prepares what is stored on it."""
    coordinator, *workers = [Server(url.set(database=shared_url.database)) for url in citus.servers(server_url)]
    if not coordinator.is_here():
        pytest.skip("processes of the cluster cannot be killed from here")
    shard, port = max((shard, port) for _, port, shard in coordinator.ask(PLACES, KEYS))
    halting = next(worker for worker in workers if worker.url.port == port)
    with psycopg.connect(psycopg_url(halting.url), autocommit=True) as connection:
        connection.execute(HOLD.format(shard))
    yield Cluster(coordinator, halting, next(worker for worker in workers if worker is not halting))
    until(halting.is_up)
    with psycopg.connect(psycopg_url(halting.url), autocommit=True) as connection:
        connection.execute(LIFT)


@pytest.fixture
def halted(cluster: Cluster, guarded: ResultStore) -> Iterator[Halted]:
    """A tree under locks that one worker has prepared and the other one is about to prepare."""
    with psycopg.connect(psycopg_url(cluster.halting.url), autocommit=True) as gate, ThreadPoolExecutor(1) as pool:
        gate.execute("SELECT pg_advisory_lock(4711)")
        outcome = pool.submit(store_all, guarded)
        halting, name = until(lambda: cluster.halting.ask(HALTED))[0]
        until(lambda: cluster.other.count(PREPARED))
        ((other,),) = cluster.other.ask("SELECT pid FROM pg_stat_activity WHERE application_name = %s", name)
        yield Halted(outcome, int(name.rpartition("=")[2]) % 10**10, halting, other, gate)


def store_all(store: ResultStore) -> bool:
    """Store all keys as one tree; whether it is said to be stored."""
    try:
        with transaction(store=store):
            for key in KEYS:
                with transaction(key=key, store=store, isolation_level="SERIALIZABLE") as inner:
                    inner.stage(key)
    except PgResultsError:
        return False
    return True


def check(cluster: Cluster, store: ResultStore, before: int) -> int:
    """How many keys there are, of which nothing is lost, spoilt or locked for ever."""
    citus.settle(cluster)
    found = sum(store.exists(key) for key in KEYS)
    assert not found or [store.read(key).result for key in KEYS] == KEYS
    assert store.verify().intact or not found
    assert fence(store) > before
    with transaction(store=store, isolation_level="SERIALIZABLE", key=KEYS[0], overwrite=True) as again:
        again.stage("again")
    assert store.read(KEYS[0]).metadata.version == (2 if found else 1)
    return found


def fence(store: ResultStore) -> int:
    """The fence of a new lock."""
    assert store.acquire_lock("fence", "somebody", 30)
    granted = store.lock_manager._grant("fence", "somebody").fence
    store.release_lock("fence", "somebody")
    return int(granted)


@pytest.mark.parametrize("victim", ["halting", "coordinator"])
def test_who_dies_before_the_decision_leaves_nothing(
    cluster: Cluster, halted: Halted, guarded: ResultStore, victim: str
) -> None:
    before = highest_fence(cluster)
    getattr(cluster, victim).kill(getattr(halted, victim))
    until(getattr(cluster, victim).is_up)
    halted.gate.close()
    assert not halted.outcome.result(PATIENCE)
    assert check(cluster, guarded, before) == 0


def test_what_was_prepared_outlives_its_server(cluster: Cluster, halted: Halted, guarded: ResultStore) -> None:
    before = highest_fence(cluster)
    cluster.other.kill(halted.other)
    until(cluster.other.is_up)
    assert cluster.other.count(PREPARED)
    halted.go_on()
    assert halted.outcome.result(PATIENCE)
    assert check(cluster, guarded, before) == len(KEYS)


@pytest.mark.parametrize("victims", [["other"], ["coordinator"], ["coordinator", "other"]], ids=" and ".join)
def test_who_dies_after_the_decision_loses_nothing(
    cluster: Cluster, halted: Halted, guarded: ResultStore, victims: list[str]
) -> None:
    before = highest_fence(cluster)
    os.kill(halted.other, signal.SIGSTOP)
    halted.go_on()
    until(lambda: cluster.coordinator.count(DECIDED))
    assert cluster.other.count(PREPARED)
    for victim in victims:
        getattr(cluster, victim).kill(getattr(halted, victim))
    if "other" not in victims:
        os.kill(halted.other, signal.SIGCONT)
    halted.outcome.result(PATIENCE)
    assert check(cluster, guarded, before) == len(KEYS)


def highest_fence(cluster: Cluster) -> int:
    return cluster.coordinator.count("SELECT max(fence) FROM pgresults.lock")
