"""What people see: as wide as their terminal is, sizes and times rounded; what programs see: exact."""

import json
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from pgresults.cli.tables import ago, person, print_record, print_rows
from pgresults.store import ResultStore
from tests.support.cli import PROGRAM, Cli, on_terminal, refused, succeeded

NOW = datetime.now(UTC)
LAST_YEAR = NOW - timedelta(days=400)
COLUMNS = ("key", "version", "created_at", "expires_at", "size", "serializer")
LONG = "reports/2026/a rather long key that says a lot of it"
ROWS = [
    (LONG, 1, NOW - timedelta(hours=3), None, 1_234_567, "pickle"),
    ("k", 12_345, LAST_YEAR, NOW + timedelta(days=2, hours=12), 12, "json"),
]


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What is printed on a terminal of a width."""

    def printed(width: int, show: Any) -> list[str]:
        console = Console(width=width, force_terminal=True, color_system=None, highlight=False, file=StringIO())
        monkeypatch.setattr("pgresults.cli.tables.terminal", console)
        show()
        lines = console.file.getvalue().splitlines()
        assert all(len(line) <= width for line in lines)
        return [line.rstrip() for line in lines]

    return printed


@pytest.mark.parametrize(
    ("distance", "said"),
    [
        (timedelta(), "now"),
        (timedelta(seconds=-59), "59 s ago"),
        (timedelta(hours=-3), "3 h ago"),
        (timedelta(minutes=5), "in 5 min"),
        (timedelta(days=-59), "59 d ago"),
        (timedelta(days=100), "2026-05-11"),
    ],
)
def test_times_are_as_far_as_people_say(distance: timedelta, said: str) -> None:
    now = datetime(2026, 1, 31, tzinfo=UTC)
    assert ago(now + distance, now) == said


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("size", 1_234_567, "1.2 MB"),
        ("live_bytes", 999, "999 bytes"),
        ("keys", 1_234_567, "1,234,567"),
        ("pid", 24_077, "24077"),
        ("size", True, "yes"),
        ("tags", ["a", "b"], "a, b"),
        ("key", "\x1b[31m", "\\u001b[31m"),
        ("expires_at", None, ""),
    ],
)
def test_values_for_people(name: str, value: object, said: str) -> None:
    assert person(name, value) == said


def test_a_table_where_there_is_room(screen: Any) -> None:
    assert screen(120, lambda: print_rows(COLUMNS, ROWS)) == [
        "key                                                   version     written  expires      size  serializer",
        "reports/2026/a rather long key that says a lot of it        1     3 h ago             1.2 MB  pickle",
        f"k                                                       12345  {LAST_YEAR:%Y-%m-%d}   in 2 d  12 bytes  json",
    ]


def test_what_can_be_spared_goes_first_and_keys_are_folded(screen: Any) -> None:
    lines = screen(60, lambda: print_rows(COLUMNS, ROWS, ("serializer", "version")))
    assert lines[0].split() == ["key", "written", "expires", "size"]
    assert len(lines) == 4


def test_rows_stand_one_below_the_other_where_it_is_narrow(screen: Any) -> None:
    lines = screen(60, lambda: print_rows(COLUMNS, ROWS))
    assert lines[:6] == [
        "key         reports/2026/a rather long key that says a lot",
        "            of it",
        "version     1",
        "written     3 h ago",
        "size        1.2 MB",
        "serializer  pickle",
    ]
    assert lines[6] == ""


def test_no_character_is_lost_at_any_width(screen: Any) -> None:
    why = "".join(chr(0x410 + n) + " " * (n % 5 == 4) for n in range(48))
    key = "".join(chr(0x3B1 + n) for n in range(24)) + "".join(chr(0x4A0 + n) for n in range(20))
    columns, spare = ("at", "action", "key", "version", "actor", "size", "reason"), ("size", "version", "actor")
    rows = [(NOW, "delete", key, 1, "root@vm", None, why), (NOW, "write", "k", 1, "root@vm", 1, None)]
    for width in range(24, 140):
        printed = "".join(screen(width, lambda: print_rows(columns, rows, spare)))
        assert set(why + key) <= {*printed, " "}, width


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_name_of_a_setting_is_broken(cli: Cli, screen: Any, width: int) -> None:
    lines = screen(width, lambda: succeeded(cli("config", "show")))
    words = " ".join(lines).split()
    assert {"tasks.scheduling.default_storage", "results.persist_by_default"} <= set(words)
    assert "PGRESULTS_TASKS_SCHEDULING_DEFAULT_STORAGE" in words or width < 120


def test_columns_in_which_nothing_stands_are_left_out(screen: Any) -> None:
    lines = screen(80, lambda: print_rows(COLUMNS, [("k", 1, NOW, None, 1, None)]))
    assert lines[0].split() == ["key", "version", "written", "size"]


def test_a_record_says_both(screen: Any) -> None:
    lines = screen(80, lambda: print_record({"size": 1_234_567, "last change": NOW - timedelta(hours=3)}))
    assert lines[0] == "size         1.2 MB (1,234,567 bytes)"
    assert lines[1].endswith("Z (3 h ago)")


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_line_is_broken_by_the_terminal(cli: Cli, guarded: ResultStore, screen: Any, width: int) -> None:
    guarded.write({f"a column of {n}": n for n in range(9)}, key="k", tags=["one", "two"], expires_in=timedelta(days=1))
    guarded.acquire_lock("reports/2026/june", "worker-17.example.com:4711:140213:MainThread")
    for command in ("ls", "locks", "stats", "history k", "storages", "log", "explain k"):
        assert screen(width, lambda command=command: succeeded(cli(*command.split()))), command


def test_nothing_is_said_to_be_nothing(environment: dict[str, str], store: ResultStore) -> None:
    there = [str(PROGRAM), "--storage", store.result_storage.name]
    assert "nothing here" in on_terminal([*there, "ls"], environment)


def test_programs_get_exact_values(cli: Cli, store: ResultStore) -> None:
    stored = store.write(b"x" * 12_345, key="k")
    assert stored.created_at is not None
    assert succeeded(cli("ls")) == f"k\t1\t{stored.created_at:%Y-%m-%d %H:%M:%S}Z\t\t{stored.size}\tpickle\t\t\t\n"
    (row,) = json.loads(succeeded(cli("ls", "--json")))
    assert (row["size"], row["created_at"]) == (stored.size, stored.created_at.isoformat())
    store.delete("k")
    told = refused(cli("get", "k"))
    assert f"deleted at {store.history('k')[1].at:%Y-%m-%d %H:%M:%S}Z by" in told
