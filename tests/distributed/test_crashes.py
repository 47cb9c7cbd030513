"""Servers that die while a tree over several of them is committed: all of it is there afterwards, or nothing.

A commit is halted where one server has prepared its part and another one is about to, or where all have and one has
not yet been told of the decision. Processes of the cluster are killed, so it must run on this machine.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import psycopg
import pytest
from sqlalchemy import URL

from pgresults.errors import PgResultsError
from pgresults.store import ResultStore
from pgresults.transactions import transaction
from tests.support import citus
from tests.support.database import psycopg_url

pytestmark = pytest.mark.citus

Connection = psycopg.Connection[Any]
PATIENCE = 60.0
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
PREPARED = "SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()"
DECIDED = "SELECT count(*) FROM pg_dist_transaction"


def until(condition: Callable[[], Any]) -> Any:
    """What a condition says once it says anything."""
    end = time.monotonic() + PATIENCE
    while not (said := condition()):
        assert time.monotonic() < end
    return said


class Server:
    """A server of the cluster, which may die and come again."""

    def __init__(self, url: URL) -> None:
        self.url = url

    def ask(self, query: str, *values: Any) -> list[Any]:
        with psycopg.connect(psycopg_url(self.url), autocommit=True) as connection:
            return connection.execute(query, values).fetchall()

    def count(self, query: str) -> int:
        return int(self.ask(query)[0][0])

    def is_up(self) -> bool:
        try:
            return self.count("SELECT 1") == 1
        except psycopg.OperationalError:
            return False

    def kill(self, pid: int) -> None:
        """Have a process of it die, by which all of it is lost that is in memory."""
        os.kill(pid, signal.SIGKILL)


class Cluster(NamedTuple):
    """The coordinator, the worker whose part of a commit is halted, and the other one."""

    coordinator: Server
    halting: Server
    other: Server

    def settle(self) -> None:
        """Have what is prepared be ended, as the cluster does itself once a minute."""
        for server in self:
            until(server.is_up)

        def settled() -> bool:
            self.coordinator.ask("SELECT recover_prepared_transactions()")
            return not any(server.count(PREPARED) for server in self)

        until(settled)


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
    shard, port = max((shard, port) for _, port, shard in coordinator.ask(PLACES, KEYS))
    halting = next(worker for worker in workers if worker.url.port == port)
    try:
        os.kill(halting.ask("SELECT pg_backend_pid()")[0][0], 0)
    except ProcessLookupError:
        pass  # it is over, but was here to be looked for
    except PermissionError:
        pytest.skip("processes of the cluster cannot be killed from here")
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
    cluster.settle()
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


@pytest.mark.parametrize("victim", ["halting", "other", "coordinator"])
def test_who_dies_before_the_decision_leaves_nothing(
    cluster: Cluster, halted: Halted, guarded: ResultStore, victim: str
) -> None:
    before = highest_fence(cluster)
    getattr(cluster, victim).kill(getattr(halted, victim))
    if victim == "other":
        halted.go_on()  # what was prepared outlives its server
        stored = halted.outcome.result(PATIENCE)
        assert check(cluster, guarded, before) == (len(KEYS) if stored else 0)
        return
    until(getattr(cluster, victim).is_up)
    halted.gate.close()
    assert halted.outcome.result(PATIENCE) is (check(cluster, guarded, before) == len(KEYS))


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
