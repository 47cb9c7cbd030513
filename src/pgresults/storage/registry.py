"""Storages found by what users say: an object, a URL, a directory, a registered name or id, or nothing at all."""

import re
from functools import lru_cache
from pathlib import Path
from typing import Protocol, TypeAlias
from uuid import UUID

from sqlalchemy import Engine

from pgresults.database.lookups import is_async_engine
from pgresults.database.programs import Program, call
from pgresults.database.targets import Target
from pgresults.errors import ConfigurationError, InvalidArgument
from pgresults.locking.postgres import PostgresLockManager
from pgresults.operations.registry import registered
from pgresults.records.keys import storage_id
from pgresults.settings import Settings, current_settings
from pgresults.storage.postgres import EmbeddedPostgres, NullStorage, PostgresStorage, default_storage


class HasStorage(Protocol):
    """What stands for a storage, as Prefect's block for one does."""

    @property
    def storage(self) -> PostgresStorage:
        """The storage."""


StorageSpec: TypeAlias = PostgresStorage | NullStorage | EmbeddedPostgres | HasStorage | UUID | str | Path
"""What names a storage."""

_MEANT_AS_PATH = re.compile(r"^(\.|~|/|[A-Za-z]:[\\/])|\\")
"""A text that says of itself that it is a directory; others with a slash may be names."""

_MEANT_AS_URL = re.compile(r"://|^postgres(ql)?(\+\w+)?:", re.IGNORECASE)
"""Also what is misspelt: as the name of a storage its password would be in an error."""


def storage_at(spec: object) -> PostgresStorage | NullStorage | None:
    """The storage that something is or where it points, or None for a name or an id, which only a registry knows.

    Raises: TypeError for what names no storage; ConfigurationError for a URL that is of no use; InvalidArgument for a
        text that is a directory.
    """
    if isinstance(spec, PostgresStorage | NullStorage):
        return spec
    if isinstance(spec, Path | EmbeddedPostgres):
        target = spec.absolute() if isinstance(spec, Path) else spec
        return _shared(target, "default", current_settings(), "")
    if isinstance(spec, str) and _MEANT_AS_URL.search(spec):
        return _shared(spec, "default", current_settings(), "")
    if isinstance(spec, str) and _MEANT_AS_PATH.search(spec):
        raise InvalidArgument(
            f"{spec!r} looks like a directory, and a text is the name of a storage: give Path({spec!r})",
            argument="result_storage",
            value=spec,
        )
    if isinstance(spec, UUID | str):
        return None
    if isinstance(held := getattr(spec, "storage", None), PostgresStorage):
        return held
    raise TypeError(
        f"a storage is a PostgresStorage, a registered storage's name or UUID, a postgresql:// URL, a Path or an "
        f"EmbeddedPostgres, not {type(spec).__name__}{_advice(spec)}"
    )


def _advice(spec: object) -> str:
    """What to do with something that is no storage here, where that is known."""
    if isinstance(spec, Engine) or is_async_engine(spec):
        return ": give PostgresStorage(engine)"
    if hasattr(spec, "write_path"):
        return (
            ": results are kept in Postgres alone. Give a PostgresStorage, and take over what is there with `pgresults "
            "import prefect`"
        )
    return ""


def require_spec(spec: object, argument: str, whose: str = "a cache policy") -> None:
    """See that something names a storage, where that can be seen without looking for it.

    Raises: InvalidArgument, which names the argument.
    """
    if isinstance(spec, PostgresStorage | Path) or (isinstance(spec, str) and _MEANT_AS_URL.search(spec)):
        return  # what the settings have to do with it shows when it is used
    try:
        storage_at(spec)
    except (TypeError, InvalidArgument) as error:
        raise InvalidArgument(f"{argument} of {whose}: {error}", argument=argument, value=spec) from error


