"""The console in a real browser, over a store of 100,000 results: ``pytest -m browser`` with Debian's Chromium.

What a browser alone can tell: that the policy lets our own scripts and styles work and nobody else's, that lists go on
by themselves, that a page fits a telephone, that who uses a keyboard or a screen reader finds the way.
"""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select
from sqlalchemy import URL

from pgresults.database import migrations
from pgresults.serializers import JSONSerializer, Serializer
from pgresults.server.embedded import EmbeddedPostgres
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from pgresults.tasks import task
from pgresults.web import views
from tests.support.chromium import BROWSER, DRIVER, Console, chromium, prefer, resize
from tests.support.database import psycopg_url
from tests.support.growth import grow

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (BROWSER and DRIVER), reason="there is no chromium, or no chromedriver"),
    pytest.mark.timeout(300),
]
RESULTS = 100_000
HOSTILE = "<script>document.title='sprung'</script><img src=x onerror=\"document.title='sprung'\">\x1b[31m\u202e\u2066"
PAGES = ("log", "results", "tasks", "locks", "space", "holds", "integrity", "health")


@pytest.fixture(scope="module")
def large(create_database: Callable[[], URL]) -> URL:
    """A database with 100,000 results and a few of each kind."""
    url = create_database()
    storage = PostgresStorage(url)
    store = ResultStore(result_storage=storage, serializer=JSONSerializer())

    @task(
        name="count",
        cache_key_fn=lambda _, given: f"counted/{given['number']}",
        result_storage=storage,
        persist_result=True,
    )
    def count(number: int) -> int:
        return number

    for number in range(3):
        count(number)
    grow(url, "counted/0", RESULTS)
    for number in range(4):
        store.write({"rows": number, "text": "words"}, "reports/may", tags=["monthly"], expires_in=timedelta(days=3))
    store.write({HOSTILE: [HOSTILE]}, HOSTILE, tags=[HOSTILE], provenance={"said": HOSTILE})
    store.write("June", "reports/june", derived_from=[("reports/may", 4), (HOSTILE, 1)])
    store.write({f"key {number}": "x" * 200 for number in range(5000)}, "large/json")
    store.write("soon deleted", "deleted")
    store.delete("deleted", reason=HOSTILE)
    store.write("altered", "ledger")
    store.hold(prefix="ledger", reason=HOSTILE)
    ResultStore(result_storage=storage, serializer=Serializer(type="pickle")).write(re.compile("x"), "pickled")
    with psycopg.connect(psycopg_url(url)) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute("UPDATE pgresults.result SET tags = '{approved}' WHERE key = 'ledger'")
    storage.close()
    return url


@pytest.fixture(scope="module")
def driver() -> Iterator[Chrome]:
    with chromium() as driver:
        yield driver


