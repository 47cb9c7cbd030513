"""A console over the test's own storage."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import pytest
from starlette.testclient import TestClient

from pgresults.database.programs import perform
from pgresults.settings import load_settings
from pgresults.storage import PostgresStorage
from pgresults.web.app import create_app
from pgresults.web.options import Options
from tests.support import apart
from tests.support.console import Browser
from tests.support.database import psycopg_url

shared_url = apart.shared_url


@pytest.fixture
def looked_at() -> list[Mapping[str, Any]]:
    """The lines of the access log."""
    return []


@pytest.fixture
def console(
    storage: PostgresStorage, looked_at: list[Mapping[str, Any]], request: pytest.FixtureRequest
) -> Iterator[Callable[..., Browser]]:
    """Makes a console on the test's storage, and a browser that is at it."""
    perform(storage._register())
    with ExitStack() as stack:

        def start(
            allow_changes: bool = False,
            base_url: str = "http://localhost",
            url: str | None = None,
            client: tuple[str, int] = ("127.0.0.1", 5),
            public_key: str | None = None,
            **options: Any,
        ) -> Browser:
            web = {name: options.pop(name) for name in ("token", "user_header", "proxies", "hosts") if name in options}
            url = url or psycopg_url(storage.database.url())
            settings = load_settings(
                database_url=url, web=web, pool_size=1, connect_timeout=3, seal_public_key=public_key
            )
            given = Options(settings, storage.name, looked_at.append, allow_changes, **options)
            app = create_app(given)
            made = TestClient(app, base_url, raise_server_exceptions=False, follow_redirects=False, client=client)
            return Browser(stack.enter_context(made))

        yield start
