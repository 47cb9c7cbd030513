"""What a version was computed from and what from it, drawn and listed."""

import re
from collections.abc import Callable
from urllib.parse import quote

from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from pgresults.web.drawing import drawing
from tests.support.console import Browser

Console = Callable[..., Browser]
HOSTILE = "<script>alert(1)</script>\x1b[31m\u202e"


def filled(storage: PostgresStorage) -> ResultStore:
    """Two parents, one result, and two of which each was computed from it; one of them from a parent as well."""
    store = ResultStore(result_storage=storage)
    raw, rates = store.write(1, "raw"), store.write(2, HOSTILE)
    clean = store.write(3, "clean", derived_from=[raw])
    report = store.write(4, "report", derived_from=[clean, rates])
    store.write(5, "slides/board", derived_from=[report])
    store.write(6, "slides/press", derived_from=[report, raw])
    return store


def test_is_drawn_and_listed(console: Console, storage: PostgresStorage) -> None:
    filled(storage)
    page = console().see("/lineage", key="report")
    assert page.inline == []
    assert len(re.findall("<rect x=", page.source)) == 6
    assert len(re.findall("<path ", page.source)) == 5
    assert "Computed from key" in page.text
    assert "Computed from it key" in page.text
    assert "\x1b" not in page.source
    assert "\u202e" not in page.source
    assert "<script>alert" not in page.source
    assert f"key={quote('slides/board', safe='')}" in page.source


def test_goes_as_far_as_is_asked(console: Console, storage: PostgresStorage) -> None:
    filled(storage)
    browser = console()
    near = browser.see("/lineage", key="report", depth=1)
    assert ">raw<" not in near.source
    assert ">raw<" in browser.see(near.link("3 steps")).source
    assert browser.get("/lineage?key=report&depth=99").status == 400
    assert browser.get("/lineage?key=nope").status == 404
    assert browser.get("/lineage?key=report&version=9").status == 404


def test_of_what_stands_alone_says_so(console: Console, storage: PostgresStorage) -> None:
    ResultStore(result_storage=storage).write(1, "alone")
    assert "computed from nothing that is recorded" in console().see("/lineage", key="alone").text


def test_is_on_the_page_of_a_key(console: Console, storage: PostgresStorage) -> None:
    filled(storage)
    assert 'hx-get="/lineage?key=report&amp;version=1&amp;depth=1"' in console().see("/key", key="report").source


def test_lines_lead_from_left_to_right_and_boxes_do_not_overlap(storage: PostgresStorage) -> None:
    store = filled(storage)
    many = [store.write(number, f"part/{number}") for number in range(30)]
    store.write(0, "report", derived_from=many)
    found = drawing(store.lineage("report"), store.lineage("report", direction="down"))
    assert (len(found.boxes), found.left_out) == (13, 18)
    assert len({(box.x, box.y) for box in found.boxes}) == len(found.boxes)
    for line in found.lines:
        x, to_x = re.findall(r"-?\d+", line)[0], re.findall(r"-?\d+", line)[-2]
        assert int(x) < int(to_x)
    assert all(0 <= box.x < found.width and 0 <= box.y < found.height for box in found.boxes)
