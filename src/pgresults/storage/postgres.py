"""Where results go: a named collection in a Postgres schema, or nowhere."""

from dataclasses import replace
from typing import Any
from uuid import UUID

from pgresults.arguments import flaw_of, require_text
from pgresults.database.database import Database
from pgresults.database.observing import HIT, KEY, SIZE, About, observed
from pgresults.database.programs import Program, aperform, call, compute, perform
from pgresults.database.targets import Target
from pgresults.errors import ConfigurationError, InvalidArgument, MissingResult
from pgresults.locking.postgres import PostgresLockManager
from pgresults.operations import registry, results
from pgresults.operations.results import Found, Listed, Upload, Written
from pgresults.records.keys import MAX_KEY_BYTES, require_key, storage_id
from pgresults.records.provenance import default_holder, recorded
from pgresults.records.signing import Trust
from pgresults.serializers.parts import Arrived
from pgresults.server.embedded import EmbeddedPostgres
from pgresults.settings import Settings, current_settings
from pgresults.sql.results import Look
from pgresults.storage.checking import require_intact, require_signed
from pgresults.storage.encoding import prepare
from pgresults.storage.misses import require_live

__all__ = ["EmbeddedPostgres", "NullStorage", "PostgresStorage", "default_storage"]


class PostgresStorage:
    """A named collection of results in a Postgres schema; connects lazily, can be pickled and forked.

    Parameters:
        database: a URL (``postgresql://…``), a directory (an embedded server lives there), an `EmbeddedPostgres`,
            or a SQLAlchemy ``Engine`` or ``AsyncEngine``, which is used as it is.
        name: the collection's name; its id is derived from it.
        schema: the schema that holds the tables; None: that of the settings.
        settings: pool sizes, time-outs and limits; by default from the environment.

    Raises: ConfigurationError when the database is none; InvalidArgument for a name that is none.
    """

    def __init__(
        self, database: Target, name: str = "default", schema: str | None = None, settings: Settings | None = None
    ) -> None:
        require_name(name)
        self.database = Database(database, schema, settings)
        self._call(name)

    def _call(self, name: str) -> None:
        self.name = name
        self.id: UUID = storage_id(name)
        self._trust = Trust.of(self.id, self.settings)
        """What makes a payload here one that may be deserialized."""
        self._registered = False
        self.storage_block_id: UUID | None = None
        """The id under which it can be found again; None until it is saved or written to in the default database."""
        self._lock_manager = PostgresLockManager(self.database, name)

    @property
    def schema(self) -> str:
        """The schema that holds the tables."""
        return self.database.schema

    @property
    def settings(self) -> Settings:
        """Pool sizes, time-outs and limits."""
        return self.database.settings

    def lock_manager(self) -> PostgresLockManager:
        """The manager of this storage's locks; the same one at every call."""
        return self._lock_manager

    def save(self, name: str | None = None) -> UUID:
        """Register the storage, so that it can be resolved by its name and by its id.

        Parameters:
            name: the collection that it stands for from now on; None: its present one.

        Returns: the id.
        Raises: InvalidArgument for another name once it is in use; ConfigurationError outside of the default database.
        """
        return perform(self._saving(name))

    async def asave(self, name: str | None = None) -> UUID:
        """Register the storage; see `save`."""
        return await aperform(self._saving(name))

    def read_path(self, path: str) -> bytes:
        """Read the bytes under a path.

        Raises: MissingResult; IntegrityError; StorageUnavailable.
        """
        return perform(self._read_path(path))

    async def aread_path(self, path: str) -> bytes:
        """Read the bytes under a path; see `read_path`."""
        return await aperform(self._read_path(path))

    def write_path(self, path: str, content: bytes) -> None:
        """Keep bytes under a path, as they are and without metadata.

        Raises: InvalidKey; PayloadTooLarge; StorageUnavailable.
        """
        perform(self._write_path(path, content))

    async def awrite_path(self, path: str, content: bytes) -> None:
        """Keep bytes under a path; see `write_path`."""
        await aperform(self._write_path(path, content))

    def close(self) -> None:
        """Close the connections of this process, and end its locks; a later call opens new ones."""
        self._lock_manager.close()
        self.database.close()

    async def aclose(self) -> None:
        """Close the connections of this process, and end its locks; a later call opens new ones."""
        await self._lock_manager.aclose()
        await self.database.aclose()

    def _store(self, upload: Upload) -> Program[Written]:
        """Store a version; its metadata, payload and history entry appear together or not at all."""
        if not self._registered:
            yield from self._register()
        return (
            yield from call(
                self.database,
                lambda repeated: results.write(upload, repeated=repeated),
                atomic=not upload.single,
            )
        )

    def _about(self, key: object = None, **more: Any) -> About:
        """What is said of a program that works here, under a key or more than one."""
        said = {"pgresults.storage": self.name, **more}
        if self.settings.telemetry_keys and isinstance(key, str):
            said[KEY] = key
        return About(self.database.described, said)

    def _fetch(self, key: str, known: UUID | None = None) -> Program[Found | None]:
        """Fetch a key's head and payload, leaving a known payload out."""
        yield from self._trusted()
        return (yield from call(self.database, lambda _: results.read(self.id, key, self._look(), known)))

    def _look(self) -> Look:
        """How this storage reads; to be asked once it is connected."""
        return Look(self.database.sees_payloads, bool(self._trust.keys))

    @observed("exists", _about, lambda found: {HIT: found})
    def _has(self, key: str) -> Program[bool]:
        """Whether the key has a live result."""
        return call(self.database, lambda _: results.exists(self.id, key))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PostgresStorage) and (self.name, self.database) == (
            other.name,
            other.database,
        )

    def __hash__(self) -> int:
        return hash((self.name, self.database))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_trust"}  # it holds the signing keys

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._trust = Trust.of(self.id, self.settings)

    def __repr__(self) -> str:
        return f"PostgresStorage({self.database!r}, name={self.name!r})"

    def _register(self) -> Program[None]:
        """Enter the name in the registry before the first write, so that SQL can show it."""
        if not self._registered:
            yield from call(self.database, lambda _: registry.register(self.id, self.name))
            self._registered = True
            if self._is_in_default_database():
                self.storage_block_id = self.id

    def _trusted(self, *, register: bool = False) -> Program[Trust]:
        """What signs and verifies payloads here, complete before the first of them is looked at.

        Parameters:
            register: whether to enter the storage in the registry where it is not, as before a write.
        """
        if not self._trust.is_complete:
            if register:
                yield from self._register()
            if identity := (yield from call(self.database, lambda _: registry.identity(self.id))):
                self._trust = replace(self._trust, identity=identity)
        return self._trust

    def _saving(self, name: str | None = None) -> Program[UUID]:
        """Register the storage; see `save`."""
        if not self._is_in_default_database():
            raise ConfigurationError(
                f"{self!r} is not in the default database, which registers storages: set PGRESULTS_DATABASE_URL to "
                "it, or name the storage by its URL",
                setting="database_url",
            )
        if name is not None and name != self.name:
            if self._registered:
                raise InvalidArgument(
                    f"the storage is in use as {self.name!r} already: make PostgresStorage(..., name={name!r})",
                    argument="name",
                    value=name,
                )
            self._call(require_name(name))
        yield from self._register()
        self.storage_block_id = self.id
        return self.id

    def _is_in_default_database(self) -> bool:
        """Whether ids are looked up where it is."""
        try:
            return self.database == default_storage().database
        except ConfigurationError:  # that of the settings is of no use, which is no concern of this one
            return False

    def _page(self, prefix: str = "", after: str = "", limit: int = 100) -> Program[list[Listed]]:
        """A page of live results under a prefix, after a key."""
        for name, value in (("prefix", prefix), ("after", after)):
            if value != "":
                require_text(value, name)
        if not isinstance(limit, int) or not 0 <= limit < 2**31:
            raise InvalidArgument("limit is a number of results, 0 or more", argument="limit", value=limit)
        return call(self.database, lambda _: results.listing(self.id, prefix, after, limit))

    @observed("read", _about, lambda content: {HIT: True, SIZE: len(content)})
    def _read_path(self, path: str) -> Program[bytes]:
        found = require_live((yield from self._fetch(require_key(path))), path)
        require_signed(found.head, path, self._trust)
        return (
            yield from compute(lambda: bytes(require_intact(found, path)), small=self._is_small(found.payload or b""))
        )

    @observed("write", lambda self, path, content: self._about(path, **{SIZE: len(content)}))
    def _write_path(self, path: str, content: bytes) -> Program[None]:
        described = {"holder": default_holder(), "provenance": recorded(None)}
        trust = yield from self._trusted(register=True)
        upload = yield from compute(
            lambda: prepare(trust, require_key(path), content, described, self.settings.max_payload_bytes),
            small=self._is_small(content),
        )
        yield from self._store(upload)

    def _is_small(self, payload: Arrived) -> bool:
        """Whether an event loop may work on a payload itself."""
        return len(payload) <= self.settings.offload_bytes


