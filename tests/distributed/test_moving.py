"""Shards that are moved from one server to another while results are written and read."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL

from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from pgresults.transactions import transaction
from tests.support.database import psycopg_url

pytestmark = pytest.mark.citus

KEYS = [f"k{number}" for number in range(8)]
PLACES = """
    SELECT shardid, nodename, nodeport
    FROM citus_shards WHERE table_name = 'pgresults.result'::regclass ORDER BY shardid
"""


def until_over(over: threading.Event, do: Callable[[int], Any]) -> int:
    """Do something for so long as nothing is over; how often it was done."""
    number = 0
    while not over.is_set():
        do(number)
        number += 1
    return number


def move_all(url: URL) -> int:
    """Have every shard change its server."""
    with psycopg.connect(psycopg_url(url), autocommit=True) as connection:
        places = connection.execute(PLACES).fetchall()
        servers = sorted({(host, port) for _, host, port in places})
        for shard, *here in places:
            there = next(server for server in servers if server != tuple(here))
            connection.execute("SELECT citus_move_shard_placement(%s, %s, %s, %s, %s)", (shard, *here, *there))
        assert connection.execute(PLACES).fetchall() != places
    return len(places)


def test_nothing_is_lost_or_stale_while_shards_are_moved(fresh_url: URL) -> None:
    storage = PostgresStorage(fresh_url, name="moved")
    store = ResultStore(result_storage=storage, lock_manager=storage.lock_manager())
    for key in KEYS:
        store.write(0, key=key)

    def increment(number: int) -> None:
        key = KEYS[number % 4]
        with transaction(key=key, store=store, isolation_level="SERIALIZABLE", overwrite=True) as inner:
            inner.stage(store.read(key, holder=inner.holder).result + 1)

    def write_tree(number: int) -> None:
        with transaction(store=store):
            for key in KEYS[4:]:
                with transaction(key=key, store=store, overwrite=True) as inner:
                    inner.stage(number + 1)

    over = threading.Event()
    with ThreadPoolExecutor(4) as pool:
        increments = [pool.submit(until_over, over, increment) for _ in range(2)]
        trees = pool.submit(until_over, over, write_tree)
        reads = pool.submit(until_over, over, lambda number: store.read(KEYS[number % len(KEYS)]))
        try:
            assert move_all(fresh_url) == 4
        finally:
            over.set()
        made = [one.result() for one in increments]
        assert min(*made, trees.result(), reads.result()) > 0
    assert sum(store.read(key).result for key in KEYS[:4]) == sum(made)
    assert {store.read(key).result for key in KEYS[4:]} == {trees.result()}
    for key in KEYS:
        assert [entry.result for entry in store.history(key, with_results=True)] == list(
            range(store.read(key).metadata.version)
        )
    assert store.verify().intact
