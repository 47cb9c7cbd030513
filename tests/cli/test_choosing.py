"""What is listed and removed can be chosen, times and sizes are written as people write them."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import typer

from pgresults import task
from pgresults.cache_policies import INPUTS
from pgresults.cli import values
from pgresults.store import ResultStore
from tests.support.cli import Cli, refused, succeeded

DAY = timedelta(days=1)


@pytest.fixture
def filled(store: ResultStore) -> ResultStore:
    store.write("x" * 1000, key="big", expires_in=2 * DAY)
    store.write("x", key="a/1", tags=["red"], expires_in=DAY)
    store.write("xx", key="a/2", tags=["red", "blue"])

    @task(cache_policy=INPUTS, result_storage=store.result_storage, result_storage_key="made")
    def make() -> str:
        return "xxx"

    make()
    return store


@pytest.mark.parametrize(
    ("arguments", "keys"),
    [
        ([], ["a/1", "a/2", "big", "made"]),
        (["a/"], ["a/1", "a/2"]),
        ([""], ["a/1", "a/2", "big", "made"]),
        (["--tag", "red"], ["a/1", "a/2"]),
        (["--tag", "red", "--tag", "blue"], ["a/2"]),
        (["--task", "make"], ["made"]),
        (["--flow", "none"], []),
        (["--min-size", "1kB"], ["big"]),
        (["--since", "1h ago"], ["a/1", "a/2", "big", "made"]),
        (["--since", "in 1 hour"], []),
        (["--sort", "size"], ["big", "made", "a/2", "a/1"]),
        (["--sort", "written"], ["made", "a/2", "a/1", "big"]),
        (["--sort", "expires"], ["a/1", "big", "a/2", "made"]),
        (["--sort", "size", "--limit", "1"], ["big"]),
    ],
)
def test_what_is_listed(cli: Cli, filled: ResultStore, arguments: list[str], keys: list[str]) -> None:
    assert [row["key"] for row in json.loads(succeeded(cli("ls", *arguments, "--json")))] == keys
    assert [line.split("\t")[0] for line in succeeded(cli("ls", *arguments)).splitlines()] == keys


class TestRemoving:
    def test_several_keys(self, cli: Cli, filled: ResultStore) -> None:
        ended = cli("rm", "a/1", "none", "big", "a/1")
        assert ended.exit_code == 1
        assert ended.stdout == "a/1: deleted\nbig: deleted\n"
        assert "no result under 'none': never written" in ended.stderr
        assert [row.key for row in filled.find()] == ["a/2", "made"]

    @pytest.mark.parametrize(
        ("arguments", "gone"),
        [(["--prefix", "a/"], ["a/1", "a/2"]), (["--tag", "blue"], ["a/2"]), (["--task", "make"], ["made"])],
    )
    def test_what_is_chosen(self, cli: Cli, filled: ResultStore, arguments: list[str], gone: list[str]) -> None:
        before = [row.key for row in filled.find()]
        dry = cli("rm", *arguments, "--dry-run")
        assert (succeeded(dry).splitlines(), f"{len(gone)} results would be deleted" in dry.stderr) == (gone, True)
        for answer in (None, "n\n"):
            assert cli("rm", *arguments, stdin=answer).exit_code == 1
        assert [row.key for row in filled.find()] == before
        assert succeeded(cli("rm", *arguments, "--yes", "--reason", "stale")) == f"{len(gone)} results deleted\n"
        assert [row.key for row in filled.find()] == [key for key in before if key not in gone]
        assert {filled.history(key)[-1].reason for key in gone} == {"stale"}

    def test_nothing_chosen_is_nothing_deleted(self, cli: Cli, filled: ResultStore) -> None:
        for arguments in ([], ["k", "--prefix", "a"], ["--dry-run"], ["--prefix", ""]):
            assert cli("rm", *arguments).exit_code in (1, 2)
        assert "nothing here" in cli("rm", "--prefix", "none").stderr
        assert len(filled.find()) == 4

    def test_a_dry_run_of_keys(self, cli: Cli, filled: ResultStore) -> None:
        ended = cli("rm", "a/1", "none", "--dry-run")
        assert (ended.exit_code, ended.stdout) == (1, "a/1: would be deleted\n")
        assert filled.exists("a/1")


class TestTouch:
    def test_another_expiration(self, cli: Cli, store: ResultStore) -> None:
        store.write(1, key="k")
        assert "k: expires 2999-01-31 00:00:00Z" in succeeded(cli("touch", "k", "--expires-at", "2999-01-31"))
        assert store.read("k").expiration == datetime(2999, 1, 31, tzinfo=UTC)
        succeeded(cli("touch", "k", "--expires-in", "2 days"))
        left = store.read("k").expiration - datetime.now(UTC)  # type: ignore[operator]
        assert timedelta(hours=47) < left < timedelta(hours=49)
        assert succeeded(cli("touch", "k", "--never")) == "k: never expires\n"
        assert store.read("k").expiration is None
        assert store.read("k").metadata.version == 1

    def test_what_cannot_be_touched(self, cli: Cli, store: ResultStore) -> None:
        assert "never written" in refused(cli("touch", "k", "--never"))
        for options in ([], ["--never", "--expires-in", "1d"], ["--expires-in", "1d", "--expires-at", "2999-01-01"]):
            refused(cli("touch", "k", *options), code=2)


class TestTimes:
    @pytest.mark.parametrize(
        ("text", "ago"),
        [
            ("3h ago", timedelta(hours=3)),
            ("3 hours ago", timedelta(hours=3)),
            ("1 day", DAY),
            ("90 min", timedelta(minutes=90)),
            ("1d12h ago", 1.5 * DAY),
            ("in 2 weeks", -14 * DAY),
            ("yesterday", DAY),
            ("now", timedelta()),
        ],
    )
    def test_relative_ones(self, text: str, ago: timedelta) -> None:
        assert abs(datetime.now(UTC) - ago - values.moment(text)) < timedelta(seconds=10)

    def test_absolute_ones(self) -> None:
        assert values.moment("2030-01-31") == datetime(2030, 1, 31, tzinfo=UTC)
        assert values.moment("2030-01-31T12:00+02:00") == datetime(2030, 1, 31, 10, tzinfo=UTC)
        assert values.moment("3 May 2025") == datetime(2025, 5, 3, tzinfo=UTC)

    @pytest.mark.parametrize(
        "text", ["soon", "7", "03/04/2025", "2030-01-31T12:00", "12:00", "1d later", "", "999999d"]
    )
    def test_what_is_none(self, text: str) -> None:
        with pytest.raises(typer.BadParameter):
            values.moment(text + (" ago" if text == "999999d" else ""))

    @pytest.mark.parametrize("text", ["2001-01-01", "yesterday", "1h ago", "now", "2001-01-01T00:00:00Z"])
    def test_the_past_is_no_expiration(self, cli: Cli, store: ResultStore, text: str) -> None:
        store.write(1, key="k")
        for command in (["put", "k", "x"], ["touch", "k"]):
            assert "past" in " ".join(refused(cli(*command, "--expires-at", text), code=2).split())
        assert len(store.history("k")) == 1

    def test_a_bare_span_is_to_come_where_something_expires(self) -> None:
        assert abs(values.coming_moment("1 day") - datetime.now(UTC) - DAY) < timedelta(seconds=10)

    @pytest.mark.parametrize(
        ("text", "span"),
        [("1 day", DAY), ("2 hours 30 min", timedelta(hours=2.5)), ("1 day, 3h", timedelta(hours=27)), ("1W", 7 * DAY)],
    )
    def test_spans(self, text: str, span: timedelta) -> None:
        assert values.duration(text) == span

    def test_sizes(self) -> None:
        assert [values.size(text) for text in ("500", "10kB", "1.5 MB", "2GiB")] == [500, 10_000, 1_500_000, 2**31]
        for text in ("-5", "much", ""):
            with pytest.raises(typer.BadParameter):
                values.size(text)


class TestFiles:
    def test_a_files_ending_says_what_it_is(self, cli: Cli, filled: ResultStore, tmp_path: Path) -> None:
        for name in ("out.txt", "out", "out.json", "out.jsonl.gz"):
            error = " ".join(refused(cli("export", "-o", str(tmp_path / name)), code=2).split())
            assert ".jsonl, .csv, .parquet" in error.replace("│ ", "").replace(" │", "")
            assert not (tmp_path / name).exists()
        succeeded(cli("export", "-o", str(tmp_path / "out.txt"), "--format", "csv"))
        succeeded(cli("export", "-o", str(tmp_path / "OUT.CSV")))
        assert (tmp_path / "out.txt").read_bytes() == (tmp_path / "OUT.CSV").read_bytes()
        refused(cli("import", "file", str(tmp_path / "out.txt")), code=2)

    @pytest.mark.parametrize("kind", [[], ["--format", "csv"]])
    def test_standard_input_is_a_file(self, cli: Cli, filled: ResultStore, kind: list[str]) -> None:
        exported = cli("export", *kind).stdout_bytes
        filled.invalidate(prefix="a/")
        assert succeeded(cli("import", "file", "-", *kind, stdin=exported)) == "2 results imported\n"
        assert filled.read("a/2").result == "xx"
        damaged = cli("import", "file", "-", stdin=b"no line of ours\n")
        assert (damaged.exit_code, damaged.stdout) == (1, "")
        assert damaged.stderr.startswith("error: standard input, row 1, is no exported result")


def test_progress_is_shown_after_a_second_and_only_to_people(
    cli: Cli, store: ResultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from io import StringIO

    from rich.console import Console

    from pgresults.cli import progress

    def shown(soon: float, terminal: bool) -> str:
        console: Any = Console(force_terminal=terminal, file=StringIO(), width=80)
        monkeypatch.setattr(progress, "errors", console)
        monkeypatch.setattr(progress, "_SOON", soon)
        with progress.waiting("Counting"):
            if terminal and soon == 0:
                while "Counting" not in console.file.getvalue():
                    pass
        return str(console.file.getvalue())

    assert "Counting" in shown(0, terminal=True)
    assert shown(60, terminal=True) == shown(0, terminal=False) == ""
