"""Who may come in, and what every answer says."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from pgresults.database.connections import Connection
from pgresults.database.database import Database
from pgresults.errors import ConfigurationError
from pgresults.store import ResultStore
from pgresults.web.guarding import own_address
from tests.support.console import Browser

Console = Callable[..., Browser]
TOKEN = "a token of more than sixteen characters"


class TestEveryAnswer:
    @pytest.mark.parametrize("address", ["/", "/log", "/results", "/nope", "/healthz", "/log?since=nonsense"])
    def test_says_what_a_browser_may_do_with_it(self, console: Console, address: str) -> None:
        headers = console().get(address).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["cache-control"] == "no-store"

    def test_has_no_inline_script_or_style(self, console: Console, store: ResultStore) -> None:
        store.write({"a": 1}, key="k")
        page = console().see("/log")
        assert page.inline == []
        assert page.scripts
        assert all(script["src"].startswith("/static/") for script in page.scripts)

    def test_of_a_fault_of_ours_says_it_too(self, console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
        browser = console()
        monkeypatch.setattr("pgresults.web.views.View.render", lambda *_, **__: 1 / 0)
        page = browser.get("/log")
        assert page.status == 500
        assert page.headers["x-frame-options"] == "DENY"
        assert "ZeroDivision" not in page.source

    def test_files_are_kept_by_browsers_and_answers_are_not(self, console: Console) -> None:
        browser = console()
        assert "immutable" in browser.get("/static/console.css").headers["cache-control"]
        assert browser.get("/static/nope.css").headers["cache-control"] == "no-store"
        assert browser.get("/static/..%2Fapp.py").status == 404


class TestTheName:
    @pytest.mark.parametrize("name", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", ""])
    def test_of_another_host_is_refused_as_by_rebinding(self, console: Console, name: str) -> None:
        assert console().get("/log", headers={"host": name}).status == 421

    @pytest.mark.parametrize("name", ["localhost:9790", "127.0.0.1", "[::1]:9790", "LOCALHOST"])
    def test_of_this_machine_is_taken(self, console: Console, name: str) -> None:
        assert console().get("/log", headers={"host": name}).status == 200

    def test_that_settings_name_is_taken(self, console: Console) -> None:
        browser = console(hosts=("results.example.com",))
        assert browser.get("/log", headers={"host": "results.example.com"}).status == 200

    def test_does_not_matter_to_who_asks_for_health(self, console: Console) -> None:
        page = console(token=TOKEN).get("/healthz", headers={"host": "10.0.0.7"})
        assert (page.status, page.source) == (200, "ok\n")


class TestFromElsewhere:
    def test_nobody_comes_in_without_more(self, console: Console) -> None:
        for host in ("0.0.0.0", "::", "192.0.2.1", "example.com"):
            with pytest.raises(ConfigurationError, match="PGRESULTS_WEB_TOKEN"):
                console(host=host)

    def test_a_token_is_asked_for(self, console: Console) -> None:
        browser = console(host="0.0.0.0", token=TOKEN)
        page = browser.get("/log?actor=ann&since=1h", headers={"accept": "text/html"})
        assert (page.status, page.headers["location"]) == (303, "/login?then=%2Flog%3Factor%3Dann%26since%3D1h")
        assert browser.get("/log").status == 401
        login = browser.see("/login", then="/log?actor=ann")
        wrong = browser.post("/login", {"token": login.token, "secret": "not it"})
        assert (wrong.status, "not the token" in wrong.text) == (401, True)
        right = browser.post("/login?then=/log%3Factor%3Dann", {"token": login.token, "secret": TOKEN})
        assert (right.status, right.headers["location"]) == (303, "/log?actor=ann")
        assert "HttpOnly" in right.headers["set-cookie"]
        assert browser.see("/log").text

    def test_a_program_bears_the_token(self, console: Console) -> None:
        browser = console(token=TOKEN)
        assert browser.get("/log", headers={"authorization": f"Bearer {TOKEN}"}).status == 200
        assert browser.get("/log", headers={"authorization": f"Bearer {TOKEN}x"}).status == 401

    def test_a_session_that_was_not_begun_by_the_token_is_none(self, console: Console) -> None:
        browser = console(token=TOKEN)
        browser.see("/login")
        cookie = browser.client.cookies["pgresults_console"]
        assert ".open." in cookie
        browser.client.cookies.set("pgresults_console", cookie.replace(".open.", ".proven."))
        assert browser.get("/log").status == 401

    @pytest.mark.parametrize(
        "given",
        [
            "//evil.example",
            "https://evil.example/log",
            "/\\evil.example",
            "javascript:alert(1)",
            "/nope",
            "/log\r\nx: y",
        ],
    )
    def test_login_leads_nowhere_else(self, given: str) -> None:
        assert own_address(given, {"/", "/log"}) == "/"

    def test_a_proxy_names_the_user(self, console: Console) -> None:
        browser = console(host="0.0.0.0", user_header="X-User")
        assert "ann@example.com" in browser.get("/log", headers={"x-user": "ann@example.com"}).text
        assert browser.get("/log").status == 403
        assert browser.get("/log", headers=[("x-user", "ann"), ("x-user", "bob")]).status == 403
        assert browser.get("/log", headers={"x-user": "a" * 201}).status == 403

    def test_a_token_does_where_no_proxy_names_a_user(self, console: Console) -> None:
        browser = console(host="0.0.0.0", user_header="X-User", token=TOKEN)
        assert "ann" in browser.get("/log", headers={"x-user": "ann"}).text
        assert browser.get("/log").status == 401
        assert browser.get("/metrics", headers={"authorization": f"Bearer {TOKEN}"}).status == 200

    def test_nobody_is_asked_to_log_in_where_there_is_no_token(self, console: Console) -> None:
        page = console().get("/login?then=/log")
        assert (page.status, page.headers["location"]) == (303, "/log")

    def test_a_name_from_another_address_counts_for_nothing(self, console: Console) -> None:
        stranger = console(host="0.0.0.0", user_header="X-User", client=("192.0.2.9", 7))
        assert stranger.get("/log", headers={"x-user": "ann"}).status == 403
        known = console(host="0.0.0.0", user_header="X-User", proxies=("192.0.2.9",), client=("192.0.2.9", 7))
        assert known.get("/log", headers={"x-user": "ann"}).status == 200


class TestTheEventLoop:
    def test_waits_for_no_database(self, console: Console, store: ResultStore, monkeypatch: pytest.MonkeyPatch) -> None:
        store.write({"a": 1}, key="k")
        blocked: list[str] = []

        def watched(owner: type, name: str) -> None:
            blocking = getattr(owner, name)

            def watch(*given: Any, **named: Any) -> Any:
                if asyncio._get_running_loop() is not None:
                    blocked.append(f"{owner.__name__}.{name}")
                return blocking(*given, **named)

            monkeypatch.setattr(owner, name, watch)

        watched(Database, "run")
        watched(Connection, "connect")
        browser = console(allow_changes=True)
        pages = ("log", "results", "tasks", "locks", "space", "holds", "integrity", "health", "metrics", "healthz")
        for page in (
            *pages,
            "key?key=k",
            "key?key=k&a=1&b=1",
            "raw?key=k",
            "tasks?task=x",
            "log?tag=x",
            "suggestions?prefix=k",
        ):
            assert browser.get(f"/{page}").status == 200, page
        token = browser.see("/integrity").token
        for action, form in (
            ("integrity/verify", {}),
            ("space/retain", {"versions": "1"}),
            ("key/delete", {"key": "k", "reason": "x"}),
            ("tasks/forget", {"task": "x", "reason": "x"}),
        ):
            assert browser.post(f"/{action}", {"token": token, **form}).status == 303, action
        assert blocked == []


class TestForms:
    def test_of_another_site_are_refused(self, console: Console) -> None:
        browser = console(token=TOKEN)
        token = browser.see("/login").token
        form = {"token": token, "secret": TOKEN}
        assert browser.post("/login", form, headers={"origin": "http://evil.example"}).status == 403
        assert browser.post("/login", form, headers={"sec-fetch-site": "cross-site"}).status == 403
        assert browser.post("/login", form, headers={"origin": "http://localhost"}).status == 303

    def test_of_another_session_are_refused(self, console: Console) -> None:
        browser = console(token=TOKEN)
        token = browser.see("/login").token
        browser.client.cookies.clear()
        assert browser.post("/login", {"token": token, "secret": TOKEN}).status == 401

    def test_that_are_too_large_are_refused(self, console: Console) -> None:
        browser = console(token=TOKEN)
        assert browser.post("/login", {"secret": "x" * 9_000_000}).status == 413
        chunks = iter([b"x" * 1_000_000] * 9)
        sent = browser.client.post(
            "/login", content=chunks, headers={"content-type": "application/x-www-form-urlencoded"}
        )
        assert sent.status_code == 413
        assert browser.get("/login", headers={"content-length": "9" * 5000}).status == 413
