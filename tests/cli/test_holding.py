"""Holds on the command line."""

import json
from datetime import UTC, datetime, timedelta

from pgresults.store import ResultStore
from tests.support import apart
from tests.support.cli import Cli

shared_url = apart.shared_url


def test_what_is_on_hold_is_listed_and_stays(cli: Cli, store: ResultStore) -> None:
    store.write(1, key="a/1", tags=["legal"])
    store.write(2, key="a/old", expiration=datetime.now(UTC) - timedelta(hours=1))
    assert cli("hold", "--prefix", "a/", "--reason", "case 7", "--until", "in 2 days").exit_code == 0
    refused = cli("rm", "a/1")
    assert refused.exit_code == 1
    assert "'a/1' is on hold: case 7" in refused.output
    assert cli("sweep").output == "0 expired results swept, 1 more on hold\n"
    (listed,) = json.loads(cli("holds", "--json").output)
    assert (listed["prefix"], listed["reason"]) == ("a/", "case 7")
    assert listed["id"] in cli("holds").output
    assert cli("release", "a/", "--reason", "over").exit_code == 1  # no hold is on a key
    assert cli("release", "--prefix", "a/", "--reason", "over").output.startswith("1 holds released")
    assert cli("sweep").output == "1 expired results swept\n"


def test_a_hold_is_released_by_its_id(cli: Cli, store: ResultStore) -> None:
    placed = store.hold(tags=["legal"], reason="case 7")
    assert cli("release", "--id", str(placed), "--reason", "over").exit_code == 0
    assert store.holds() == []


def test_what_is_meant_has_to_be_said(cli: Cli, store: ResultStore) -> None:
    for given in ([], ["k", "--prefix", "a"], ["--tag", "a", "--prefix", "a"]):
        for command in ("hold", "release"):
            assert cli(command, *given, "--reason", "why").exit_code == 2
    assert cli("hold", "k").exit_code == 2  # no reason
    assert store.holds() == []
