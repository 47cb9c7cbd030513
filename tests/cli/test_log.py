"""``log`` and ``explain``: what happened in a storage, and why there is what there is."""

import json
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL

from pgresults import flow, task
from pgresults.cache_policies import INPUTS
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support import eventful as happened
from tests.support.cli import Cli, refused, succeeded
from tests.support.database import psycopg_url

eventful = happened.eventful


def seen(text: str) -> list[tuple[str, str]]:
    return [(line.split("\t")[1], line.split("\t")[2]) for line in text.splitlines()]


EVERYTHING = [("write", "a/1"), ("delete", "b/1"), ("touch", "a/1"), ("write", "b/1"), ("write", "a/1")]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], EVERYTHING),
        (["a/"], [("write", "a/1"), ("touch", "a/1"), ("write", "a/1")]),
        (["--action", "delete"], [("delete", "b/1")]),
        (["--tag", "red"], [("touch", "a/1"), ("write", "a/1")]),
        (["--limit", "2"], EVERYTHING[:2]),
        (["--since", "1h ago"], EVERYTHING),
        (["--since", "1h ago", "--limit", "1"], EVERYTHING[:1]),
        (["--until", "1h ago"], []),
        (["--actor", "nobody@nowhere"], []),
        (["a/", "--action", "write", "--tag", "blue"], [("write", "a/1")]),
    ],
)
def test_the_newest_is_first(cli: Cli, eventful: ResultStore, arguments: list[str], expected: Any) -> None:
    assert seen(succeeded(cli("log", *arguments))) == expected


def test_it_says_where_it_stops(cli: Cli, eventful: ResultStore) -> None:
    assert "--limit gives more than 4" in cli("log", "--limit", "4").stderr
    assert cli("log", "--limit", "5").stderr == ""
    actor = eventful.history("b/1")[0].actor
    assert seen(succeeded(cli("log", "--actor", actor))) == EVERYTHING


def test_json_says_everything(cli: Cli, eventful: ResultStore) -> None:
    rows = json.loads(succeeded(cli("log", "--json")))
    assert [(row["key"], row["seq"], row["reason"]) for row in rows][1] == ("b/1", 2, "wrong")
    assert {"digest", "db_user", "provenance", "holder"} <= rows[0].keys()


def test_what_is_old_is_found_too(cli: Cli, fresh_url: URL) -> None:
    storage = PostgresStorage(fresh_url)
    happened.events(ResultStore(result_storage=storage))
    earlier = "UPDATE pgresults.history SET at = at - %s * interval '1 day' WHERE (storage_id, key, seq) = (%s, %s, %s)"
    with psycopg.connect(psycopg_url(fresh_url), autocommit=True) as connection:
        connection.execute("ALTER TABLE pgresults.history DISABLE TRIGGER USER")
        for seq, key, days in ((1, "a/1", 400), (1, "b/1", 20), (2, "a/1", 0.5)):
            connection.execute(earlier, [days, storage.id, key, seq])
    storage.close()
    for limit in range(1, 7):
        assert seen(succeeded(cli("log", "--limit", str(limit), url=psycopg_url(fresh_url)))) == EVERYTHING[:limit]


def test_a_follower_sees_what_comes_once(cli: Cli, eventful: ResultStore, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 4:
            raise KeyboardInterrupt
        eventful.write(len(pauses), key=f"a/new{len(pauses)}")

    monkeypatch.setattr("pgresults.cli.log.sleep", pause)
    ended = cli("log", "a/", "--follow")
    assert ended.exit_code == 130
    old = [("write", "a/1"), ("touch", "a/1"), ("write", "a/1")]
    assert seen(ended.stdout) == old + [("write", f"a/new{n}") for n in (1, 2, 3)]
    assert refused(cli("log", "--follow", "--until", "now"), code=2)


class TestExplain:
    def test_what_was_never_there(self, cli: Cli, store: ResultStore) -> None:
        ended = cli("explain", "k", "--json")
        assert ended.exit_code == 1
        said = json.loads(ended.stdout)
        assert said == {
            "key": "k",
            "result": "no result under 'k': never written",
            "history": "nothing ever happened here",
        }

    def test_what_somebody_works_on_for_the_first_time(self, cli: Cli, guarded: ResultStore) -> None:
        guarded.acquire_lock("k", "ann")
        assert "ann has it since" in succeeded(cli("explain", "k"))

    def test_what_is_there(self, cli: Cli, guarded: ResultStore) -> None:
        guarded.write(1, key="k", tags=["red"], expires_in=timedelta(hours=1))
        guarded.acquire_lock("k", "ann", hold_timeout=100)
        said = json.loads(succeeded(cli("explain", "k", "--json")))
        assert said["result"] == "version 1 is live"
        assert said["expires"] == guarded.history("k")[0].expiration.isoformat()  # type: ignore[union-attr]
        assert said["lock"].startswith("ann has it since")
        assert (said["tags"], said["history"]) == ("red", "entries: 1, versions: 1")

    def test_what_went(self, cli: Cli, store: ResultStore) -> None:
        store.write(1, key="k")
        store.delete("k", reason="wrong")
        said = succeeded(cli("explain", "k"))
        assert "deleted at" in said
        assert "reason\twrong\n" in said
        assert "history\tentries: 2, versions: 1" in said
        assert ".0" not in said.partition("written")[0]

    def test_what_a_task_made(self, cli: Cli, store: ResultStore) -> None:
        @task(cache_policy=INPUTS, result_storage=store.result_storage, persist_result=True)
        def double(n: int) -> int:
            return 2 * n

        @flow(result_storage=store.result_storage)
        def doubles() -> int:
            return double(4)

        doubles()
        (row,) = store.find(task="double")
        said = json.loads(succeeded(cli("explain", row.key, "--json")))
        assert said["flow"] == "doubles"
        assert "double" in said["task"]
