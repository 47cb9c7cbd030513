"""Each page, over HTTP: what it shows, what it leaves to the next request, what its addresses say."""

import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
import pytest

from pgresults.serializers import Serializer
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.console import Browser, Page, by_task, json_store, keys_in, settled

Console = Callable[..., Browser]
HOSTILE = "<script>alert('k')</script>&\"\x1b[31m\u202e/\u2066"
"""A key, reason or value that would do something if it was taken for markup, for codes, or for a direction."""


class TestTheLog:
    def test_shows_what_happened_the_newest_first(self, console: Console, store: ResultStore) -> None:
        store.write(1, key="a", tags=["monthly"])
        store.delete("a", reason="was wrong")
        text = console().see("/log").text
        assert text.index("delete a 1") < text.index("write a 1")
        assert "was wrong" in text
        assert "monthly" in text

    @pytest.mark.parametrize(
        ("picked", "seen"),
        [
            ({"prefix": "b/"}, ["b/1"]),
            ({"action": "delete"}, ["a"]),
            ({"tag": "red"}, ["b/1"]),
            ({"task": "count"}, ["c"]),
            ({"actor": "nobody"}, []),
            ({"since": "1h"}, ["a", "b/1", "c", "a"]),
            ({"until": "1h"}, []),
            ({"since": "2000-01-01", "action": "write"}, ["c", "b/1", "a"]),
        ],
    )
    def test_is_picked_by(
        self, console: Console, storage: PostgresStorage, picked: dict[str, str], seen: list[str]
    ) -> None:
        store = ResultStore(result_storage=storage)
        store.write(1, key="a")
        store.write(1, key="b/1", tags=["red", "blue"])
        by_task(storage, "count", "c")
        store.delete("a")
        page = console().see("/log", **picked)
        assert sorted(keys_in(page)) == sorted(seen)
        for name, value in picked.items():
            assert f'value="{value}"' in page.source or f"<option selected>{value}" in page.source, name

    def test_goes_on_by_place_and_misses_nothing(self, console: Console, store: ResultStore) -> None:
        store.write_many({f"k/{number:03}": number for number in range(120)})
        browser, seen, address = console(), list[str](), "/log?tag="
        for _ in range(3):
            page = browser.see(address)
            seen += keys_in(page)
            if 'rel="next"' not in page.source:
                break
            address = page.link("Older")
            assert "offset" not in address
        assert sorted(seen) == [f"k/{number:03}" for number in range(120)]

    def test_looks_at_some_at_a_time_where_few_are_of_a_kind(
        self, console: Console, store: ResultStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("pgresults.web.pages.log._WINDOW", 40)
        store.write(0, key="rare", tags=["rare"])
        store.write_many({f"k/{number:03}": number for number in range(90)})
        browser, address, looks = console(), "/log?tag=rare", 0
        while True:
            page = browser.see(address)
            looks += 1
            if keys_in(page):
                break
            assert "Nothing so far" in page.text
            address = page.link("Older")
        assert (keys_in(page), looks) == (["rare"], 3)

    def test_is_live_where_it_shows_the_newest(self, console: Console, store: ResultStore) -> None:
        store.write(1, key="a")
        browser = console()
        assert "every 3s" in browser.see("/log").source
        held = browser.see(browser.see("/log").link("hold still"))
        assert "every 3s" not in held.source
        assert "every 3s" not in browser.see("/log", until="2000-01-01").source

    @pytest.mark.parametrize(
        "wrong", ["since=soonish", "before=x", "before=2030-01-01,1,k", f"tag={300 * 'x'}", "prefix=%00"]
    )
    def test_refuses_what_it_does_not_understand(self, console: Console, wrong: str) -> None:
        page = console().get(f"/log?{wrong}")
        assert page.status == 400, page.text
        assert "cannot be asked" in page.text


class TestResults:
    def test_are_listed_by_key_page_by_page(self, console: Console, store: ResultStore) -> None:
        store.write_many({f"k/{number:03}": number for number in range(70)})
        browser = console()
        first = browser.see("/results")
        second = browser.see(first.link("Next"))
        assert keys_in(first) + keys_in(second) == [f"k/{number:03}" for number in range(70)]
        assert "after=k%2F049" in first.link("Next")

    @pytest.mark.parametrize(
        ("picked", "seen"),
        [({"prefix": "b/"}, ["b/1"]), ({"tag": "red"}, ["b/1"]), ({"task": "count"}, ["c"]), ({"flow": "none"}, [])],
    )
    def test_are_picked_by(
        self, console: Console, storage: PostgresStorage, picked: dict[str, str], seen: list[str]
    ) -> None:
        store = ResultStore(result_storage=storage)
        store.write_many({"a": 1, "z": 2})
        store.write(1, key="b/1", tags=["red"])
        by_task(storage, "count", "c")
        assert keys_in(console().see("/results", **picked)) == seen

    def test_are_suggested_while_a_key_is_typed(self, console: Console, store: ResultStore) -> None:
        store.write_many({HOSTILE: 1, "other": 2})
        page = console().see("/suggestions", prefix="<script>")
        assert "other" not in page.source
        assert "&lt;script&gt;" in page.source
        assert page.scripts == []

    def test_of_a_name_that_is_none_are_not_nothing(self, console: Console) -> None:
        browser = console()
        assert browser.get("/results?storage=nope").status == 404
        assert "no storage named" in browser.get("/results?storage=nope").text
        assert browser.get("/results?schema=nope").status == 404


class TestAKey:
    def test_shows_its_value_history_and_origin(
        self, console: Console, storage: PostgresStorage, looked_at: list[Mapping[str, Any]]
    ) -> None:
        store = json_store(storage)
        for number in range(3):
            store.write(
                {"rows": number}, "k", tags=["monthly"], provenance={"model": "v2"}, expires_in=timedelta(days=1)
            )
        page = console().see("/key", key="k")
        assert "live · version 3" in page.text
        assert "rows: 2" in page.text
        assert "model: “v2”" in page.text
        assert "3 entries, 3 versions" in page.text
        assert "monthly" in page.text
        assert [(line["key"], line["version"], line["how"]) for line in looked_at] == [("k", 3, "value")]
        assert looked_at[0]["storage"] == storage.name

    def test_shows_what_it_had(self, console: Console, storage: PostgresStorage) -> None:
        store = json_store(storage)
        store.write("first", "k")
        between = datetime.now(UTC)
        store.write("second", "k")
        store.delete("k", reason="enough")
        browser = console()
        assert "“first”" in browser.see("/key", key="k", version=1).text
        assert "“first”" in browser.see("/key", key="k", seq=1).text
        assert "“second”" in browser.see("/key", key="k", seq=2).text
        assert "“first”" in browser.see("/key", key="k", as_of=between.isoformat()).text
        gone = browser.see("/key", key="k")
        assert "not live" in gone.text
        assert "deleted" in gone.text
        assert "“second”" not in gone.text
        assert browser.get("/key?key=k&seq=9").status == 400
        assert browser.get("/key?key=k&version=x").status == 400
        assert "no version 9" in browser.see("/key", key="k", version=9).text
        assert browser.get("/key?key=nope").status == 404
        assert browser.get("/key").status == 400

    def test_shows_how_two_versions_differ(
        self, console: Console, storage: PostgresStorage, looked_at: list[Mapping[str, Any]]
    ) -> None:
        store = json_store(storage)
        for number in (1, 2, 2):
            store.write({"rows": number, "same": "x"}, "k")
        browser = console()
        page = browser.see("/key", key="k", a=1, b=2)
        assert '<span class="removed">-  &#34;rows&#34;: 1,</span>' in page.source
        assert '<span class="added">+  &#34;rows&#34;: 2,</span>' in page.source
        assert "No difference." in browser.see("/key", key="k", a=2, b=3).text
        assert "no version 7" in browser.see("/key", key="k", a=2, b=7).text
        assert [line["version"] for line in looked_at if line["how"] == "difference"] == [1, 2, 2, 3]

    def test_pages_a_long_history(self, console: Console, storage: PostgresStorage) -> None:
        store = json_store(storage)
        for number in range(30):
            store.write(number, "k")
        browser = console()
        first = browser.see("/key", key="k")
        older = browser.see(first.link("Older"))
        assert first.source.count('data-label="entry"') + older.source.count('data-label="entry"') == 30

    def test_shows_frames_and_arrays_as_tables(self, console: Console, storage: PostgresStorage) -> None:
        frame = pd.DataFrame({"name": ["ann", HOSTILE], "amount": [1.5, 2.5]})
        for kind in ("arrow", "pickle"):
            ResultStore(result_storage=storage, serializer=Serializer(type=kind)).write(frame, kind)
        compressed: Any = Serializer(type="arrow", compression="zstd")
        ResultStore(result_storage=storage, serializer=compressed).write(frame, "compressed")
        ResultStore(result_storage=storage, serializer=Serializer(type="npy")).write(
            np.arange(6.0).reshape(3, 2), "npy"
        )
        browser = console()
        arrow = browser.see("/key", key="arrow")
        assert "2 rows, 2 columns" in arrow.text
        assert "amount double" in arrow.text
        assert "ann 1.5" in arrow.text
        assert arrow.inline == []
        compressed_page = browser.see("/key", key="compressed").text
        assert "amount double" in compressed_page
        assert "ann" not in compressed_page
        assert "3 rows, 2 columns" in browser.see("/key", key="npy").text
        pickled = browser.see("/key", key="pickle").text
        assert "It is not loaded here" in pickled
        assert "amount float64" in pickled
        assert "It would import" in pickled

    def test_loads_no_code_of_a_pickle(self, console: Console, store: ResultStore, tmp_path: Any) -> None:
        store.write(Trap(str(tmp_path / "sprung")), key="k")
        page = console().see("/key", key="k")
        assert "posix.mkdir" in page.text or "os.mkdir" in page.text
        assert not (tmp_path / "sprung").exists()

    def test_shows_plain_pickles_as_they_are(self, console: Console, store: ResultStore) -> None:
        store.write({"a": (1, 2.5), "b": {3}, "c": None}, key="k")
        assert "a: ( 2 ) 1 2.5" in console().see("/key", key="k").text

    def test_shows_a_large_value_in_part_and_leads_to_the_rest(
        self, console: Console, storage: PostgresStorage
    ) -> None:
        document = {"list": [f"item {number} {'x' * 100}" for number in range(9000)], "end": "here"}
        json_store(storage).write(document, "k")
        browser = console()
        page = browser.see("/key", key="k")
        assert len(page.source) < 100_000
        assert "8,900 more" in page.text
        rest = browser.see(page.link("8,900 more"))
        assert "item 100 x" in rest.text
        assert "item 99 x" not in rest.text
        assert browser.get("/key?key=k&at=7.7").status == 400

    def test_of_which_the_payload_is_too_large_is_not_fetched(
        self, console: Console, storage: PostgresStorage, monkeypatch: pytest.MonkeyPatch, looked_at: list[Any]
    ) -> None:
        monkeypatch.setattr("pgresults.web.contents.MOST_BYTES", 1000)
        json_store(storage).write("x" * 2000, "k")
        browser = console()
        assert "too large to be looked into" in browser.see("/key", key="k").text
        assert "too large" in browser.see("/key", key="k", version=1).text
        assert browser.get("/raw?key=k").status == 413
        assert looked_at == []

    def test_gives_a_payload_as_a_file(
        self, console: Console, storage: PostgresStorage, looked_at: list[Mapping[str, Any]]
    ) -> None:
        ResultStore(result_storage=storage, serializer=Serializer(type="bytes")).write(b"<script>1</script>", HOSTILE)
        response = console().client.get("/raw", params={"key": HOSTILE})
        assert response.content == b"<script>1</script>"
        assert response.headers["content-type"] == "application/octet-stream"
        assert response.headers["content-disposition"].startswith("attachment; filename*=UTF-8''")
        assert "\x1b" not in response.headers["content-disposition"]
        assert [line["how"] for line in looked_at] == ["payload"]

    def test_says_where_bytes_are_not_what_was_written(
        self, console: Console, storage: PostgresStorage, connection: Any
    ) -> None:
        json_store(storage).write("true words", "k")
        connection.execute("UPDATE pgresults.payload SET data = '\"false words\"' WHERE storage_id = %s", [storage.id])
        page = console().see("/key", key="k")
        assert "not what was written" in page.text
        assert "false words" not in page.text

    def test_shows_who_has_its_lock_and_its_hold(self, console: Console, storage: PostgresStorage) -> None:
        store = json_store(storage)
        store.write(1, "held/k")
        store.hold(prefix="held/", reason="the audit")
        locks = storage.lock_manager()
        assert locks.acquire_lock("held/k", "somebody:1:x")
        page = console().see("/key", key="held/k")
        assert "locked by somebody:1:x" in page.text
        assert "on hold : the audit" in page.text
        locks.release_lock("held/k", "somebody:1:x")


class Trap:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


class TestHostileTexts:
    PAGES = ("/log", "/results", "/key", "/locks", "/holds", "/space", "/tasks", "/tasks?task=")

    def test_are_shown_as_what_they_are_everywhere(self, console: Console, storage: PostgresStorage) -> None:
        store = json_store(storage)
        store.write({HOSTILE: [HOSTILE, {"x": HOSTILE}]}, HOSTILE, tags=[HOSTILE], provenance={"said": HOSTILE})
        by_task(storage, HOSTILE, HOSTILE + "2")
        store.write(1, "deleted")
        store.delete("deleted", reason=HOSTILE)
        store.hold(key=HOSTILE, reason=HOSTILE)
        store.set_retention(prefix=HOSTILE, redact_after=timedelta(days=1), reason=HOSTILE)
        store.redact("deleted", reason=HOSTILE)
        locks = storage.lock_manager()
        assert locks.acquire_lock(HOSTILE, HOSTILE)
        browser = console()
        for address in ("/log", "/results", "/locks", "/holds", "/space", "/tasks"):
            safe(settled(browser, address))
        for address, parameters in (
            ("/key", {"key": HOSTILE}),
            ("/key", {"key": "deleted"}),
            ("/tasks", {"task": HOSTILE}),
            ("/results", {"prefix": HOSTILE}),
            ("/log", {"tag": HOSTILE, "actor": HOSTILE}),
            ("/locks", {"broken": HOSTILE}),
        ):
            safe(browser.see(address, **parameters))
        hostile = quote(HOSTILE)
        for address in (
            f"/key?key=nope{hostile}",
            f"/{hostile}",
            f"/log?since={hostile}",
            f"/results?storage={hostile}",
        ):
            safe(browser.get(address + hostile))
        locks.release_lock(HOSTILE, HOSTILE)


def safe(page: Page) -> None:
    """A page has no script, style, code or turn of direction of anybody else's."""
    assert all(script["src"].startswith("/static/") for script in page.scripts)
    assert page.inline == []
    assert "<script>alert" not in page.source
    values = page.source.split('value="')
    shown = values[0] + "".join(part.partition('"')[2] for part in values[1:])  # a field has the text itself
    assert not set(shown) & set("\x1b\u202e\u2066")
