"""The comparison with peers: what is installed is measured, all else is said, and the page shows what was found."""

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from benchmarks.peers.__main__ import Measurement, chosen
from benchmarks.peers.comparing import KIB, MIB, Figure, Plan
from benchmarks.peers.contestants import PEERS, Contestant
from benchmarks.peers.plot import svg
from benchmarks.peers.report import BEGIN, END, Run, markdown, write_page

TINY = Plan(seconds=0, least=1, most=1, many=3, sizes=(KIB,), processes=(2,))
ODD = "tests.benchmarks.odd_peers"
LIAR = Contestant("liar", ODD, "Liar", ("pgresults",), "no: it forgets")
BROKEN = Contestant("broken", ODD, "Broken", ("pgresults",), "no: it is not there")
ABSENT = Contestant("absent", ODD, "Absent", ("a-package-that-nobody-has",), "no")
LIGHT = [peer for peer in PEERS if peer.packages[0] in ("pgresults", "joblib", "diskcache")]


@pytest.mark.slow
def test_what_is_installed_is_measured_and_all_else_is_said(tmp_path: Path) -> None:
    run = Measurement(TINY).of([*LIGHT, LIAR, BROKEN, ABSENT])  # once: it starts a server and several processes
    found = {one.operation for one in run.figures if one.peer == "pgresults"}
    assert found == {"write", "read", "exists", "hit", "miss", "lock", "map", "hand-over"}
    assert all(one.ratio() > 0 and len(one.seconds) == len(one.bare) == 1 for one in run.figures)
    assert [one.operation for one in run.figures if one.peer == "liar"] == ["write"]
    assert run.left_out == [
        *(f"{peer.name} left out: {peer.name} is not installed" for peer in LIGHT if peer.missing()),
        "absent left out: a-package-that-nobody-has is not installed",
        "liar, read, 1 KB, processes: 2 left out: Trouble: gave a wrong answer",
        "broken, processes: 2, left out: ConnectionError: no server",
    ]
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nof old\n{END}\nafter\n")
    write_page(page, run)
    text = page.read_text()
    assert text.startswith(f"before\n{BEGIN}\n\nMeasured on ")
    assert text.endswith(f"{END}\nafter\n")
    assert "of old" not in text
    assert all(f"- {line}." in text for line in run.left_out)
    assert "| absent" not in text
    assert "| broken" not in text


def test_a_page_without_marks_is_left_as_it_is(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("by hand")
    with pytest.raises(ValueError, match="has no <!-- measured"):
        write_page(page, Run(1))
    assert page.read_text() == "by hand"


def _figures() -> Iterator[Figure]:
    for size, mine in ((KIB, (0.002, 0.004, 0.009)), (MIB, (0.2, 0.2, 0.2))):
        yield Figure("pgresults", "write", size, 1, mine, (0.001, 0.002, 0.003))
    yield Figure("pgresults", "map", KIB, 1, (2.0,), (0.5,))
    yield Figure("liar", "write", KIB, 8, (0.01,), (0.001,))


def test_times_are_medians_and_ratios_those_of_the_rounds() -> None:
    shown = markdown(Run(1000, [PEERS[0], LIAR], figures=list(_figures())))
    assert "| pgresults ● | 4.0 ms (2.0) | 200 ms (100) |" in shown
    assert "| bare psycopg ● | 2.0 ms | 2.0 ms |" in shown
    assert "| 2.0 ms (4.0) |" in shown
    assert "### 8 processes at once" in shown
    assert "| liar ○ | 100 (0.1) |" in shown


def test_the_picture_has_a_line_for_each_peer_that_writes() -> None:
    drawn = ElementTree.fromstring(svg(Run(1000, [PEERS[0], LIAR], figures=list(_figures()))))
    lines = drawn.findall("{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == 2  # in its panel, and in the legend
    assert {line.get("stroke-dasharray") for line in lines} == {None}


def test_peers_are_chosen_by_how_their_names_begin() -> None:
    assert [peer.name for peer in chosen(PEERS, ["PREFECT, redis"])] == ["Prefect, Redis", "Prefect, Redis always"]
    assert chosen(PEERS, None) == list(PEERS)
