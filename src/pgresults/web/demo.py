"""A store with life in it, made to be shown: on a server of its own, which is removed at the end."""

import random
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg

from pgresults.cache_policies import INPUTS
from pgresults.demo.modules import distinct, standard_library
from pgresults.demo.runner import analyse_module
from pgresults.serializers import JSONSerializer
from pgresults.server.embedded import EmbeddedPostgres
from pgresults.storage.postgres import PostgresStorage
from pgresults.store import ResultStore
from pgresults.tasks import task

_MODULES = 60
_PAUSE = 3.0
_HELD = "orders/import"
_ALTERED_PAYLOAD, _ALTERED_ROW = "ledger/2026-q1", "ledger/2026-q2"
_READABLE = 0o755


@contextmanager
def demonstrated() -> Iterator[Mapping[str, Any]]:
    """The settings of a store in which something happens, as long as the block lasts."""
    with TemporaryDirectory(prefix="pgresults-demo-") as directory:
        Path(directory).chmod(_READABLE)  # where root starts it, the server is another user's
        server = EmbeddedPostgres(Path(directory) / "server")
        try:
            url = server.ensure_running()
            storage = PostgresStorage(server)
            _fill(storage)
            _alter(url)
            with _living(storage):
                yield {"database_url": url}
            storage.close()
        finally:
            server.stop()


def _fill(storage: PostgresStorage) -> None:
    """Store what a team would have stored."""
    analysed = analyse_module.with_options(
        result_storage=storage, persist_result=True, cache_expiration=timedelta(days=7)
    )
    for module in distinct(standard_library(_MODULES)):  # one by one: Python's parser fails at times in several threads
        analysed(module)
    store = ResultStore(result_storage=storage, serializer=JSONSerializer())
    raw = [store.write({"orders": 900 + day}, f"orders/2026-05-{day:02}") for day in range(1, 4)]
    clean = store.write({"orders": 2706}, "orders/2026-05/clean", derived_from=raw)
    rates = store.write({"EUR": 1.0, "USD": 1.08}, "rates/2026-05")
    for number in range(1, 6):
        failed = [] if number % 2 else ["EMEA"]
        month = store.write(
            {"rows": 1000 + 7 * number, "failed": failed, "total": {"EUR": 81_204.5 + number}},
            "reports/2026-05",
            tags=["monthly", "finance"],
            provenance={"model": f"v{number}"},
            derived_from=[clean, rates],
        )
    for reader in ("board", "press"):
        store.write({"for": reader}, f"slides/{reader}", derived_from=[month])
    for quarter, key in enumerate((_ALTERED_PAYLOAD, _ALTERED_ROW), 1):
        store.write({"quarter": quarter, "balance": 1_204_551.25 * quarter}, key, tags=["finance"])
    for days in range(1, 28):
        features = {"rows": [random.random() for _ in range(40 * (1 + days % 9))]}  # noqa: S311 (no secret)
        store.write(features, f"features/{days:02}", tags=["features"], expires_in=timedelta(days=days))
    for number in range(4):
        store.write({"session": number}, f"sessions/{number}", expires_in=timedelta(milliseconds=1))
    ResultStore(result_storage=storage).write(Fraction(22, 7), "models/ratio")
    store.write("draft", "reports/2026-06")
    store.delete("reports/2026-06", reason="numbers of the wrong month")
    store.write({"name": "Ann Example"}, "people/4711")
    store.redact("people/4711", reason="asked to by its subject")
    store.hold(prefix="ledger/", reason="the yearly audit")
    _compute(store)


@task(cache_policy=INPUTS, persist_result=True, result_serializer="json")
def daily_total(day: int) -> dict[str, int]:
    """Stands for something that takes long."""
    return {"day": day, "orders": 100 + day * 7 % 13}


def _compute(store: ResultStore) -> None:
    kept = daily_total.with_options(result_storage=store.result_storage)
    for day in range(1, 15):
        kept(day)
    store.invalidate(task="daily_total", reason="orders of the week were imported anew")
    for day in range(6, 15):
        kept(day)


def _alter(url: str) -> None:
    """Do what somebody would who has all rights, and no good intentions."""
    with psycopg.connect(url) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute("SET search_path TO pgresults")
        connection.execute("UPDATE payload SET data = data || ' ' WHERE key = %s", [_ALTERED_PAYLOAD])
        connection.execute("UPDATE result SET tags = ARRAY['approved'] WHERE key = %s", [_ALTERED_ROW])


@contextmanager
def _living(storage: PostgresStorage) -> Iterator[None]:
    """Have somebody write, somebody hold a lock, and somebody wait for it."""
    enough = threading.Event()
    locks = storage.lock_manager()
    locks.acquire_lock(_HELD, "etl-3.example.com:4711:importer")
    workers = [threading.Thread(target=work, args=(storage, enough), daemon=True) for work in (_write, _wait)]
    for worker in workers:
        worker.start()
    try:
        yield
    finally:
        enough.set()
        for worker in workers:
            worker.join()
        locks.release_lock(_HELD, "etl-3.example.com:4711:importer")


def _write(storage: PostgresStorage, enough: threading.Event) -> None:
    store, number = ResultStore(result_storage=storage, serializer=JSONSerializer()), 0
    while not enough.wait(_PAUSE):
        number += 1
        store.write({"tick": number}, f"ticks/{number % 5}", tags=["ticks"], expires_in=timedelta(minutes=10))


def _wait(storage: PostgresStorage, enough: threading.Event) -> None:
    locks, holder = storage.lock_manager(), "etl-4.example.com:1147:importer"
    while not enough.is_set():
        if locks.acquire_lock(_HELD, holder, acquire_timeout=2.0):
            locks.release_lock(_HELD, holder)
