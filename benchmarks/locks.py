"""What a lock costs: taking and giving it back, and how soon the next process has it."""

import logging
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from statistics import median

import psycopg
from rich.table import Table

from benchmarks.timing import measure
from pgresults.locking import PostgresLockManager

_CALLS, _ROUNDS, _CONNECTIONS, _HANDOVERS = 200, 5, 5, 40
_LOCK = "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))"
_WAITERS = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
_UNLOCK = "SELECT pg_advisory_unlock(hashtextextended(%s, 0))"

_HOLDER = """
import sys, time
from pgresults.locking import PostgresLockManager
locks = PostgresLockManager(sys.argv[1], "benchmarks", sys.argv[2])
locks.acquire_lock("warm", "up")
locks.release_lock("warm", "up")
for line in sys.stdin:
    locks.acquire_lock(line, "there")
    print("held", flush=True)
    sys.stdin.readline()
    print(time.monotonic(), flush=True)  # one clock for all processes of a machine
    locks.release_lock(line, "there")
"""


def lock_table(url: str, schema: str) -> Table:
    """Acquire and release against two bare advisory calls, and how long a waiting process waits too long."""
    logging.getLogger("pgresults.locking").setLevel(logging.ERROR)  # that locks are taken over is what is measured
    table = Table("operation", "median", "against", "ratio or worst", title="Locks")
    took, ratio = _acquire_and_release(url, schema)
    table.add_row("acquire + release", f"{took * 1000:.3f} ms", "two bare advisory calls", f"{ratio:.2f}")
    for name, killed in (("hand-over after release", False), ("hand-over after kill -9", True)):
        times = _handovers(url, schema, 10 if killed else _HANDOVERS, killed=killed)
        table.add_row(name, f"{median(times) * 1000:.2f} ms", "", f"{max(times) * 1000:.2f} ms")
    return table


def _acquire_and_release(url: str, schema: str) -> tuple[float, float]:
    keys = [f"key {number}" for number in range(_CALLS)]
    timings = None
    for _ in range(_CONNECTIONS):
        locks = PostgresLockManager(url, "benchmarks", schema)

        def ours(key: str, locks: PostgresLockManager = locks) -> None:
            locks.acquire_lock(key, "holder")
            locks.release_lock(key, "holder")

        with psycopg.connect(url, autocommit=True) as connection:

            def bare(key: str, connection: psycopg.Connection = connection) -> None:
                with connection.cursor(binary=True) as cursor:
                    cursor.execute(_LOCK, (key,), prepare=True).fetchone()
                    cursor.execute(_UNLOCK, (key,), prepare=True).fetchone()

            subjects = {"ours": ours, "bare": bare}
            measure(subjects, keys, 1)
            measured = measure(subjects, keys, _ROUNDS)
        timings = measured if timings is None else timings + measured
        locks.close()
    return timings.seconds("ours"), timings.ratio("ours", "bare")


def _handovers(url: str, schema: str, times: int, *, killed: bool) -> list[float]:
    """Seconds from the moment a process lets go, or dies, to the moment in which the waiting process has its lock."""
    locks, seconds, holder = PostgresLockManager(url, "benchmarks", schema), [], None
    with psycopg.connect(url, autocommit=True) as connection, ThreadPoolExecutor(1) as thread:
        for number in range(times):
            holder = holder or _start(url, schema)
            key = f"hand-over {killed} {number}\n"
            _tell(holder, key)
            holder.stdout.readline()
            waiting = thread.submit(_acquired_at, locks, key)
            while connection.execute(_WAITERS).fetchone() == (0,):
                pass
            if killed:
                let_go = time.monotonic()
                os.kill(holder.pid, signal.SIGKILL)
                holder.communicate()
                holder = None
            else:
                _tell(holder, "\n")
                let_go = float(holder.stdout.readline())
            seconds.append(waiting.result() - let_go)
    if holder is not None:
        holder.kill()
        holder.communicate()
    locks.close()
    return seconds


def _acquired_at(locks: PostgresLockManager, key: str) -> float:
    locks.acquire_lock(key, "here")
    moment = time.monotonic()
    locks.release_lock(key, "here")
    return moment


def _start(url: str, schema: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _HOLDER, url, schema]
    return subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def _tell(process: subprocess.Popen[str], line: str) -> None:
    process.stdin.write(line)
    process.stdin.flush()
