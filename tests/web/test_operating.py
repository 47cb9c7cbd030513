"""What an auditor and an operator see: verifications, seals, proofs, holds, health; what a role or an outage hides."""

import json
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import URL
from starlette.testclient import TestClient
from typer.testing import CliRunner

from pgresults.cli.app import app as program
from pgresults.database.programs import perform
from pgresults.errors import ConfigurationError
from pgresults.locking import PostgresLockManager
from pgresults.serializers import JSONSerializer
from pgresults.settings import Settings, load_settings
from pgresults.sql.grants import Kind
from pgresults.sql.schema import REVISION
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from pgresults.web.app import create_app
from pgresults.web.options import Options
from pgresults.web.places import LookedAt
from tests.support.console import Browser, Page, settled
from tests.support.database import psycopg_url
from tests.support.proxy import Proxy
from tests.support.roles import logged_in
from tests.support.sealing import seal_over
from tests.support.standbys import caught_up, own_server, standby_of

Console = Callable[..., Browser]


def ended(browser: Browser, started: Page) -> Page:
    """The page of a verification that is over."""
    assert started.status == 303, started.text
    for _ in range(300):
        page = browser.see(started.headers["location"])
        if "every 1s" not in page.source:
            return page
    raise AssertionError(page.text)


class TestVerifying:
    def test_says_that_all_is_intact(self, console: Console, storage: PostgresStorage) -> None:
        ResultStore(result_storage=storage, serializer=JSONSerializer()).write_many({"a": 1, "b": 2})
        browser = console()
        page = browser.see("/integrity")
        assert "not by this console" in page.text
        found = ended(browser, browser.post("/integrity/verify", {"token": page.token}))
        assert "Intact." in found.text
        assert "keys 2 entries 2 payloads 2" in found.text
        assert "intact" in browser.see("/integrity").text
        one = ended(browser, browser.post("/integrity/verify", {"token": page.token, "key": "a"}))
        assert "keys 1 entries 1" in one.text
        assert browser.get("/integrity/run?id=nope").status == 404

    def test_says_what_is_and_what_should_be(
        self, console: Console, storage: PostgresStorage, connection: psycopg.Connection[Any]
    ) -> None:
        store = ResultStore(result_storage=storage, serializer=JSONSerializer())
        store.write(1, "bytes")
        store.write(1, "row", tags=["draft"])
        with connection.transaction():
            connection.execute("SET LOCAL session_replication_role = replica")
            here = (storage.id,)
            connection.execute("UPDATE pgresults.payload SET data = '2' WHERE storage_id = %s AND key = 'bytes'", here)
            connection.execute(
                "UPDATE pgresults.result SET tags = '{approved}' WHERE storage_id = %s AND key = 'row'", here
            )
        browser = console()
        page = ended(browser, browser.post("/integrity/verify", {"token": browser.see("/integrity").token}))
        assert "Altered in 2 places." in page.text
        assert "tags: {approved} tags: {draft}" in page.text
        assert "the bytes that the history names by their digest" in page.text
        assert "altered in 2 places" in browser.see("/integrity").text

    def test_says_of_what_is_around_the_history_what_it_should_be(
        self, console: Console, storage: PostgresStorage, connection: psycopg.Connection[Any]
    ) -> None:
        ResultStore(result_storage=storage).write(1, "k")
        connection.execute("GRANT SELECT ON pgresults.history TO PUBLIC")
        try:
            browser = console()
            page = ended(browser, browser.post("/integrity/verify", {"token": browser.see("/integrity").token}))
        finally:
            connection.execute("REVOKE SELECT ON pgresults.history FROM PUBLIC")
        assert "everybody may SELECT on history" in page.text
        assert "what this version of pgresults ships" in page.text
        assert "what the last entry of its history says" not in page.text

    def test_of_a_form_that_is_not_ours_is_not_begun(self, console: Console) -> None:
        assert console().post("/integrity/verify", {}).status == 403


@pytest.fixture
def sealed(storage: PostgresStorage, tmp_path: Path) -> tuple[ResultStore, Any]:
    """A store with a seal over it, made with a key in the test's directory."""
    settings = Settings(seal_key=tmp_path / "seal.pem")
    own = PostgresStorage(storage.database.url(), storage.name, settings=settings)
    store = ResultStore(result_storage=own, serializer=JSONSerializer())
    store.write({"rows": 1}, "k")
    return store, seal_over(store, 1)


