"""A program that is interrupted by a signal handler again and again, and says what that left behind.

python interrupted.py URL KIND ROUNDS
"""

import json
import random
import signal
import sys
from collections import Counter

from pgresults import PostgresStorage, ResultStore, get_transaction, transaction
from pgresults.context import FlowRunContext, TaskRunContext
from pgresults.records.provenance import HOLDER


class TimeIsUpError(Exception):
    """The user's own time-out."""


def ring(*_: object) -> None:
    raise TimeIsUpError


def main(url: str, kind: str, rounds: int) -> Counter[str]:
    storage = PostgresStorage(url, f"interrupted-{kind}")
    store = ResultStore(result_storage=storage, lock_manager=storage.lock_manager())

    def locks() -> None:
        if store.acquire_lock("lock"):
            try:
                pass
            finally:
                store.release_lock("lock")

    def results() -> None:
        store.write({"a": list(range(50))}, key="k")
        store.read("k")
        store.exists("k")

    def trees() -> None:
        with transaction(key="t", store=store, isolation_level="SERIALIZABLE", overwrite=True) as outer:
            with transaction(key="u", store=store, overwrite=True) as inner:
                inner.stage([1])
            outer.stage([2])

    work = {"locks": locks, "results": results, "trees": trees}[kind]
    seen: Counter[str] = Counter()
    signal.signal(signal.SIGALRM, ring)
    for _ in range(rounds):
        try:
            signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0001, 0.002))
            for _ in range(100):
                work()
            seen["swallowed"] += 1  # in a call-back of Python's own, which lets no exception out
        except TimeIsUpError:
            seen["arrived"] += 1
        except BaseException as error:
            seen[f"foreign {type(error).__name__}"] += 1
        if store.is_lock_holder("lock"):  # interrupted before it could give it back
            store.release_lock("lock")
        seen.update(left_behind(store))
    seen["altered"] += len(store.verify().findings)
    return seen


def left_behind(store: ResultStore) -> Counter[str]:
    """What is not as it was before."""
    found: Counter[str] = Counter()
    found["context"] += any(
        around is not None for around in (get_transaction(), TaskRunContext.get(), FlowRunContext.get(), HOLDER.get())
    )
    for held in store.lock_manager.held_locks():
        found["locks"] += 1
        store.lock_manager.break_lock(held.key, reason="left behind")
    found["session"] += not store.acquire_lock("health", timeout=5)
    store.release_lock("health")
    pool = store.result_storage.database._pools._process.threads
    found["places"] += pool._places.qsize() != pool._options.size + pool._options.overflow
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