def resolving(spec: object) -> Program[PostgresStorage | NullStorage]:
    """Find a storage.

    Raises: TypeError; ConfigurationError, which lists what is registered; StorageUnavailable.
    """
    found = storage_at(spec)
    return found if found is not None else (yield from _registered(spec))


def resolving_default() -> Program[PostgresStorage]:
    """Find the storage for results of which nothing is said.

    Raises: ConfigurationError; StorageUnavailable.
    """
    named = current_settings().results.default_storage
    return require_postgres((yield from resolving(named))) if named else _default()


def block_id_of(spec: object) -> UUID | None:
    """The id under which the storage that something names is found again; None where it is not registered.

    Nothing is looked up: an id follows from its name, and what is not registered is refused when it is first used.
    """
    if spec is None:
        named = current_settings().results.default_storage
        return _default().storage_block_id if named is None else block_id_of(named)
    found = storage_at(spec)
    if isinstance(found, PostgresStorage):
        return found.storage_block_id
    return spec if isinstance(spec, UUID) else storage_id(str(spec)) if found is None else None


def lock_manager_at(spec: object) -> PostgresLockManager:
    """The lock manager of a storage that is found without asking the database; None is the default storage.

    Raises: ConfigurationError for an id, of which only the database knows the name, and what locks nothing.
    """
    named = current_settings().results.default_storage if spec is None else spec
    if isinstance(named, UUID):
        raise ConfigurationError(
            "locks=True wants a storage by its name or itself: only the database knows which one an id is of",
            setting="lock_manager",
        )
    found = _default() if named is None else storage_at(named)
    return (_default(str(named)) if found is None else require_postgres(found)).lock_manager()


def resolving_scheduling() -> Program[PostgresStorage]:
    """Find the storage for parameters of runs to come, and register it where there is none yet.

    Raises: ConfigurationError; StorageUnavailable.
    """
    named = current_settings().tasks.scheduling.default_storage or "task-scheduling"
    storage = storage_at(named)
    if storage is None:
        storage = _default(named)
        yield from storage._saving()
    return require_postgres(storage)


def require_postgres(storage: object) -> PostgresStorage:
    """Give the storage back if it keeps results.

    Raises: ConfigurationError.
    """
    if not isinstance(storage, PostgresStorage):
        raise ConfigurationError(
            "a NullStorage keeps no results: leave them unstored with persist_result=False", setting="result_storage"
        )
    return storage


def _registered(spec: object) -> Program[PostgresStorage]:
    default = _default()
    known = yield from call(default.database, lambda _: registered())
    name = known.get(spec) if isinstance(spec, UUID) else spec
    if name not in known.values():
        names = ", ".join(map(repr, known.values())) or "none"
        raise ConfigurationError(
            f"no storage {spec!s} is registered in {default.database!r}; registered are: {names}. "
            f"PostgresStorage(...).save(name) registers one.{_if_meant_otherwise(spec)}",
            setting="result_storage",
        )
    storage = _default(str(name))
    if known.get(storage.id) != name or (isinstance(spec, UUID) and spec != storage.id):
        raise ConfigurationError(
            f"the storage {name!r} is registered under an id that is not its own: somebody has taken its name or its "
            "id. Find out who, and have the tables' owner correct the table storage",
            setting="result_storage",
        )
    storage.storage_block_id = storage.id
    return storage


def _if_meant_otherwise(spec: object) -> str:
    if not isinstance(spec, str) or "/" not in spec:
        return ""
    return f" A directory is given as Path({spec!r}), a block of Prefect's as the block that was loaded."


def _default(name: str = "default") -> PostgresStorage:
    return _shared(None, name, current_settings(), str(Path.cwd()))


@lru_cache(maxsize=64)
def _shared(target: Target | None, name: str, settings: Settings, _directory: str) -> PostgresStorage:
    """One storage for all who say the same, so that they share its connections; it knows processes and loops apart."""
    if target is None:
        return default_storage(settings, name)
    return PostgresStorage(target, name, settings.database_schema, settings)
