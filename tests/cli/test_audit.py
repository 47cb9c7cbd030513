"""The commands over history: what they print, what they refuse, and how they end."""

import json
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import Result

from pgresults.operations import views
from pgresults.serializers import JSONSerializer, PickleSerializer
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.cli import Cli, refused, succeeded
from tests.support.database import psycopg_url

HOUR = timedelta(hours=1)


@pytest.fixture
def cli(signing_cli: Cli) -> Cli:
    return signing_cli


@pytest.fixture
def store(storage: PostgresStorage) -> ResultStore:
    return ResultStore(result_storage=storage, serializer=JSONSerializer())


def test_a_history_is_printed(cli: Cli, store: ResultStore) -> None:
    store.write({"a": 1}, key="k", tags=["x", "y"])
    store.delete("k", reason="wrong")
    lines = [line.split("\t") for line in succeeded(cli("history", "k")).splitlines()]
    assert [(line[0], line[1], line[6], line[7]) for line in lines] == [
        ("1", "write", "x, y", ""),
        ("1", "delete", "", "wrong"),
    ]
    steps = json.loads(succeeded(cli("history", "k", "--json")))
    assert [(step["seq"], step["action"], step["reason"]) for step in steps] == [
        (1, "write", None),
        (2, "delete", "wrong"),
    ]
    assert cli("history", "never").exit_code == 1


def test_earlier_versions_are_shown(cli: Cli, store: ResultStore) -> None:
    store.write({"a": 1}, key="k")
    between = store.history("k")[0].at
    store.write({"a": 2}, key="k")
    assert json.loads(succeeded(cli("show", "k"))) == {"a": 2}
    assert json.loads(succeeded(cli("show", "k", "--version", "1"))) == {"a": 1}
    assert json.loads(succeeded(cli("show", "k", "--as-of", between.isoformat()))) == {"a": 1}
    assert cli("show", "k", "--version", "3").exit_code == 1
    assert cli("show", "k", "--version", "1", "--as-of", between.isoformat()).exit_code == 2
    assert cli("show", "k", "--as-of", "soon").exit_code == 2


def test_versions_are_compared(cli: Cli, store: ResultStore) -> None:
    for result in ({"a": 1, "b": [1]}, {"b": [1], "a": 2}, {"a": 2, "b": [1]}):
        store.write(result, key="k")
    changed = [line for line in different(cli("diff", "k", "1", "2")).splitlines() if line[:1] in "+-"]
    assert changed == ["--- k version 1", "+++ k version 2", '-  "a": 1,', '+  "a": 2,']
    same = cli("diff", "k", "2", "3")
    assert (succeeded(same), "no difference" in same.stderr) == ("", True)


def different(result: Result) -> str:
    assert (result.exit_code, type(result.exception)) == (1, SystemExit)
    return result.stdout


def test_what_cannot_be_compared_is_not_called_different(cli: Cli, store: ResultStore) -> None:
    store.write(1, key="k")
    assert "no version 2" in refused(cli("diff", "k", "1", "2"), code=2)
    assert refused(cli("diff", "k", "1", "1", url="postgresql://nobody@localhost:1/none"), code=2)


def test_of_pickled_versions_only_whether_they_differ(cli: Cli, store: ResultStore) -> None:
    pickled = store.model_copy(update={"serializer": PickleSerializer()})
    for result in (Counter(a=1), Counter(a=2), Counter(a=2)):
        pickled.write(result, key="k")
    large = bytes(2_000_000)
    for result in (large + b"\xff", large + b"\xfe", large + b"\xfe"):
        pickled.write(result, key="large")
    assert succeeded(cli("show", "k", "--version", "1", "--unpickle")) == "Counter({'a': 1})\n"
    blind = cli("diff", "k", "1", "2")
    assert different(blind).startswith("different: k version 1 is pickle of ")
    assert "--unpickle" in blind.stderr
    seen = different(cli("diff", "k", "1", "2", "--unpickle")).splitlines()
    assert seen[-2:] == ["-Counter({'a': 1})", "+Counter({'a': 2})"]
    assert succeeded(cli("diff", "k", "2", "3")) == ""
    assert different(cli("diff", "large", "1", "2")).startswith(
        "different: large version 1 is bytes of 2,000,001 bytes"
    )
    assert succeeded(cli("diff", "large", "2", "3")) == ""


