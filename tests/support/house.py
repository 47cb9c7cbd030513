"""What a schema ships, written anew after a migration: ``python -m tests.support.house``."""

import json
import tempfile
from pathlib import Path

from sqlalchemy import URL, make_url

from pgresults.audit import house
from pgresults.database import migrations
from pgresults.database.programs import call, perform
from pgresults.operations.house import House, look
from pgresults.server.embedded import EmbeddedPostgres
from pgresults.sql.schema import SCHEMA
from pgresults.storage import PostgresStorage

FILE = Path(house.__file__).with_name(house.FILE)
COMMAND = "python -m tests.support.house"


def looked_at(url: URL, schema: str = SCHEMA) -> House:
    """A schema as the server has it."""
    storage = PostgresStorage(url, schema=schema)
    try:
        return perform(call(storage.database, lambda _: look(schema), atomic=True))
    finally:
        storage.close()


def text_of(seen: House, schema: str = SCHEMA) -> str:
    """What is to stand in the file."""
    return json.dumps(house.describe(seen, schema), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _write() -> None:
    with tempfile.TemporaryDirectory(prefix="pgresults-house-") as directory:
        server = EmbeddedPostgres(Path(directory) / "server")
        url = make_url(server.url)
        try:
            migrations.upgrade(url)
            FILE.write_text(text_of(looked_at(url)), "utf-8")
        finally:
            server.stop()


if __name__ == "__main__":
    _write()
