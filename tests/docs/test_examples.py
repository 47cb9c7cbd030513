"""The examples, as a user runs them: twice, at once, and killed in the middle."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL, create_engine

from tests.support.database import psycopg_url
from tests.support.documents import ROOT

EXAMPLES = ROOT / "examples"

Program = subprocess.Popen[str]


def start(name: str, url: URL, *arguments: str) -> Program:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-W", "ignore::ResourceWarning", str(EXAMPLES / name), *arguments],
        env=os.environ | {"PGRESULTS_DATABASE_URL": psycopg_url(url)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def printed(program: Program) -> list[str]:
    output, error = program.communicate(timeout=100)
    assert (program.returncode, error) == (0, "")
    return output.splitlines()


def run(name: str, url: URL, *arguments: str) -> list[str]:
    return printed(start(name, url, *arguments))


def test_every_example_is_tested() -> None:
    assert {path.name for path in EXAMPLES.iterdir() if path.suffix} == {
        "cached_etl.py",
        "nightly_report.py",
        "payments.py",
    }


def test_the_etl_computes_what_has_changed(fresh_url: URL, tmp_path: Path) -> None:
    assert run("cached_etl.py", fresh_url) == [
        "extract: 7 computed, 0 reused",
        "transform: 7 computed, 0 reused",
        "examples/sales/latest is now version 1",
    ]
    nothing = ["extract: 0 computed, 7 reused", "transform: 0 computed, 7 reused"]
    assert run("cached_etl.py", fresh_url) == [*nothing, "examples/sales/latest is still version 1"]

    runpy.run_path(str(EXAMPLES / "cached_etl.py"))["make_up"](tmp_path)
    assert run("cached_etl.py", fresh_url, str(tmp_path))[:2] == nothing
    with (tmp_path / "2030-05-03.csv").open("a") as orders:
        orders.write("\ntea,EUR,1.50")
    assert run("cached_etl.py", fresh_url, str(tmp_path)) == [
        "extract: 1 computed, 6 reused",
        "transform: 1 computed, 6 reused",
        "examples/sales/latest is now version 2",
    ]


def test_the_report_is_made_once_and_its_draft_expires(fresh_url: URL) -> None:
    first = run("nightly_report.py", fresh_url, "2030-05-01")
    regions = ["north", "east", "south", "west"]
    assert first[:4] == [f"computing the figures of {region}" for region in regions]
    assert first[4] == "publishing the report of 2030-05-01"
    assert "1 expired results swept" in first
    second = run("nightly_report.py", fresh_url, "2030-05-01")
    assert second == [line.replace("1 expired", "0 expired") for line in first[5:]]
    expiring = [line.split(" expires at ")[0] for line in second if " expires at " in line]
    assert expiring[:4] == [f"examples/figures/2030-05-01/{region}" for region in sorted(regions)]
    assert expiring[4:] == ["examples/reports/2030-05-01"]  # it outlives the figures, and the draft is gone
    assert second[-1] == "the draft's history: write, touch, expire"


PAID = ["ours 786.25", "paper mill 138.25", "printer 75.50"]


def books(url: URL) -> list[Any]:
    """The invoices that were paid, and the keys of the receipts."""
    with psycopg.connect(psycopg_url(url)) as connection:
        paid = connection.execute("SELECT invoice FROM example_payment ORDER BY invoice").fetchall()
        kept = connection.execute("SELECT key FROM pgresults.live_results ORDER BY key").fetchall()
    return [[invoice for (invoice,) in paid], [key.removeprefix("examples/payments/") for (key,) in kept]]


ALL = ["2030-001", "2030-002", "2030-003"]


def test_invoices_are_paid_once_by_several_programs(fresh_url: URL) -> None:
    runs = [printed(program) for program in [start("payments.py", fresh_url) for _ in range(3)]]
    assert books(fresh_url) == [ALL, ALL]
    for number in range(3):
        assert sorted(": paid " in outcome[number] for outcome in runs) == [False, False, True]
    again = run("payments.py", fresh_url)
    assert [line.partition(",")[0] for line in again[:3]] == [f"{invoice}: was paid already" for invoice in ALL]
    assert [" ".join(line.split()) for line in again[3:]] == PAID


LATE = """
    CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN PERFORM pg_advisory_xact_lock(7); RETURN NULL; END';
    CREATE CONSTRAINT TRIGGER late AFTER INSERT ON example_payment
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION late();
"""


@pytest.mark.parametrize(
    "obstacle",
    [
        pytest.param(  # between its two balances
            "SELECT 1 FROM example_account WHERE owner = 'paper mill' FOR UPDATE", marks=pytest.mark.slow
        ),
        pytest.param(  # when all its rows are written, but not its receipt
            "LOCK TABLE pgresults.history IN SHARE MODE", marks=pytest.mark.slow
        ),
        "SELECT pg_advisory_xact_lock(7)",  # when everything is written, but not committed
    ],
)
def test_a_killed_payment_is_made_once(fresh_url: URL, obstacle: str) -> None:
    engine = create_engine(fresh_url.set(drivername="postgresql+psycopg"))
    runpy.run_path(str(EXAMPLES / "payments.py"))["open_accounts"](engine)
    engine.dispose()
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with (
        psycopg.connect(psycopg_url(fresh_url)) as blocking,
        psycopg.connect(psycopg_url(fresh_url), autocommit=True) as watching,
    ):
        watching.execute(LATE)
        blocking.execute(obstacle.encode())
        program = start("payments.py", fresh_url)
        while watching.execute(waiting).fetchone() == (0,):
            assert program.poll() is None
        program.kill()
        program.communicate()
        assert books(fresh_url) == [[], []]
    second = start("payments.py", fresh_url)
    output, error = second.communicate(timeout=100)
    assert re.fullmatch(r"(lock of 'examples/payments/2030-00\d' acquired by .* taken over from .*\n)?", error)
    first = output.splitlines()
    assert sum(": paid " in line for line in first) >= 2  # of the first one, the server may have had the word to commit
    assert [" ".join(line.split()) for line in first[3:]] == PAID
    assert books(fresh_url) == [ALL, ALL]
    assert not any(": paid " in line for line in run("payments.py", fresh_url))
    assert books(fresh_url) == [ALL, ALL]
