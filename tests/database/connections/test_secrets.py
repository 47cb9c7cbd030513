"""Passwords are never shown, whatever the URL and whatever fails."""

import logging
import traceback
from typing import Any

import pytest

from pgresults.errors import ConfigurationError, StorageUnavailable
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:geheim@127.0.0.1:1/db",
        "postgresql://user@127.0.0.1:1/db?password=geheim",
        "postgresql://user:geheim@127.0.0.1:geheim/db",
        "postgresql://user:gehe/im@127.0.0.1:1/db",
        "postgresql://user:of@geheim@127.0.0.1:1/db",
        "postgresql://user:geheim@127.0.0.1:1/db?nonsense=1",
        "postgresql://user:geheim@127.0.0.1:1/db?passfile=/geheim&sslpassword=geheim",
        "mysql://user:geheim@127.0.0.1/db",
        "user:geheim@127.0.0.1/db",
        "postgresql+asyncpg://user:geheim@127.0.0.1/db",
    ],
)
async def test_passwords_are_never_shown(call: Any, url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    shown = []
    try:
        storage = PostgresStorage(url)
        store = ResultStore(result_storage=storage)
        shown += [repr(storage), repr(storage.database), repr(store), str(store), str(storage.__dict__)]
        await call(store, "exists", "k")
    except (ConfigurationError, StorageUnavailable) as error:
        shown += [repr(error), str(error), str(vars(error)), "".join(traceback.format_exception(error))]
    shown = [*shown, caplog.text]
    assert len(shown) > 3
    assert "gehe" not in "\n".join(line for text in shown for line in text.splitlines() if not _is_source(line))


def _is_source(line: str) -> bool:
    """Whether a line of a traceback quotes this file or another."""
    return line.startswith("    ") or 'File "' in line
