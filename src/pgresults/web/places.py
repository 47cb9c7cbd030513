"""Where a request looks: a storage in a schema, over connections that change nothing unless that is allowed."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from pgresults.database.database import Database, Start
from pgresults.database.programs import aperform, call
from pgresults.database.schemas import schemas
from pgresults.errors import MissingResult, SchemaVersionError
from pgresults.operations import console
from pgresults.operations.registry import registered
from pgresults.operations.registry import schemas as in_order
from pgresults.operations.requests import T
from pgresults.operations.verify import MAINTENANCE
from pgresults.records.keys import storage_id
from pgresults.settings import Settings
from pgresults.storage.postgres import PostgresStorage, default_storage, require_name

_FRESH = 5.0  # seconds


class LookedAt(Database):
    """A database of which every transaction is one that changes nothing."""

    def run(self, start: Start[T], *, atomic: bool = True, repeatable: bool = True) -> T:
        """Carry an operation out that changes nothing; see `Database.run`."""
        del atomic  # each is a transaction, which is told that it changes nothing
        return super().run(lambda again: console.looking(start(again)), atomic=True, repeatable=repeatable)

    async def arun(self, start: Start[T], *, atomic: bool = True, repeatable: bool = True) -> T:
        """Carry an operation out that changes nothing; see `run`."""
        del atomic
        return await super().arun(lambda again: console.looking(start(again)), atomic=True, repeatable=repeatable)


class _Storage(PostgresStorage):
    """A storage whose database is given as it is, so that all storages of a schema share its connections."""

    def __init__(self, database: Database, name: str) -> None:
        self.database = database
        self._call(require_name(name))


@dataclass(frozen=True)
class Place:
    """A storage in a schema, and what else there is.

    Parameters:
        storage: only to look at.
        changing: the same storage, to change it; None: nothing is changed here.
        schemas: the schemas of the database.
        storages: the registered storages, id and name.
    """

    storage: PostgresStorage
    changing: PostgresStorage | None
    schemas: Sequence[str]
    storages: dict[UUID, str]


class Places:
    """The schemas and storages of the database that settings name, with connections for each schema.

    Parameters:
        settings: name the database and its first schema.
        name: the storage that is shown first.
        allow_changes: whether there are connections that may change something.
    """

    def __init__(self, settings: Settings, name: str, allow_changes: bool) -> None:
        self._first = default_storage(settings, name)
        self.name = name
        self.schema = self._first.schema
        self._allow_changes = allow_changes
        self._looked_at: dict[str, Database] = {}
        self._changed: dict[str, Database] = {}
        self._schemas: list[str] = []
        self._seen = float("-inf")

    async def find(self, schema: str | None, name: str | None) -> Place:
        """The place of these names; those that are not said are the first ones.

        Raises: MissingResult where there is no such schema or storage; StorageUnavailable; SchemaVersionError.
        """
        schema, name = schema or self.schema, name or self.name
        known = await self._known_schemas(schema)
        if schema != self.schema and schema not in known:
            raise MissingResult(f"there is no schema of pgresults named {schema!r} here", reason="no such schema")
        database = self._database(self._looked_at, LookedAt, schema)
        found = await aperform(call(database, lambda _: registered()))
        storages = {id_: known for id_, known in found.items() if id_ != MAINTENANCE or known == name}
        if name != self.name and storage_id(name) not in storages:
            raise MissingResult(f"there is no storage named {name!r} in schema {schema!r}", reason="no such storage")
        changing = None
        if self._allow_changes:
            changing = _Storage(self._database(self._changed, Database, schema), name)
        return Place(_Storage(database, name), changing, known, storages)

    def looked_at(self) -> Database:
        """The database with the first schema, only to look at."""
        return self._database(self._looked_at, LookedAt, self.schema)

    async def aclose(self) -> None:
        """Close all connections."""
        for database in (*self._looked_at.values(), *self._changed.values()):
            await database.aclose()
        await self._first.aclose()

    def _database(self, made: dict[str, Database], kind: type[Database], schema: str) -> Database:
        if schema not in made:
            first = self._first.database
            target = first.embedded or first.url()
            read_url = first.settings.read_url
            standby = read_url.get_secret_value() if read_url and first.standby else None
            made[schema] = kind(target, schema, first.settings, standby)
        return made[schema]

    async def _known_schemas(self, asked: str) -> list[str]:
        """The schemas of the database, as they were some seconds ago at most."""
        unknown = asked != self.schema and asked not in self._schemas
        if unknown or time.monotonic() - self._seen > _FRESH:
            try:
                self._schemas = await aperform(call(self.looked_at(), lambda _: in_order()))
            except SchemaVersionError:  # the first one is none, but others may be there
                self._schemas = await asyncio.to_thread(lambda: schemas(self._first.database.url()))
            self._seen = time.monotonic()
        return self._schemas
