"""Commands that look again and again."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from pgresults.store import ResultStore
from tests.support.cli import Cli, refused, succeeded


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[float]]:
    """Has something happen between two looks, and Ctrl-C come when there is no more."""

    def set_up(*steps: Callable[[], Any]) -> list[float]:
        pauses: list[float] = []

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) > len(steps):
                raise KeyboardInterrupt
            steps[len(pauses) - 1]()

        monkeypatch.setattr("pgresults.cli.watching.sleep", pause)
        return pauses

    return set_up


def test_locks_come_and_go(cli: Cli, guarded: ResultStore, between: Any) -> None:
    pauses = between(lambda: guarded.acquire_lock("k", "ann"), lambda: guarded.release_lock("k", "ann"))
    ended = cli("locks", "--watch", "--json")
    assert ended.exit_code == 130
    assert [json.loads(line) != [] for line in ended.stdout.splitlines()] == [False, True, False]
    assert pauses == [2, 2, 2]


def test_stats_go_on_counting(cli: Cli, store: ResultStore, between: Any) -> None:
    pauses = between(lambda: store.write(1, key="k"))
    ended = cli("stats", "--watch", "--every", "1m")
    assert [line for line in ended.stdout.splitlines() if line.startswith("keys")] == ["keys\t0", "keys\t1"]
    assert pauses == [60, 60]


def test_verifying_ends_with_what_was_altered(cli: Cli, store: ResultStore, between: Any, connection: Any) -> None:
    store.write(1, key="k")
    forged = "UPDATE pgresults.payload SET data = '7' WHERE storage_id = %s"
    between(lambda: store.write(2, key="k"), lambda: connection.execute(forged, [store.result_storage.id]))
    ended = cli("verify", "--watch")
    assert ended.exit_code == 1
    assert [line.rpartition(": ")[2] for line in ended.stdout.splitlines() if line[0].isdigit()] == [
        "intact",
        "intact",
        "ALTERED in 2 places",
    ]


def test_an_outage_ends_no_watch(cli: Cli, store: ResultStore, between: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from pgresults.errors import StorageUnavailable
    from pgresults.locking import PostgresLockManager

    held, failures = PostgresLockManager.held_locks, iter([True, False])

    def sometimes(manager: PostgresLockManager) -> Any:
        if next(failures):
            raise StorageUnavailable("the database is away")
        return held(manager)

    monkeypatch.setattr(PostgresLockManager, "held_locks", sometimes)
    between(lambda: None)
    ended = cli("locks", "--watch", "--json")
    assert ("error: the database is away\n" in ended.stderr, ended.stdout) == (True, "[]\n")


def test_how_often_is_said_with_watch(cli: Cli, store: ResultStore) -> None:
    for command in ("locks", "stats", "verify"):
        assert "--watch" in refused(cli(command, "--every", "1m"), code=2)
    assert succeeded(cli("locks", "--json")) == "[]\n"