class TestSealsAndProofs:
    def upload(self, browser: Browser, content: bytes, **more: str) -> Page:
        data = {"token": browser.see("/integrity").token, **more}
        return Page(browser.client.post("/integrity/check", data=data, files={"file": ("seal.json", content)}))

    def test_a_seal_is_compared_with_what_it_covers(
        self, console: Console, sealed: tuple[ResultStore, Any], tmp_path: Path, connection: psycopg.Connection[Any]
    ) -> None:
        store, seal = sealed
        browser = console(seals=[tmp_path], public_key=seal.public_key)
        (tmp_path / "seal.json").write_bytes(seal.dump_bytes())
        assert "seal.json" in browser.see("/integrity").text
        page = ended(browser, self.upload(browser, seal.dump_bytes()))
        assert "Intact." in page.text
        assert "0 entries of" in page.text
        forged = seal.model_copy(update={"entries": 7})
        assert "Could not check" in ended(browser, self.upload(browser, forged.dump_bytes())).text
        other = seal.model_copy(update={"storage_id": UUID(int=0)})
        assert self.upload(browser, other.dump_bytes()).status == 409
        store.result_storage.close()

    def test_a_proof_is_checked_by_itself(self, console: Console, sealed: tuple[ResultStore, Any]) -> None:
        store, seal = sealed
        proof = store.prove("k", seal=seal).dump_bytes()
        browser = console()
        good = self.upload(browser, proof, public_key=seal.public_key)
        assert (good.status, "It holds" in good.text) == (200, True)
        other = json.loads(proof)
        other["entry"]["actor"] = "<b>nobody</b>"
        bad = self.upload(browser, json.dumps(other).encode(), public_key=seal.public_key)
        assert (bad.status, "does not hold" in bad.text) == (422, True)
        assert "<b>nobody" not in bad.source
        assert "name the public key" in self.upload(browser, proof).text
        store.result_storage.close()

    def test_a_certificate_of_erasure_is_checked_by_itself(
        self, console: Console, sealed: tuple[ResultStore, Any]
    ) -> None:
        store, seal = sealed
        made = store.erase(key="k", reason="<b>asked to</b>").dump_bytes()
        browser = console()
        good = self.upload(browser, made, public_key=seal.public_key)
        assert (good.status, "It holds: it is signed, and of its 1 keys" in good.text) == (200, True), good.text
        assert "<b>asked to</b>" in good.text
        other = {**json.loads(made), "reason": "<b>nobody</b>"}
        bad = self.upload(browser, json.dumps(other).encode(), public_key=seal.public_key)
        assert (bad.status, "the certificate was altered" in bad.text, "<b>nobody" in bad.source) == (422, True, False)
        assert "name the public key" in self.upload(browser, made).text
        assert self.upload(browser, b'{"certificate": "erasure"}').status == 409
        store.result_storage.close()

    @pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff", b'{"buckets": 1}', b"[" * 100_000])
    def test_what_is_neither_is_refused(self, console: Console, content: bytes) -> None:
        page = self.upload(console(), content)
        assert page.status in (400, 409), page.text


class TestHoldsAndHealth:
    def test_holds_are_listed(self, console: Console, store: ResultStore) -> None:
        store.hold(key="k", reason="<i>the audit</i>")
        store.hold(prefix="", reason="all of it")
        page = console().see("/holds")
        assert "<i>the audit</i>" in page.text
        assert "the whole storage" in page.text

    def test_rules_what_goes_by_them_and_erasures_are_listed(self, console: Console, store: ResultStore) -> None:
        empty = settled(console(), "/holds")
        assert "There is no rule for this storage." in empty.text
        assert "Nothing was erased from this storage." in empty.text
        for value in ("a", "b", "c"):
            store.write(value, key="<i>many</i>")
        store.write(1, key="private")
        store.redact("private", reason="<b>asked to</b>")
        for rule in ({"tags": ["<i>t</i>"]}, {"task": "<i>task</i>"}, {"prefix": "<i>", "age": timedelta(days=3)}):
            store.set_retention(**{"versions": 1, **rule}, reason="<i>policy</i>")
        late = console()
        page = settled(late, "/holds")
        assert "all that begins with <i> the newest 1, and each for 3 days after another <i>policy</i>" in page.text
        assert "results of the task <i>task</i>" in page.text
        assert re.search(r"<i>many</i> version 1 in \d.*<i>many</i> version 2 in \d", page.text), page.text
        assert re.search(r"private .*<b>asked to</b>", page.text.split("Latest erasures")[1])
        assert not re.search("<[ib]>", page.source)

    def test_what_is_due_comes_first_and_no_more_than_fits(self, console: Console, store: ResultStore) -> None:
        for value in range(103):
            store.write(value, key="k")
        store.write(1, key="later")
        store.set_retention(prefix="k", versions=1, reason="policy")
        store.set_retention(prefix="later", redact_after=timedelta(days=2), reason="policy")
        page = settled(console(), "/holds")
        assert len(re.findall(r"version \d+ due ", page.text)) == 100
        assert "The first 100 to go." in page.text
        assert "all of it is erased" not in page.text
        store.sweep()
        page = settled(console(), "/holds")
        assert re.search(r"later all of it is erased in \d", page.text), page.text
        assert not re.search(r"version \d+ due ", page.text)

    def test_health_says_how_schema_server_and_role_are(self, console: Console) -> None:
        browser = console()
        for _ in range(100):
            page = browser.see("/health")
            if "Looking…" not in page.text:
                break
        assert f"revision {REVISION} newest" in page.text
        assert "none in between" in page.text
        assert "writer yes" in page.text
        assert "None is named by PGRESULTS_READ_URL" in page.text
        assert "None follows it." in page.text

    def test_metrics_are_those_of_prometheus(self, console: Console) -> None:
        page = console().get("/metrics")
        assert page.status == 200
        assert "pgresults_up 1.0" in page.source


@pytest.mark.slow
class TestAStandby:
    def test_is_seen_from_both_sides_and_looked_at_by_itself(self) -> None:
        with own_server() as primary, standby_of(primary) as standby:
            ResultStore(result_storage=PostgresStorage(primary)).write(1, key="k")
            caught_up(primary, standby)
            both = load_settings(database_url=primary.url, read_url=standby.url)
            page = looked(both, "/health")
            assert "Standby for reads behind" in page.text
            assert "streaming" in page.text
            assert "k" in looked(both, "/results").text
            alone = load_settings(database_url=standby.url)
            assert "a standby" in looked(alone, "/health").text
            for address in ("/log", "/results", "/locks", "/space", "/tasks", "/integrity", "/holds", "/key?key=k"):
                assert looked(alone, address).status == 200, address


def looked(settings: Settings, address: str) -> Page:
    """A page of a console that is started for it."""
    options = Options(settings, "default", lambda _: None, patience=timedelta(seconds=20))
    with TestClient(create_app(options), "http://localhost") as client:
        return Page(client.get(address))


class TestWithLessRights:
    @pytest.fixture
    def as_reader(self, shared_url: URL, store: ResultStore, console: Console) -> Any:
        store.write(1, key="k")
        with logged_in(shared_url, Kind.READER) as url:
            yield console(url=psycopg_url(url))

    def test_pages_that_need_more_say_so(self, as_reader: Browser) -> None:
        assert "k" in as_reader.see("/results").text
        assert as_reader.see("/locks").status == 200
        for address in ("/log", "/holds"):
            page = as_reader.get(address)
            assert page.status == 403, page.text
            assert "pgresults db grant ROLE --as historian" in page.text
        page = as_reader.get("/key?key=k")
        assert (page.status, "--as auditor" in page.text) == (403, True)
        health = as_reader.see("/health")
        for _ in range(100):
            if "Looking…" not in health.text:
                break
            health = as_reader.see("/health")
        assert "reader yes" in health.text
        assert "writer no" in health.text


class TestTransactions:
    def test_change_nothing_whatever_is_asked(self, storage: PostgresStorage) -> None:
        perform(storage._register())
        looking = PostgresStorage(storage.database.url(), storage.name)
        looking.database = LookedAt(storage.database.url(), storage.schema)
        with pytest.raises(ConfigurationError, match="read-only"):
            ResultStore(result_storage=looking).write(1, key="k")
        locks = storage.lock_manager()
        assert locks.acquire_lock("k", "me")
        with pytest.raises(ConfigurationError, match="read-only"):
            PostgresLockManager(looking.database, storage.name).break_lock("k", "because")
        locks.release_lock("k", "me")
        looking.close()


class TestAnOutage:
    def test_is_said_and_never_nothing_here(self, storage: PostgresStorage, store: ResultStore) -> None:
        store.write(1, key="k")
        with Proxy(storage.database.url()) as proxy:
            settings = load_settings(database_url=psycopg_url(proxy.url), pool_size=1, connect_timeout=1)
            client = TestClient(
                create_app(Options(settings, storage.name, lambda _: None)),
                "http://localhost",
                raise_server_exceptions=False,
            )
            with client:
                browser = Browser(client)
                assert "k" in browser.see("/results").text
                proxy.__exit__()
                for address in ("/log", "/results", "/key?key=k", "/locks", "/space", "/tasks", "/integrity", "/holds"):
                    page = browser.get(address)
                    assert page.status == 503, address
                    assert "does not answer" in page.text
                    assert page.headers["retry-after"] == "5"
                assert browser.get("/health").status == 503
                assert browser.get("/healthz").status == 503
                assert browser.get("/metrics").status == 503

    def test_at_the_start_is_waited_out(self) -> None:
        settings = load_settings(database_url="postgresql://x@127.0.0.1:1/x", connect_timeout=1)
        options = Options(settings, "default", lambda _: None)
        with TestClient(create_app(options), "http://localhost", raise_server_exceptions=False) as client:
            assert client.get("/log").status_code == 503

    def test_of_a_schema_that_is_none_names_the_command(self, empty_url: URL) -> None:
        settings = load_settings(database_url=psycopg_url(empty_url))
        options = Options(settings, "default", lambda _: None)
        with TestClient(create_app(options), "http://localhost", raise_server_exceptions=False) as client:
            page = Page(client.get("/log"))
        assert page.status == 503
        assert "pgresults db upgrade" in page.text


def test_the_command_refuses_to_be_reached_by_anybody() -> None:
    result = CliRunner().invoke(program, ["--database-url", "postgresql://x@127.0.0.1:1/x", "web", "--host", "0.0.0.0"])
    assert result.exit_code == 1
    assert "PGRESULTS_WEB_TOKEN" in " ".join(result.stderr.split())
