"""``lineage``, ``put --derived-from`` and ``rm --downstream``."""

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from pgresults.cli.lineage import Format
from pgresults.store import ResultStore
from tests.support.cli import Cli, refused, succeeded


@pytest.fixture
def derived(cli: Cli, store: ResultStore, tmp_path: Path) -> ResultStore:
    """Four results, of which three were computed from the first."""
    file = tmp_path / "file"
    file.write_bytes(b"bytes")
    store.write(1, key="a")
    store.write(1, key="odd@1")
    succeeded(cli("put", "b", "2", "--derived-from", "a"))
    succeeded(cli("put", "c", "--file", str(file), "--derived-from", "a@1", "--derived-from", "odd@1@1"))
    succeeded(cli("put", "d", "4", "--derived-from", "b", "--derived-from", "c"))
    return store


def test_a_lineage_is_printed_line_by_line(cli: Cli, derived: ResultStore) -> None:
    lines = [line.split("\t") for line in succeeded(cli("lineage", "d")).splitlines()]
    assert [(line[0], line[1], line[2]) for line in lines] == [
        ("0", "d", "1"), ("1", "b", "1"), ("1", "c", "1"), ("2", "a", "1"), ("2", "odd@1", "1"),
    ]  # fmt: skip
    down = succeeded(cli("lineage", "a", "--down", "--depth", "1"))
    assert [line.split("\t")[1] for line in down.splitlines()] == ["a", "b", "c"]
    derived.write(2, key="a")
    assert succeeded(cli("lineage", "a", "--down")).count("\n") == 1
    assert succeeded(cli("lineage", "a", "--down", "--version", "1")).count("\n") == 4


@pytest.mark.parametrize("output", [None, *Format])
def test_it_is_said_in_other_words(cli: Cli, derived: ResultStore, output: Format | None) -> None:
    options = ["--json"] if output is None else ["--format", output]
    said = succeeded(cli("lineage", "d", *options))
    if output is Format.TREE:
        return
    found = json.loads(said)
    match output:
        case None | Format.JSON:
            assert (found["direction"], found["complete"], len(found["edges"])) == ("up", True, 5)
            storage = derived.result_storage.name  # type: ignore[union-attr]
            b, d = ({"storage": storage, "key": key, "version": 1} for key in "bd")
            assert {"version": d, "parent": b} in found["edges"]
        case Format.PROV:
            assert len(found["wasDerivedFrom"]) == 5
        case Format.OPENLINEAGE:
            assert [len(event["inputs"]) for event in found] == [0, 0, 1, 2, 2]


def test_what_is_left_out_is_said(cli: Cli, derived: ResultStore) -> None:
    assert derived.exists("d")
    done = cli("lineage", "d", "--limit", "2")
    assert succeeded(done).count("\n") == 2
    assert "the nearest 2" in done.stderr


def test_what_is_no_version_is_refused(cli: Cli, derived: ResultStore) -> None:
    assert "never written" in refused(cli("lineage", "nothing"))
    assert "no version 7" in refused(cli("lineage", "a", "--version", "7"))
    assert "never written" in refused(cli("put", "e", "1", "--derived-from", "nothing"))
    assert "7:a" in refused(cli("put", "e", "1", "--derived-from", "a@7"), code=2)
    assert not derived.exists("e")


def test_what_was_computed_from_it_is_deleted_as_well(cli: Cli, derived: ResultStore) -> None:
    would = cli("rm", "b", "--downstream", "--dry-run")
    assert succeeded(would).split() == ["b", "d"]
    assert "2 results would be deleted" in would.stderr
    assert "2 results deleted" in succeeded(cli("rm", "b", "--downstream", "--yes", "--reason", "wrong"))
    assert derived.history("d")[-1].reason == "computed from 'b' version 1: wrong"
    assert "2 results deleted" in succeeded(cli("rm", "--prefix", "a", "--downstream", "-y"))
    assert derived.exists_many(["a", "b", "c", "d", "odd@1"]) == {"odd@1"}
    assert "nothing here" in cli("rm", "a", "--downstream", "-y").stderr
    refused(cli("rm", "a", "--downstream", "--force", "--reason", "x"), code=2)


def test_a_tree_is_drawn_on_a_terminal(cli: Cli, derived: ResultStore, monkeypatch: pytest.MonkeyPatch) -> None:
    derived.write(5, key="[red]e\x1b[31m", derived_from=[("d", 1), ("a", 1)])
    console = Console(width=120, force_terminal=True, color_system=None, highlight=False, file=StringIO())
    monkeypatch.setattr("pgresults.cli.lineage.terminal", console)
    succeeded(cli("lineage", "[red]e\x1b[31m"))
    drawn = console.file.getvalue()  # type: ignore[attr-defined]
    shown = [line.partition(" version")[0].rstrip() for line in drawn.splitlines()]
    tree = ["├── d", "│   ├── b", "│   │   └── a", "│   └── c", "│       ├── a", "│       └── odd@1", "└── a"]
    assert shown == [r"[red]e\u001b[31m", *tree]
    assert drawn.count("(see there)") == 2
