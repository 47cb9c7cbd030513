"""The commands over locks: who holds them, and how they are taken away."""

import datetime
import json
import os
from typing import Any

import pytest

from pgresults.errors import LockLostError, MissingResult
from pgresults.locking import PostgresLockManager
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.chains import are_intact, entries
from tests.support.cli import Cli, refused, succeeded


class TestLocks:
    @pytest.fixture
    def locks(self, storage: PostgresStorage) -> PostgresLockManager:
        return storage.lock_manager()

    def test_holders_are_listed(self, cli: Cli, locks: PostgresLockManager, store: ResultStore) -> None:
        assert succeeded(cli("locks")) == ""
        assert succeeded(cli("locks", "--json")) == "[]\n"
        locks.acquire_lock("b", "ann", hold_timeout=1000)
        locks.acquire_lock("a", "bob")
        for _ in range(2):
            listed = json.loads(succeeded(cli("locks", "--json")))
            assert [(lock["key"], lock["holder"], lock["waiters"]) for lock in listed] == [
                ("a", "bob", 0),
                ("b", "ann", 0),
            ]
            assert {lock["pid"] for lock in listed} == {os.getpid()}
            assert listed[0]["expires_at"] is None
            since, until = (datetime.datetime.fromisoformat(listed[1][name]) for name in ("since", "expires_at"))
            assert until - since == datetime.timedelta(seconds=1000)
            store.write(1, key="registered")  # from now on the storage has a name in the view
        lines = succeeded(cli("locks")).splitlines()
        assert [line.split("\t")[:2] for line in lines] == [["a", "bob"], ["b", "ann"]]

    def test_a_broken_lock_is_the_next_ones_and_its_holder_cannot_write(
        self, cli: Cli, locks: PostgresLockManager, store: ResultStore, connection: Any
    ) -> None:
        guarded = ResultStore(result_storage=store.result_storage, lock_manager=locks)
        stored = guarded.write("kept", key="k")
        locks.acquire_lock("k", "stuck")
        fence = locks._grant("k", "stuck").fence
        said = succeeded(cli("locks", "break", "k", "--reason", "host is gone"))
        assert said == f"k: taken away from stuck, fence {fence}\n"
        with pytest.raises(LockLostError):
            guarded.write("late", key="k", holder="stuck")
        assert locks.acquire_lock("k", "next", 0) is True
        record = guarded.read("k", holder="next")
        assert (record.result, record.metadata.version, record.metadata.sha256) == ("kept", 1, stored.sha256)
        now = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=1)
        assert guarded.read("k", holder="next", as_of=now).result == "kept"
        assert guarded.read("k", holder="next", version=1).result == "kept"
        chain = entries(connection, store)
        entry = chain[-1]
        assert [entry["action"] for entry in chain] == ["write", "break"]
        assert (entry["holder"], entry["fence"], entry["reason"]) == ("stuck", fence, "host is gone")
        assert are_intact(chain)
        assert store.verify().findings == ()

    def test_a_lock_of_a_key_without_a_result(
        self, cli: Cli, locks: PostgresLockManager, store: ResultStore, connection: Any
    ) -> None:
        for n in range(2):
            locks.acquire_lock("new", f"stuck {n}")
            succeeded(cli("locks", "break", "new", "--reason", "why"))
        assert not store.exists("new")
        with pytest.raises(MissingResult, match="never written"):
            store.read("new")
        assert store.write(1, key="new").version == 1
        store.delete("new")
        locks.acquire_lock("new", "stuck again")
        succeeded(cli("locks", "break", "new", "--reason", "why"))
        with pytest.raises(MissingResult, match="deleted"):
            store.read("new")
        chain = entries(connection, store)
        assert [entry["action"] for entry in chain] == ["break", "break", "write", "delete", "break"]
        assert [entry["version"] for entry in chain] == [0, 0, 1, 1, 1]
        assert are_intact(chain)
        assert store.verify().findings == ()

    def test_what_nobody_holds_cannot_be_broken(self, cli: Cli, connection: Any, store: ResultStore) -> None:
        assert "nobody holds the lock of 'k'" in refused(cli("locks", "break", "k", "--reason", "why"))
        assert "reason" in refused(cli("locks", "break", "k", "--reason", ""), code=2)
        refused(cli("locks", "break", "k"), code=2)
        assert entries(connection, store) == []
