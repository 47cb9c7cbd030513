"""``pgresults retention``: rules are set, shown, tried and ended."""

import json
from typing import Any

from pgresults.store import ResultStore
from tests.support import apart
from tests.support.cli import Cli, succeeded

shared_url = apart.shared_url


def test_rules_are_set_listed_tried_and_ended(cli: Cli, store: ResultStore) -> None:
    for number in range(3):
        store.write(number, key="a/1")
    assert "give one of" in cli("retention", "set", "--versions", "1", "--reason", "tidy").stderr
    assert "say what is kept" in cli("retention", "set", "--prefix", "", "--reason", "tidy").stderr
    set_ = succeeded(cli("retention", "set", "--prefix", "a/", "--versions", "1", "--age", "1s", "--reason", "tidy"))
    rule = set_.split()[1]
    assert rule in succeeded(cli("retention"))
    (said,) = json.loads(succeeded(cli("retention", "--json")))
    assert (said["id"], said["versions"], said["reason"]) == (rule, 1, "tidy")
    assert "2 payloads of" in succeeded(cli("retention", "--within", "1h"))
    due: list[dict[str, Any]] = json.loads(succeeded(cli("retention", "--within", "1h", "--json")))
    assert [(one["version"], one["action"]) for one in due] == [(1, "retain"), (2, "retain")]
    succeeded(cli("retention", "set", "--prefix", "", "--redact-after", "1d", "--reason", "law"))
    assert "0 payloads of 0 bytes would go" in succeeded(cli("retention", "--within", "2d"))
    succeeded(cli("retention", "remove", rule, "--reason", "over"))
    assert "3 payloads of" in succeeded(cli("retention", "--within", "2d"))
    again = cli("retention", "remove", rule, "--reason", "over")
    assert again.exit_code == 1
    assert "there is no rule" in again.stderr
