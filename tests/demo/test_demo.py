"""The main job: what it finds, that nothing is computed twice, and that it can be interrupted."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest

from pgresults.cli.demo import Run
from pgresults.demo import report
from pgresults.demo.analysis import analyse
from pgresults.demo.modules import PREFIX, Module, distinct, standard_library
from pgresults.demo.runner import analyse_module
from pgresults.serializers import JSONSerializer
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.cli import PROGRAM, on_terminal
from tests.support.database import psycopg_url
from tests.support.listing import page

SOURCE = b"""
class Outer:
    class Inner:
        def forked(self, items):
            for item in items:
                if item and item.ready or item.late:
                    yield [part for part in item if part]

async def plain():
    def nested():
        return 1 if plain else 2
    return nested
"""


def test_functions_are_counted_with_their_branches() -> None:
    found = analyse(SOURCE)
    assert (found["lines"], found["classes"], found["error"]) == (12, 2, None)
    complexities = {function["name"]: function["complexity"] for function in found["functions"]}
    # for, if, and, or, the comprehension's for and if; a nested function counts for itself
    assert complexities == {"Outer.Inner.forked": 7, "plain": 1, "plain.nested": 2}
    assert found["longest"] == {"name": "Outer.Inner.forked", "line": 4, "lines": 4, "complexity": 7}


@pytest.mark.parametrize(
    ("source", "complexity"),
    [
        ("while x: pass", 2),
        ("try: pass\n  except A: pass\n  except B: pass", 3),
        ("match x:\n    case 1: pass\n    case _: pass", 3),
        ("return x if y else z", 2),
        ("async for x in y: pass", 2),
        ("return {a for b in c for a in b if a if b}", 5),
    ],
)
def test_what_counts_as_a_branch(source: str, complexity: int) -> None:
    (function,) = analyse(f"async def f():\n  {source}\n".encode())["functions"]
    assert function["complexity"] == complexity


@pytest.mark.parametrize(
    "source", [b"def f(:", b"\0", b"# coding: unheard-of\n", b"\xff", b"(" * 5000 + b")" * 5000, b"-" * 200_000 + b"1"]
)
def test_what_is_no_python_is_reported(source: bytes) -> None:
    found = analyse(source)
    assert found["error"]
    assert (found["functions"], found["longest"], found["classes"]) == ([], None, 0)


def test_warnings_about_analysed_code_are_not_ours() -> None:
    assert analyse(b"'\\d'")["error"] is None


def test_every_module_is_taken_once() -> None:
    modules = standard_library()
    names = {module.name for module in modules}
    assert {"json/decoder.py", "ast.py"} <= names
    assert len(names) == len(modules) > 500
    assert not any("site-packages" in name for name in names)
    once = distinct(modules)
    assert {module.key for module in once} == {module.key for module in modules}
    assert len({module.source for module in once}) == len(once) < len(modules)
    sizes = [len(module.source) for module in once]
    assert sizes == sorted(sizes, reverse=True)


def test_results_are_there_for_python_and_for_sql(storage: PostgresStorage) -> None:
    analysed = analyse_module.with_options(result_storage=storage, cache_expiration=timedelta(days=2))
    modules = [Module("good.py", SOURCE), Module("bad.py", b"def f(:\n"), Module("copy.py", SOURCE)]
    found = analysed.map(modules)
    assert found == analysed.map(modules)
    keys = [module.key for module in modules]
    record = ResultStore(result_storage=storage).read(keys[0])
    assert record.result == {"file": "good.py", **analyse(SOURCE)} == found[0] == found[2]
    assert record.metadata.version == 1
    assert record.metadata.serializer == JSONSerializer()
    assert report.live_keys(storage, [*keys, "demo/other"]) == set(keys)
    assert report.totals(storage, keys) == report.Totals(2, unparsable=1, lines=13, classes=2, functions=3)
    functions = report.most_complex(storage, keys, limit=2)
    assert functions[0] == report.Complex(7, "Outer.Inner.forked", "good.py", 4, 4)
    assert [function.function for function in functions] == ["Outer.Inner.forked", "plain.nested"]
    (expiring,) = report.expirations(storage)
    assert (expiring.results, expiring.bytes) == (2, sum(row.size for row in page(storage)))
    assert expiring.expires_at == min(row.expires_at for row in page(storage) if row.expires_at)


@pytest.fixture
def command(storage: PostgresStorage) -> Callable[..., list[str]]:
    """A command line of the demo on the test's own storage."""

    def command(*options: str) -> list[str]:
        url = psycopg_url(storage.database.url())
        return [
            str(PROGRAM),
            "--database-url",
            url,
            "--storage",
            storage.name,
            "demo",
            "--create",
            "--workers",
            "2",
            *options,
        ]

    return command