def started(driver: Chrome, url: str, *options: str) -> Console:
    """A console that runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pgresults", "web", "--port", "0", *options],
        env=os.environ | {"PGRESULTS_DATABASE_URL": url},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    found = re.search(r"http://\S+/", process.stdout.readline())
    assert found is not None
    return Console(process, found[0], driver)


def ended(console: Console) -> None:
    console.process.send_signal(signal.SIGINT)
    try:
        console.process.wait(10)
    finally:
        console.process.kill()
        console.process.communicate()


@pytest.fixture(scope="module")
def access_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log") / "access.log"


@pytest.fixture(scope="module")
def looking(driver: Chrome, large: URL, access_log: Path) -> Iterator[Console]:
    """A console that only looks."""
    console = started(driver, psycopg_url(large), "--access-log", str(access_log))
    yield console
    ended(console)


@pytest.fixture(scope="module")
def changing(driver: Chrome, large: URL) -> Iterator[Console]:
    """A console that may change something."""
    console = started(driver, psycopg_url(large), "--allow-changes", "--access-log", os.devnull)
    yield console
    ended(console)


@pytest.fixture(autouse=True)
def _fresh(driver: Chrome) -> None:
    resize(driver, 1400)
    prefer(driver, "light")
    driver.delete_all_cookies()
    driver.get_log("browser")


class TestEachPage:
    @pytest.mark.parametrize("page", PAGES)
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    @pytest.mark.parametrize("width", [400, 1400])
    def test_opens_without_a_complaint_and_fits(self, looking: Console, page: str, scheme: str, width: int) -> None:
        resize(looking.driver, width)
        prefer(looking.driver, scheme)
        looking.open(page)
        looking.until(lambda: "Counting…" not in looking.words() and "Looking…" not in looking.words(), "figures")
        assert looking.complaints() == []
        assert looking.driver.execute_script("return document.documentElement.scrollWidth") <= width
        ground = looking.driver.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", ground)[:3])) > 380) == (scheme == "light")

    @pytest.mark.parametrize("page", [*PAGES, "key?key=reports/may&a=1&b=2", "lineage?key=reports/june"])
    def test_can_be_found_through_without_seeing(self, looking: Console, page: str) -> None:
        looking.open(page)
        for landmark in ("header", "nav[aria-label]", "main", "h1", "[role=search]", ".skip[href='#main']"):
            assert len(looking.all(landmark)) == 1, landmark
        assert looking.one("html").get_attribute("lang") == "en"
        for field in looking.all(
            "main input:not([type=hidden]), main select, header input:not([type=hidden]), header select"
        ):
            assert field.accessible_name, field.get_attribute("outerHTML")
        for button in looking.all("button, a, summary"):
            assert button.accessible_name or not button.is_displayed(), button.get_attribute("outerHTML")

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    @pytest.mark.parametrize("page", ["log", "key?key=reports/may&a=1&b=2", "space"])
    def test_has_texts_that_stand_out(self, looking: Console, page: str, scheme: str) -> None:
        prefer(looking.driver, scheme)
        looking.open(page)
        faint = looking.driver.execute_script(CONTRAST)
        assert faint == []


CONTRAST = r"""
function rgb(text) { const found = text.match(/[\d.]+/g).map(Number); return found; }
function light([r, g, b]) {
  const part = (v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
  return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
}
function ground(element) {
  for (let one = element; one; one = one.parentElement) {
    const found = rgb(getComputedStyle(one).backgroundColor);
    if (found.length < 4 || found[3] > 0) return found;
  }
  return [255, 255, 255];
}
const faint = [];
for (const element of document.querySelectorAll("body *")) {
  const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  if (!own || !element.checkVisibility() || element.closest("option, svg, .hidden, .skip")) continue;
  const [a, b] = [light(rgb(getComputedStyle(element).color)), light(ground(element))].sort((x, y) => y - x);
  if ((a + 0.05) / (b + 0.05) < 4.5) faint.push(element.outerHTML.slice(0, 120));
}
return faint;
"""


class TestTheLog:
    @pytest.mark.parametrize(
        ("field", "value", "seen"),
        [
            ("prefix", "reports/", "reports/may"),
            ("actor", "nobody", "Nothing that happened is of that kind"),
            ("action", "delete", "deleted"),
            ("task", "count", "counted/2"),
            ("tag", "monthly", "reports/may"),
            ("since", "1h", "reports/may"),
            ("until", "2000-01-01", "Nothing that happened is of that kind"),
        ],
    )
    def test_is_filtered_and_its_address_says_how(self, looking: Console, field: str, value: str, seen: str) -> None:
        looking.open("log")
        element = looking.one(f".filters [name={field}]")
        if field == "action":
            Select(element).select_by_visible_text(value)
        else:
            element.send_keys(value)
        looking.one(".filters button").click()
        looking.until(lambda: f"{field}=" in looking.driver.current_url, "the address")
        looking.until_said(seen)
        assert seen in looking.open(looking.driver.current_url.removeprefix(looking.address))

    def test_shows_by_itself_what_happens(self, looking: Console, large: URL) -> None:
        looking.open("log")
        storage = PostgresStorage(large)
        ResultStore(result_storage=storage).write(1, "just now")
        storage.close()
        looking.until_said("just now")
        assert looking.complaints() == []

    def test_pages_through_many_by_place(self, looking: Console) -> None:
        looking.open("log")
        first = {one.text for one in looking.all(".key")}
        for _ in range(3):
            looking.one("a[rel=next]").click()
            looking.until(lambda: "before=" in looking.driver.current_url, "the next page")
        last = {one.text for one in looking.all(".key")}
        assert len(last) == 50
        assert not first & last


class TestResults:
    def test_are_found_by_the_slash_key(self, looking: Console) -> None:
        looking.open("log")
        looking.one("body").send_keys("/")
        field = looking.driver.switch_to.active_element
        assert field.get_attribute("id") == "search"
        field.send_keys("reports")
        looking.until(lambda: "reports/may" in looking.one("#keys").get_attribute("innerHTML"), "a suggestion")
        field.send_keys(Keys.ENTER)
        looking.until_said("reports/may")
        assert "prefix=reports" in looking.driver.current_url
        assert looking.complaints() == []

    def test_page_by_key(self, looking: Console) -> None:
        looking.open("results?prefix=k/")
        first = [one.text for one in looking.all("td .key")]
        looking.one("a[rel=next]").click()
        looking.until(lambda: "after=" in looking.driver.current_url, "the next page")
        second = [one.text for one in looking.all("td .key")]
        assert len(first) == len(second) == 50
        assert first == sorted(first)
        assert first[-1] < second[0]


class TestAKey:
    def test_slider_shows_what_it_had(self, looking: Console) -> None:
        looking.open("key?key=reports/may")
        looking.one("#seq").send_keys(Keys.ARROW_LEFT)
        looking.until(lambda: "seq=3" in looking.driver.current_url, "the address")
        assert "rows: 2" in looking.words()
        assert looking.one("#seq").get_attribute("value") == "3"

    def test_versions_are_compared(self, looking: Console) -> None:
        looking.open("key?key=reports/may&a=1&b=4")
        assert '-  "rows": 0' in looking.words()
        assert '+  "rows": 3' in looking.words()

    def test_of_a_megabyte_is_shown_in_part(self, looking: Console) -> None:
        looking.open("key?key=large/json")
        assert len(looking.driver.page_source) < 100_000
        looking.driver.find_element(By.PARTIAL_LINK_TEXT, "more").click()
        looking.until(lambda: "from=" in looking.driver.current_url, "the rest")
        assert "key 100:" in looking.words()

    def test_is_in_the_access_log(self, looking: Console, access_log: Path) -> None:
        looking.open("key?key=reports/may&version=2")
        line = json.loads(access_log.read_text().splitlines()[-1])
        assert (line["key"], line["version"], line["how"], line["storage"]) == ("reports/may", 2, "value", "default")

    def test_that_is_pickled_is_not_loaded(self, looking: Console) -> None:
        assert "It is not loaded here" in looking.open("key?key=pickled")

    def test_has_parts_that_fold(self, looking: Console) -> None:
        looking.open("key?key=reports/may")
        tree = looking.one("#value .tree")
        assert "rows: 3" in tree.text
        tree.find_element(By.TAG_NAME, "summary").click()
        looking.until(lambda: "rows: 3" not in tree.text, "it is folded")


class TestLineage:
    def test_is_drawn_on_the_page_of_a_key_and_leads_along(self, looking: Console) -> None:
        looking.open("key?key=reports/june")
        looking.until(lambda: len(looking.all(".lineage rect")) == 3, "the drawing")
        looking.one(".lineage a:not(.self)").click()
        looking.until(lambda: "lineage?" in looking.driver.current_url, "the lineage of another")
        assert "reports/june" in looking.words()
        assert looking.complaints() == []


class TestHostileTexts:
    @pytest.mark.parametrize(
        "page", [*PAGES, "key?key=deleted", "results?prefix=%3Cscript", "lineage?key=reports/june"]
    )
    def test_do_nothing(self, looking: Console, page: str) -> None:
        looking.open(page)
        looking.until(lambda: "Counting…" not in looking.words() and "Looking…" not in looking.words(), "figures")
        assert looking.driver.title != "sprung"
        assert looking.complaints() == []
        assert looking.all("main script, main img, main [onerror]") == []

    def test_do_nothing_as_a_key_and_a_value(self, looking: Console) -> None:
        looking.open("results?prefix=%3Cscript")
        looking.one("td .key").click()
        looking.until(lambda: "key?" in looking.driver.current_url, "its page")
        assert looking.one("h1").text == HOSTILE.replace("\x1b", "\\u001b").replace("\u202e", "\\u202e").replace(
            "\u2066", "\\u2066"
        )
        assert "onerror" in looking.one("#value").text
        assert looking.driver.title.startswith("<script>")
        assert looking.complaints() == []

    def test_could_not_even_if_they_came_through(self, looking: Console) -> None:
        looking.open("log")
        looking.driver.execute_script(
            "const one = document.createElement('div'); one.innerHTML = arguments[0];"
            "document.querySelector('main').append(one);",
            '<img src="x" onerror="document.title=\'sprung\'">',
        )
        looking.until(looking.complaints, "the policy")
        assert looking.driver.title != "sprung"


class TestTheTheme:
    def test_is_switched_and_kept(self, looking: Console) -> None:
        looking.open("log")

        def ground() -> Any:
            return looking.driver.execute_script("return getComputedStyle(document.body).backgroundColor")

        light = ground()
        looking.one("#theme").click()
        assert ground() != light
        looking.open("results")
        assert ground() != light
        assert looking.one("html").get_attribute("data-theme") == "dark"


class TestPlaces:
    def test_are_switched_on_every_page(self, looking: Console, large: URL) -> None:
        migrations.upgrade(large.set(drivername="postgresql+psycopg"), "archive")
        other = PostgresStorage(large, name=HOSTILE, schema="archive")
        ResultStore(result_storage=other).write(1, "elsewhere")
        other.close()
        looking.until(lambda: looking.open("log") and looking.all("select[name=schema]"), "the other schema")
        Select(looking.one("select[name=schema]")).select_by_visible_text("archive")
        looking.until(lambda: "schema=archive" in looking.driver.current_url, "the address")
        options = Select(looking.one("select[name=storage]")).options
        next(one for one in options if one.get_attribute("value") == HOSTILE).click()
        looking.until_said("elsewhere")
        for page, title in views.PAGES:
            looking.driver.find_element(By.LINK_TEXT, title).click()
            looking.until(lambda page=page: f"/{page}?" in looking.driver.current_url, page)
            assert "schema=archive" in looking.driver.current_url
        assert looking.complaints() == []


class TestVerifying:
    def test_shows_how_far_it_is_and_what_it_found(self, looking: Console) -> None:
        looking.open("integrity")
        looking.one("[name=key]").send_keys("ledger")
        looking.one("button.main").click()
        looking.until_said("Altered in 1 places.")
        assert "tags: {approved}" in looking.words()
        assert "should say" in looking.words()
        assert looking.complaints() == []

    def test_of_everything_tells_its_progress(self, looking: Console) -> None:
        looking.open("integrity")
        looking.one("button.main").click()
        looking.until(lambda: looking.all("progress") or "Altered" in looking.words(), "progress")
        looking.until(lambda: "Altered" in looking.words() or looking.all("progress[value]"), "a number")


class TestChanges:
    def test_are_nowhere_where_they_are_not_allowed(self, looking: Console) -> None:
        for page in ("locks", "key?key=reports/may", "tasks?task=count"):
            looking.open(page)
            assert looking.all(".danger") == []
        assert "read-only" in looking.one("nav").text

    def test_a_lock_is_broken_with_a_reason(self, changing: Console, large: URL) -> None:
        storage = PostgresStorage(large)
        locks = storage.lock_manager()
        assert locks.acquire_lock("reports/may", "etl.example.com:77:importer")
        changing.open("locks")
        assert "etl.example.com" in changing.words()
        changing.one("td summary").click()
        changing.one("td .danger").click()
        assert "broken=" not in changing.driver.current_url, "a reason is needed"
        changing.one("td [name=reason]").send_keys("it is stuck")
        changing.one("td .danger").click()
        changing.until_said("is taken away")
        assert not locks.is_locked("reports/may")
        assert "it is stuck" in changing.open("key?key=reports/may")
        storage.close()

    def test_results_of_a_task_are_forgotten_with_a_reason(self, changing: Console, large: URL) -> None:
        storage = PostgresStorage(large)
        store = ResultStore(result_storage=storage)
        changing.open("key?key=counted/1")
        changing.one("[name=reason]").send_keys("it was wrong")
        changing.one(".danger").click()
        changing.until_said("not live")
        assert not store.exists("counted/1")
        storage.close()


class TestAnOutage:
    def test_is_said_on_a_page_that_was_open_and_on_a_new_one(self, driver: Chrome, tmp_path: Path) -> None:
        server = EmbeddedPostgres(tmp_path / "server")
        storage = PostgresStorage(server)
        ResultStore(result_storage=storage).write(1, "k")
        storage.close()
        console = started(driver, server.url)
        try:
            console.open("log")
            server.stop()
            console.until(lambda: console.one("#outage").is_displayed(), "the outage")
            assert "does not answer since" in console.one("#outage").text
            for page in PAGES:
                assert "The database does not answer" in console.open(page), page
            server.ensure_running()
            console.until(lambda: "k" in console.open("log").split(), "it is there again")
        finally:
            ended(console)
            server.stop()


class TestTheDemo:
    def test_has_life_in_it(self, driver: Chrome, tmp_path: Path) -> None:
        process = subprocess.Popen(
            [sys.executable, "-m", "pgresults", "web", "--demo", "--port", "0", "--access-log", os.devnull],
            stdout=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
        )
        assert process.stdout is not None
        found = re.search(r"http://\S+/", process.stdout.readline())
        assert found is not None
        console = Console(process, found[0], driver)
        try:
            console.until(lambda: "ticks/" in console.open("log"), "a write")
            assert "orders/import" in console.open("locks")
            assert "sessions/" in console.open("space")
            assert "the yearly audit" in console.open("holds")
            assert "imported anew" in console.open("tasks?task=daily_total")
            console.open("integrity")
            console.one("button.main").click()
            console.until_said("Altered in 2 places.")
        finally:
            ended(console)
