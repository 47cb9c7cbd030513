"""The pages of locks, of space and of tasks, over HTTP."""

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from pgresults.locking import PostgresLockManager
from pgresults.operations.locks import HeldLock
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from pgresults.web.pages.locks import cycles
from tests.support.console import Browser, by_task, json_store, keys_in, settled

Console = Callable[..., Browser]


class TestLocks:
    def test_show_holder_waiters_and_cycles(self, console: Console, storage: PostgresStorage) -> None:
        locks = storage.lock_manager()
        assert locks.acquire_lock("a", "host.example:12:worker")
        page = console().see("/locks")
        assert "held 1 waiting 0 cycles 0" in page.text
        assert "host.example" in page.text
        assert f"host.example {os.getpid()} now" in page.text
        assert "only looks" in page.text
        assert "Take it away" not in page.source
        locks.release_lock("a", "host.example:12:worker")
        assert "Nobody holds a lock" in console().see("/locks").text

    def test_page_by_key(self, console: Console, storage: PostgresStorage, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("pgresults.web.pages.locks._LIMIT", 2)
        locks = storage.lock_manager()
        for key in "abc":
            assert locks.acquire_lock(key, "me:1:x")
        browser = console()
        first = browser.see("/locks")
        assert keys_in(first) == ["a", "b"]
        assert keys_in(browser.see(first.link("Next"))) == ["c"]
        assert keys_in(browser.see("/locks", key="b")) == ["b"]
        for key in "abc":
            locks.release_lock(key, "me:1:x")

    def test_that_wait_for_each_other_are_found(self) -> None:
        def lock(key: str, holder: str, *waiting: str) -> HeldLock:
            now = datetime.now(UTC)
            return HeldLock(key, holder, now, None, 1, "a", 1, 1, len(waiting), None, list(waiting))

        ring = [lock("a", "ann", "bob"), lock("b", "bob", "cid"), lock("c", "cid", "ann", "dan"), lock("d", "dan")]
        assert [[one.key for one in way] for way in cycles(ring)] in (
            [["a", "c", "b"]],
            [["b", "a", "c"]],
            [["c", "b", "a"]],
        )
        assert cycles([lock("a", "ann", "bob"), lock("b", "bob", "cid")]) == []
        assert [[one.key for one in way] for way in cycles([lock("a", "ann", "ann")])] == [["a"]]
        many = [lock(str(number), str(number), *map(str, range(40))) for number in range(40)]
        assert cycles(many)  # within time, however many ways there are

    def test_are_broken_with_a_reason_where_that_is_allowed(self, console: Console, guarded: ResultStore) -> None:
        locks = guarded.lock_manager
        assert isinstance(locks, PostgresLockManager)
        assert locks.acquire_lock("k", "me:1:x")
        looking = console()
        token = looking.see("/integrity").token
        refused = looking.post("/locks/break", {"token": token, "key": "k", "reason": "stuck"})
        assert (refused.status, "changes nothing" in refused.text) == (403, True)
        browser = console(allow_changes=True, user_header="X-User")
        ann = {"x-user": "ann@example.com"}
        page = browser.get("/locks", headers=ann)
        assert browser.post("/locks/break", {"key": "k", "reason": "stuck"}, headers=ann).status == 403
        bob = browser.post("/locks/break", {"token": page.token, "key": "k", "reason": "x"}, headers={"x-user": "bob"})
        assert bob.status == 403
        assert browser.post("/locks/break", {"token": page.token, "key": "k"}, headers=ann).status == 400
        assert locks.is_locked("k")
        done = browser.post("/locks/break", {"token": page.token, "key": "k", "reason": "stuck"}, headers=ann)
        assert done.status == 303
        assert not locks.is_locked("k")
        last = guarded.history("k")[-1]
        assert (last.action, last.actor, last.reason) == ("break", "ann@example.com", "stuck")


class TestSpaceAndTasks:
    def test_space_tells_what_expires_and_what_is_large(self, console: Console, storage: PostgresStorage) -> None:
        store = json_store(storage)
        store.write("x" * 5000, "large", tags=["big"], expires_in=timedelta(days=2))
        store.write("x", "gone", expires_in=timedelta(milliseconds=1))
        by_task(storage, "count", "c")
        page = settled(console(), "/space")
        assert "5.0 kB" in page.text
        assert "big 1 5.0 kB" in page.text
        assert "count 1" in page.text
        assert "What expires on each day to come" in page.source
        assert "1 results of 5.0 kB expire" in page.text
        assert "The first 1 to expire" in page.text
        assert console().get("/space?days=8").status == 400

    def test_what_retain_would_free_is_counted_and_stays(self, console: Console, storage: PostgresStorage) -> None:
        store = json_store(storage)
        for number in range(5):
            store.write(number, "k")
        browser = console()
        token = browser.see("/space").token
        assert browser.post("/space/retain", {"token": token}).status == 400
        assert browser.post("/space/retain", {"token": token, "versions": "-1"}).status == 400
        assert browser.post("/space/retain", {"token": token, "versions": "2"}).status == 303
        for _ in range(200):
            page = browser.see("/space")
            if "payloads would go" in page.text:
                break
        assert "3 payloads would go" in page.text
        assert store.read("k", version=1).result == 0

    def test_tasks_say_why_they_computed(self, console: Console, storage: PostgresStorage) -> None:
        store = ResultStore(result_storage=storage)
        by_task(storage, "count", "c")
        store.invalidate(task="count", reason="other inputs")
        by_task(storage, "count", "c")
        by_task(storage, "count", "expired")
        browser = console()
        assert "count 2" in settled(browser, "/tasks").text
        page = settled(browser, "/tasks?task=count")
        assert page.text.count("never computed before") == 2
        assert "other inputs" in page.text
        assert "1 again" in page.text
        assert browser.get("/tasks?span=2y").status == 400

    def test_the_results_of_a_task_are_forgotten_where_that_is_allowed(
        self, console: Console, storage: PostgresStorage
    ) -> None:
        by_task(storage, "count", "c")
        by_task(storage, "other", "o")
        browser = console(allow_changes=True)
        page = browser.see("/tasks", task="count")
        assert browser.post("/tasks/forget", {"token": page.token, "task": "count"}).status == 400
        done = browser.post("/tasks/forget", {"token": page.token, "task": "count", "reason": "wrong"})
        assert done.status == 303
        assert "1 results are deleted" in browser.see(done.headers["location"]).text
        store = ResultStore(result_storage=storage)
        assert (store.exists("c"), store.exists("o")) == (False, True)

    def test_a_result_is_forgotten_where_that_is_allowed(self, console: Console, store: ResultStore) -> None:
        store.write(1, key="k")
        browser = console(allow_changes=True)
        page = browser.see("/key", key="k")
        done = browser.post("/key/delete", {"token": page.token, "key": "k", "reason": "wrong"})
        assert done.status == 303
        assert not store.exists("k")
        assert "Delete the live result" not in console().see("/key", key="k").text
