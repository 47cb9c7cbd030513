"""What the global options of a command line come to: settings and a storage."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import typer

from pgresults.cli.output import masked
from pgresults.database.database import Database
from pgresults.settings import Settings, load_settings
from pgresults.storage.postgres import PostgresStorage, default_storage


@dataclass(frozen=True)
class Session:
    """One call of the program; the environment is read when a command needs it."""

    overrides: dict[str, Any]
    storage_name: str

    @cached_property
    def settings(self) -> Settings:
        """The settings of the environment and of the options; raises ConfigurationError."""
        return load_settings(**self.overrides)

    @contextmanager
    def storage(self) -> Iterator[PostgresStorage]:
        """The storage that the options name, closed at the end."""
        storage = default_storage(self.settings, self.storage_name)
        try:
            yield storage
        finally:
            storage.close()


def session(context: typer.Context) -> Session:
    """The session of a command."""
    return cast("Session", context.obj)


def where(database: Database) -> str:
    """Where a database is, without its password."""
    if database.embedded is not None:
        return f"the embedded Postgres in {database.embedded.path} (`pgresults embedded stop` ends it)"
    return masked(database.url())
