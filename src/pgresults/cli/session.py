"""What the global options of a command line come to: settings and a storage that is there."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cached_property
from typing import Annotated, Any, NoReturn, cast

import typer
from sqlalchemy import URL

from pgresults.cli import DEFAULT_STORAGE
from pgresults.cli.usage import end, told
from pgresults.database.database import Database
from pgresults.database.programs import call, perform
from pgresults.database.schemas import schemas
from pgresults.operations.registry import registered
from pgresults.settings import Settings, load_settings
from pgresults.sql.schema import SCHEMA
from pgresults.storage.postgres import PostgresStorage, default_storage

_MANY = 10

Create = Annotated[
    bool, typer.Option("--create", help="Make the storage that --storage names where there is none yet.")
]


@dataclass(frozen=True)
class Session:
    """One call of the program; the environment is read when a command needs it.

    Parameters:
        overrides: the settings that options give.
        storage_name: the collection of results.
        named: whether the user said its name, so that it may be mistyped.
    """

    overrides: dict[str, Any]
    storage_name: str = DEFAULT_STORAGE
    named: bool = False

    @cached_property
    def settings(self) -> Settings:
        """The settings of the environment and of the options; ends the program where one is of no use."""
        with told():
            return load_settings(**self._given())

    def _given(self) -> dict[str, Any]:
        """What options say; a standby is one of the database that is named beside it."""
        return {"read_url": None, **self.overrides} if "database_url" in self.overrides else self.overrides

    @contextmanager
    def database(self, *, there: bool = False) -> Iterator[PostgresStorage]:
        """The storage that the options name, for who is concerned with its database alone; closed at the end.

        Parameters:
            there: whether to end the program where the schema that an option names is none.
        """
        with told():
            storage = default_storage(self.settings, self.storage_name)
        try:
            if there and self._schema_is_unknown(storage):
                known = schemas(storage.database.url())
                _end("schema of pgresults", storage.schema, known, "`pgresults db upgrade` makes it")
            yield storage
        finally:
            storage.close()

    @contextmanager
    def storage(self, *, create: bool | None = None) -> Iterator[PostgresStorage]:
        """The storage that the options name, closed at the end; ends the program where there is none of that name.

        Parameters:
            create: whether a storage that is not there shall be made; None: the command makes none.
        """
        with self.database(there=not create) as storage:
            if self.named and not create and self.storage_name != DEFAULT_STORAGE:
                known = perform(call(storage.database, lambda _: registered())).values()
                if self.storage_name not in known:
                    advice = "" if create is None else "add --create behind the command if a new one is meant"
                    _end("storage", self.storage_name, known, advice)
            yield storage

    def _schema_is_unknown(self, storage: PostgresStorage) -> bool:
        return (
            "database_schema" in self.overrides
            and storage.schema != SCHEMA
            and storage.schema not in schemas(storage.database.url())
        )


def session(context: typer.Context) -> Session:
    """The session of a command."""
    return cast("Session", context.obj)


def where(database: Database) -> str:
    """Where a database is, without its password."""
    if database.embedded is not None:
        return f"the embedded Postgres in {database.embedded.path} (`pgresults embedded stop` ends it)"
    return masked(database.url())


def masked(url: URL) -> str:
    """The URL without its passwords, also where they are parameters."""
    secrets = [name for name in url.query if "password" in name]
    return url.set(drivername="postgresql").difference_update_query(secrets).render_as_string(hide_password=True)


def _end(kind: str, name: str, known: Iterable[str], advice: str) -> NoReturn:
    """End the program, with the names there are: the most similar ones where there are many."""
    names = list(known)
    if (more := len(names) - _MANY) > 0:
        names = sorted(sorted(names, key=lambda one: -SequenceMatcher(None, name, one).ratio())[:_MANY])
    there = ", ".join(map(repr, names)) or "none"
    if more > 0:
        there += f" and {more:,} more"
    end(f"there is no {kind} named {name!r}; there are: {there}{f'; {advice}' if advice else ''}")