def test_plain_values_are_compared_line_by_line(cli: Cli, store: ResultStore) -> None:
    pickled = store.model_copy(update={"serializer": PickleSerializer()})
    for rows in (1000, 1001):
        pickled.write({"rows": rows, "at": datetime(2030, 1, 1, tzinfo=UTC)}, key="k")
    assert different(cli("diff", "k", "1", "2")).splitlines()[-3:] == [
        "-{'rows': 1000,",
        "+{'rows': 1001,",
        "  'at': datetime.datetime(2030, 1, 1, 0, 0, tzinfo=datetime.timezone.utc)}",
    ]


def test_a_time_without_zone_is_refused_with_one_that_works(cli: Cli, store: ResultStore) -> None:
    store.write(1, key="k")
    said = " ".join(re.sub("[│╭╰─╮╯]", "", cli("show", "k", "--as-of", "2999-01-01T00:00").output).split())
    assert "write for example 2999-01-01T00:00:00Z for UTC" in said
    for moment in ("2999-01-01T00:00:00Z", "2999-01-01", "in 1 day", "now"):
        assert succeeded(cli("show", "k", "--as-of", moment)) == "1\n"


def test_a_file_that_fails_is_named_and_nothing_replaced(cli: Cli, store: ResultStore, tmp_path: Path) -> None:
    store.write(1, key="k")
    for command in ("export", "seal"):
        assert f"{tmp_path}/none/x.jsonl: No such" in cli(command, "--output", f"{tmp_path}/none/x.jsonl").stderr
        assert "No space left" in cli(command, "--output", "/dev/full").stderr
    kept = tmp_path / "kept.jsonl"
    kept.write_text("before")
    store.write(2, key="spoilt")
    with psycopg.connect(psycopg_url(store.result_storage.database.url())) as connection:
        forged = "UPDATE pgresults.payload SET data = 'x' WHERE storage_id = %s AND key = 'spoilt'"
        connection.execute(forged, [store.result_storage.id])
    assert cli("export", "--output", str(kept)).exit_code == 1
    assert kept.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_who_signed_a_seal_must_be_known(
    cli: Cli, store: ResultStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write(1, key="k")
    kept = str(tmp_path / "seal.json")
    succeeded(cli("seal", "-o", kept))
    known = cli("verify", "--against", kept)
    assert (succeeded(known).splitlines()[0][-6:], known.stderr) == ("intact", "")
    monkeypatch.setenv("PGRESULTS_SEAL_KEY", str(tmp_path / "elsewhere.pem"))
    for option in ("--against", "--since"):
        assert "PGRESULTS_SEAL_PUBLIC_KEY" in cli("verify", option, kept).stderr
    monkeypatch.setenv("PGRESULTS_SEAL_PUBLIC_KEY", json.loads(Path(kept).read_bytes())["public_key"])
    assert cli("verify", "--against", kept).stderr == ""
    monkeypatch.setenv("PGRESULTS_SEAL_PUBLIC_KEY", "00" * 32)
    assert cli("verify", "--against", kept).exit_code == 2


@pytest.mark.parametrize("place", ["a file/seal.pem", "a directory", "x" * 300])
def test_where_no_key_can_be_the_way_out_is_said(
    cli: Cli, store: ResultStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    store.write(1, key="k")
    (tmp_path / "a file").touch()
    (tmp_path / "a directory").mkdir()
    succeeded(cli("seal", "-o", str(tmp_path / "seal.json")))
    monkeypatch.setenv("PGRESULTS_SEAL_KEY", str(tmp_path / place))
    told = refused(cli("seal"))
    assert "PGRESULTS_SEAL_KEY names another" in told
    assert str(tmp_path / place) in told
    checked = cli("verify", "--against", str(tmp_path / "seal.json"))
    assert checked.exit_code == 0 or "PGRESULTS_SEAL_KEY names another" in checked.stderr
    monkeypatch.setenv("PGRESULTS_SEAL_PUBLIC_KEY", json.loads((tmp_path / "seal.json").read_bytes())["public_key"])
    succeeded(cli("verify", "--against", str(tmp_path / "seal.json")))


def test_what_could_not_be_checked_is_not_called_altered(
    cli: Cli, store: ResultStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write(1, key="k")
    for options in (["--against", "none"], ["--since", "none"], ["never"], ["--against", str(tmp_path)]):
        assert cli("verify", *options).exit_code == 2, options

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("pgresults.cli.audit._print_report", fail)
    ended = cli("verify")
    assert (ended.exit_code, "could not check: MemoryError" in ended.stderr) == (2, True)


def test_what_expires_is_listed(cli: Cli, store: ResultStore) -> None:
    store.write(1, key="soon", expiration=datetime.now(UTC) + HOUR)
    store.write(1, key="later", expiration=datetime.now(UTC) + 50 * HOUR)
    assert [line.split("\t")[0] for line in succeeded(cli("expiring", "--within", "1d")).splitlines()] == ["soon"]
    listed = json.loads(succeeded(cli("expiring", "--within", "7d", "--json")))
    assert [row["key"] for row in listed] == ["soon", "later"]
    assert cli("expiring", "--within", "soon").exit_code == 2


def test_what_has_expired_is_swept(cli: Cli, store: ResultStore) -> None:
    for n in range(3):
        store.write(n, key=f"k{n}", expiration=datetime.now(UTC) - HOUR)
    assert succeeded(cli("sweep", "--dry-run")) == "3 expired results are there\n"
    assert succeeded(cli("sweep", "--batch-size", "2")) == "3 expired results swept\n"
    assert succeeded(cli("sweep")) == "0 expired results swept\n"


def test_a_service_sweeps_again_and_again(cli: Cli, store: ResultStore, monkeypatch: pytest.MonkeyPatch) -> None:
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        store.write(1, key=f"k{len(naps)}", expiration=datetime.now(UTC) - HOUR)
        if len(naps) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("pgresults.cli.upkeep.time.sleep", nap)
    ended = cli("sweep", "--every", "5m")
    assert ended.exit_code == 130
    assert ended.stdout.splitlines() == [f"{n} expired results swept" for n in (0, 1, 1)]
    assert naps == [300, 300, 300]


def test_what_destroys_asks_first(cli: Cli, store: ResultStore) -> None:
    for n in range(3):
        store.write(n, key="k")
    for command in (("retain", "--versions", "1"), ("redact", "k", "--reason", "law")):
        assert cli(*command).exit_code == 1
        assert cli(*command, stdin="n\n").exit_code == 1
    assert succeeded(cli("retain", "--versions", "1", "--dry-run")) == "2 payloads would go\n"
    assert store.read("k", version=1).result == 0
    assert "2 payloads taken away" in succeeded(cli("retain", "--versions", "1", "--yes"))
    assert "k: 1 versions erased" in succeeded(cli("redact", "k", "--reason", "law", stdin="y\n"))
    assert cli("retain").exit_code == 2
    assert cli("redact", "k").exit_code == 2


def test_an_intact_history_is_sealed_and_verified(cli: Cli, store: ResultStore, tmp_path: Path) -> None:
    store.write(1, key="k")
    seal = tmp_path / "seal.json"
    while "1 entries sealed" not in succeeded(cli("seal", "--output", str(seal))):
        pass  # a seal leaves out what is younger than any transaction of the server, whosever
    assert json.loads(succeeded(cli("seal")))["root"] == json.loads(seal.read_text())["root"]
    store.write(2, key="k")
    assert "2 entries of 1 keys and 2 payloads checked: intact" in succeeded(cli("verify"))
    assert "1 entries of 1 keys and 1 payloads checked: intact" in succeeded(cli("verify", "--since", str(seal)))
    assert json.loads(succeeded(cli("verify", "k", "--against", str(seal), "--json")))["intact"] is True


def test_an_altered_history_ends_with_1(cli: Cli, store: ResultStore, connection: Any) -> None:
    store.write(1, key="k")
    store.write(1, key="other")
    forged = "UPDATE pgresults.payload SET data = '7' WHERE storage_id = %s AND key = 'k'"
    connection.execute(forged, [store.result_storage.id])
    ended = cli("verify")
    assert ended.exit_code == 1
    assert "ALTERED in 1 places" in ended.stdout
    assert "payload: 'k': the payload was altered" in ended.stdout
    (finding,) = json.loads(cli("verify", "--json").stdout)["findings"]
    assert (finding["keys"], finding["seq"]) == (["k"], 1)
    assert cli("verify", "other").exit_code == 0


def test_what_cannot_be_checked_ends_with_2(cli: Cli, store: ResultStore, tmp_path: Path) -> None:
    store.write(1, key="k")
    (tmp_path / "none.json").write_text("{}")
    for arguments in (
        ["--against", str(tmp_path / "none.json")],
        ["--against", str(tmp_path / "absent.json")],
        ["--since", "soon"],
        ["never-written"],
    ):
        assert cli("verify", *arguments).exit_code == 2
    assert cli("verify", url="postgresql://nobody@localhost:1/none").exit_code == 2


def test_stats_show_what_comes_and_goes(cli: Cli, store: ResultStore) -> None:
    store.write(1, key="a", expiration=datetime.now(UTC) + HOUR)
    store.write(1, key="b", expiration=datetime.now(UTC) - HOUR)
    store.write(1, key="c")
    shown = succeeded(cli("stats"))
    assert "live results\t2" in shown
    assert "█" in shown
    stats = json.loads(succeeded(cli("stats", "--json")))
    assert (stats["keys"], stats["live"], sum(day["results"] for day in stats["written"])) == (3, 2, 3)
    assert [day["results"] for day in stats["expiring"]] == [1]


def test_stats_say_what_is_estimated_and_count_where_asked(
    cli: Cli, store: ResultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write(1, key="a")
    monkeypatch.setattr(views, "_COUNTED", 1)
    assert "estimated\tfrom a sample" in succeeded(cli("stats"))
    assert json.loads(succeeded(cli("stats", "--json")))["exact"] is False
    counted = json.loads(succeeded(cli("stats", "--exact", "--json")))
    assert (counted["exact"], counted["keys"]) == (True, 1)
    assert "estimated" not in succeeded(cli("stats", "--exact"))


def test_stats_of_an_empty_storage(cli: Cli, connection: psycopg.Connection[Any]) -> None:
    [(locks,)] = connection.execute("SELECT count(*) FROM pgresults.lock")
    stats = json.loads(succeeded(cli("stats", "--json")))
    assert stats.pop("lock_bytes") >= stats.pop("lock_rows") == locks
    assert stats == {
        "keys": 0, "live": 0, "live_bytes": 0, "expired_bytes": 0, "last_change": None, "exact": True, "written": [],
        "expiring": [],
    }  # fmt: skip
    assert "live results\t0" in succeeded(cli("stats"))


def test_a_version_is_proven_to_who_has_no_database(
    cli: Cli, store: ResultStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write({"a": 1}, key="k")
    seal, proof, payload = (str(tmp_path / name) for name in ("seal.json", "proof.json", "payload"))
    while "0 entries" in succeeded(cli("seal", "-o", seal)):
        pass
    assert f"{proof}: version 1 of k" in succeeded(cli("prove", "k", "--seal", seal, "-o", proof))
    assert json.loads(succeeded(cli("prove", "k", "--seal", seal, "--no-salt")))["payload"] is None
    assert "version 2" in refused(cli("prove", "k", "--version", "2", "--seal", seal))
    Path(payload).write_bytes(JSONSerializer().dumps({"a": 1}))
    key = json.loads(Path(seal).read_bytes())["public_key"]
    monkeypatch.setattr("psycopg.connect", None)
    none = "postgresql://nobody@localhost:1/none"
    checked = cli("check-proof", proof, "--payload", payload, "--public-key", key, url=none)
    assert "write of 'k', version 1" in succeeded(checked)
    refused(cli("check-proof", proof, url=none), code=2)
    assert "another key" in refused(cli("check-proof", proof, "--public-key", "07" * 32, url=none))
    Path(payload).write_bytes(b"another")
    assert "another one" in refused(cli("check-proof", proof, "--payload", payload, "--public-key", key, url=none))
    Path(proof).write_bytes(b"{}")
    assert "does not hold" in refused(cli("check-proof", proof, "--public-key", key, url=none))
    assert "No such file" in refused(cli("check-proof", "none.json", "--public-key", key, url=none))
