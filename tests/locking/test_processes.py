"""Locks of several processes: other holders, killed ones, forked ones."""

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import URL

from pgresults.locking import PostgresLockManager
from pgresults.storage import PostgresStorage
from tests.support.database import psycopg_url


class TestProcesses:
    HOLD = """
import sys
from pgresults.locking import PostgresLockManager
locks = PostgresLockManager(sys.argv[1], sys.argv[2])
print(locks.acquire_lock("k", sys.argv[3], 30), flush=True)
sys.stdin.readline()
"""

    @pytest.fixture
    def process(self, shared_url: URL, postgres: PostgresLockManager) -> Iterator[Callable[[str], Any]]:
        started = []

        def start(holder: str) -> Any:
            command = [sys.executable, "-c", self.HOLD, psycopg_url(shared_url), postgres.name, holder]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            started.append(subprocess.Popen(command, **pipes))
            return started[-1]

        yield start
        for process in started:
            process.kill()
            process.communicate()

    def test_another_process_is_another_holder(self, postgres: PostgresLockManager, process: Any) -> None:
        holder = process("there")
        assert holder.stdout.readline() == "True\n"
        assert postgres.acquire_lock("k", "here", 0) is False
        assert postgres.is_lock_holder("k", "there")

    def test_a_killed_holder_is_taken_over_from(
        self, postgres: PostgresLockManager, process: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        holder = process("there")
        assert holder.stdout.readline() == "True\n"
        holder.kill()
        assert postgres.acquire_lock("k", "here", 30) is True
        [record] = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert "taken over from there" in record.getMessage()

    def test_the_same_holder_may_be_in_two_processes(
        self, storage: PostgresStorage, shared_url: URL, process: Any, postgres: PostgresLockManager
    ) -> None:
        there = process("both")
        assert there.stdout.readline() == "True\n"
        assert postgres.acquire_lock("k", "both", 0) is True
        assert postgres._grant("k", "both") is not None
        postgres.release_lock("k", "both")
        assert postgres.is_locked("k") is False
        assert postgres.acquire_lock("k", "other", 0) is True

    def test_a_forked_child_begins_anew(self, postgres: PostgresLockManager) -> None:
        assert postgres.acquire_lock("k", "parent")
        queue = threading.Thread(target=postgres.acquire_lock, args=("k", "waiting", 30))
        queue.start()
        while not postgres._queues._lines:
            pass
        pid = os.fork()
        if pid == 0:
            try:
                fine = not postgres.acquire_lock("k", "child", 0.1)
                fine = fine and postgres.acquire_lock("other", "child", 0)
                os._exit(0 if fine and postgres._grant("k", "parent") is None else 1)
            finally:
                os._exit(2)
        assert os.waitpid(pid, 0)[1] == 0
        assert postgres.is_lock_holder("k", "parent")
        postgres.release_lock("k", "parent")
        queue.join()
        assert postgres.is_lock_holder("k", "waiting")
        assert postgres.acquire_lock("other", "parent", 5), "the child's lock died with it"