class NullStorage:
    """Stores nothing; as the metadata storage of a store it means that no metadata is kept apart from payloads."""

    def read_path(self, path: str) -> bytes:
        """Find nothing.

        Raises: MissingResult.
        """
        raise MissingResult(f"no result under {path!r}: a NullStorage keeps nothing", key=path, reason="never written")

    async def aread_path(self, path: str) -> bytes:
        """Find nothing; see `read_path`."""
        return self.read_path(path)

    def write_path(self, path: str, content: bytes) -> None:
        """Keep nothing."""

    async def awrite_path(self, path: str, content: bytes) -> None:
        """Keep nothing."""

    def close(self) -> None:
        """Close nothing."""

    async def aclose(self) -> None:
        """Close nothing."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NullStorage)

    def __hash__(self) -> int:
        return hash(NullStorage)

    def __repr__(self) -> str:
        return "NullStorage()"


def require_name(name: str) -> str:
    """Give the name back if a storage can have it.

    Raises: InvalidArgument.
    """
    if flaw := flaw_of(name, MAX_KEY_BYTES):
        raise InvalidArgument(f"a storage cannot be named {name!r}: {flaw}", argument="name", value=name)
    return name


def default_storage(settings: Settings | None = None, name: str = "default") -> PostgresStorage:
    """The storage of a name where the settings say: in a team's own database, or on an embedded server."""
    settings = settings or current_settings()
    url = settings.database_url
    target = url.get_secret_value() if url is not None else settings.embedded_directory
    return PostgresStorage(target, name, settings.database_schema, settings)