def summary(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr.count("\n") == 1  # where the results go, and no progress in a pipe
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.slow
def test_a_second_run_computes_nothing(command: Callable[..., list[str]], storage: PostgresStorage) -> None:
    contents = len(distinct(standard_library(limit=9)))
    counts = itemgetter("modules", "copies", "computed", "reused")
    started = datetime.now(UTC)
    first = summary(command("--limit", "9", "--expires-in", "2h", "--json"))
    assert counts(first) == (9, 9 - contents, contents, 0)
    second = summary(command("--limit", "9", "--json"))
    assert counts(second) == (9, 9 - contents, 0, contents)
    assert second["totals"] == first["totals"]
    assert second["most_complex"] == first["most_complex"]
    assert second["totals"]["results"] == len(page(storage, PREFIX))
    (expiring,) = second["expirations"]
    left = datetime.fromisoformat(expiring["expires_at"]) - started
    assert timedelta(hours=2) <= left < timedelta(hours=3)


@pytest.mark.slow
def test_it_tells_people_what_it_did(command: Callable[..., list[str]]) -> None:
    printed = on_terminal(command("--limit", "3"), dict(os.environ))
    assert "Results go to postgresql://" in printed
    assert re.search(r"Analysing .*3/3", printed)
    assert "3 modules: 3 computed, 0 reused" in printed
    assert "_Feature.__init__" in printed
    assert "3 results of" in printed


def test_modules_of_the_same_content_are_called_copies() -> None:
    assert str(Run(3, 0, 2, 1, 0.25)) == "3 modules: 2 computed, 1 reused, in 0.2 s"
    assert str(Run(1790, 46, 1744, 0, 9)) == "1,790 modules, 46 of them copies: 1,744 computed, 0 reused, in 9.0 s"


def start(command: list[str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def interrupt(process: "subprocess.Popen[str]") -> str:
    """Do what Ctrl-C in a terminal does, where the workers get it too; give what the program says to that."""
    os.killpg(process.pid, signal.SIGINT)
    output, error = process.communicate(timeout=60)  # returns when no worker holds the pipes any more
    assert (process.returncode, output) == (130, "")
    assert "Traceback" not in error
    return error


def test_interrupted_it_resumes(command: Callable[..., list[str]], storage: PostgresStorage, connection: Any) -> None:
    options = ("--limit", "200", "--json")
    process = start(command(*options))
    stored = "SELECT count(*) FROM pgresults.result WHERE storage_id = %s"
    while connection.execute(stored, [storage.id]).fetchone() < (5,):
        assert process.poll() is None
    error = interrupt(process)

    (kept,) = connection.execute(stored, [storage.id]).fetchone()
    total = len(distinct(standard_library(limit=200)))
    assert 5 <= kept < total
    assert f"Interrupted: {kept:,} of {total:,} results are stored. The same command resumes there." in error
    assert summary(command(*options))["computed"] == total - kept


def is_importing(child: str) -> bool:
    """Whether a worker has got as far as to load the driver, which is in the middle of its start."""
    process = Path("/proc", child)
    is_worker = "spawn_main" in (process / "cmdline").read_text()  # before that it is a copy of its parent
    return is_worker and "psycopg" in (process / "maps").read_text()


@pytest.mark.slow
def test_interrupted_while_workers_start_it_is_quiet(command: Callable[..., list[str]]) -> None:
    process = start(command("--limit", "200"))
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not children.exists():
        pytest.skip("the children of a process are not to be seen here")
    while not any(is_importing(child) for child in children.read_text().split()):
        assert process.poll() is None
    assert "Interrupted: " in interrupt(process)
