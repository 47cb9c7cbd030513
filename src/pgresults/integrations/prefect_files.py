"""The import of results that Prefect kept as files; it needs no Prefect."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from sqlalchemy import LargeBinary, Text, any_, bindparam, cast, func, literal_column, select
from sqlalchemy.dialects.postgresql import ARRAY

from pgresults.compiled import Statement
from pgresults.effects import call, perform
from pgresults.errors import (
    ConfigurationError,
    InvalidArgument,
    InvalidKey,
    LockedError,
    PayloadTooLarge,
    PgResultsError,
)
from pgresults.guards import Guard
from pgresults.integrations.documents import is_damaged, upload_of
from pgresults.keys import MAX_KEY_BYTES, require_key
from pgresults.operations.requests import Execute, Operation
from pgresults.operations.results import Upload, write
from pgresults.schema import result
from pgresults.storage import PostgresStorage
from pgresults.texts import flaw_of

_NAMES_A_QUESTION = 500
_BLOCK = "block:"


class Source(Protocol):
    """A place with files."""

    def names(self) -> list[str]:
        """The files' names relative to the place, in order."""

    def read(self, name: str) -> bytes:
        """The content of a file; raises OSError."""

    def modified(self, name: str) -> datetime | None:
        """When a file was last written; raises OSError."""


class Imported(NamedTuple):
    """What became of a file.

    ``outcome`` is imported, present (it is there already), kept (Postgres has or had something newer), locked (somebody
    holds the lock of its key) or unreadable; ``reason`` says by whom or why.
    """

    name: str
    outcome: str
    reason: str | None = None


def import_files(storage: PostgresStorage, source: Source, names: list[str]) -> Iterator[Imported]:
    """Store each file as the first version under its name, with its expiration and the time it was written.

    What is under a key already is never replaced, so an import that was interrupted is taken up by running it again,
    and several may run at once.

    Parameters:
        storage: where the results go.
        source: where the files are.
        names: the files.

    Raises: StorageUnavailable; SchemaVersionError.
    """
    for batch in batched(names, _NAMES_A_QUESTION):
        known = perform(call(storage.database, partial(_heads, storage, batch)))
        for name in batch:
            try:
                yield _import_file(storage, source, name, known.get(name))
            except LockedError as error:
                yield Imported(name, "locked", in_short(error))
            except (OSError, InvalidKey, PayloadTooLarge) as error:
                yield Imported(name, "unreadable", in_short(error))


def _import_file(storage: PostgresStorage, source: Source, name: str, known: bytes | None) -> Imported:
    key, content = require_key(name), source.read(name)
    if is_damaged(content):
        return Imported(name, "unreadable", "empty" if not content else "a result document that breaks off")
    modified = source.modified(name)
    origin = {"name": name, "modified_at": modified.isoformat() if modified else None}
    upload = upload_of(storage, key, content, {"import": origin}, guard=Guard.NOT_HELD, described={"action": "import"})
    if known is None:
        perform(storage.register())
        try:
            perform(call(storage.database, lambda repeated: _write_first(upload, repeated), atomic=True))
        except _NotFirst:
            known = perform(call(storage.database, partial(_heads, storage, [key])))[key]
        else:
            return Imported(name, "imported")
    return Imported(name, "present" if known == upload.columns["sha256"] else "kept")


class _NotFirst(Exception):  # noqa: N818 (a signal that has the transaction rolled back)
    """Somebody stored a result under the key in the meantime."""


def _write_first(upload: Upload, repeated: bool) -> Operation[None]:
    if (yield from write(upload, repeated=repeated)).version != 1:
        raise _NotFirst


_HEADS = Statement(
    select(result.c.key, func.coalesce(result.c.sha256, cast(literal_column("''"), LargeBinary))).where(
        result.c.storage_id == bindparam("storage_id"),
        result.c.key == any_(bindparam("keys", type_=ARRAY(Text))),
        result.c.version > literal_column("0"),
    )
)
"""Under which of some keys there is or was a result, with its digest."""


def _heads(storage: PostgresStorage, names: Sequence[str], _repeated: bool = False) -> Operation[dict[str, bytes]]:
    keys = [name for name in names if flaw_of(name, MAX_KEY_BYTES) is None]
    rows = yield Execute(_HEADS, {"storage_id": storage.id, "keys": keys})
    return dict(rows)


def batched(names: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """The names in groups."""
    return (names[start : start + size] for start in range(0, len(names), size))


def source_of(place: str) -> Source:
    """The files of a place.

    Parameters:
        place: a directory, a file system's URL such as ``s3://bucket/folder``, or ``block:`` with the type and name of
            a block that Prefect has saved.

    Raises: InvalidArgument when there is no such directory or block; ConfigurationError when the place cannot be
        opened, which names what is missing.
    """
    if place.startswith(_BLOCK):
        return _block_source(place.removeprefix(_BLOCK))
    return url_source(place) if "://" in place else DirectorySource(place)


def _block_source(name: str) -> Source:
    try:
        sources = import_module("pgresults.integrations.prefect.sources")
    except ImportError as error:
        raise ConfigurationError(f"a block can only be loaded with Prefect: {error}", setting="path") from error
    source: Source = sources.block_source(name)
    return source


class DirectorySource:
    """A directory with everything below it."""

    def __init__(self, place: str) -> None:
        self._root = Path(place).expanduser()
        if not self._root.is_dir():
            raise InvalidArgument(f"{place} is no directory", argument="path", value=place)

    def names(self) -> list[str]:
        return sorted(path.relative_to(self._root).as_posix() for path in self._root.rglob("*") if path.is_file())

    def read(self, name: str) -> bytes:
        return (self._root / name).read_bytes()

    def modified(self, name: str) -> datetime | None:
        return datetime.fromtimestamp((self._root / name).stat().st_mtime, UTC)


class FileSystemSource:
    """A place on a file system of fsspec's.

    Parameters:
        files: the file system.
        root: the place on it.
    """

    def __init__(self, files: Any, root: str) -> None:
        self._files = files
        self._root = root.rstrip("/")

    def names(self) -> list[str]:
        try:
            found = self._files.find(self._root)
        except Exception as error:
            raise ConfigurationError(f"{self._root} cannot be listed: {in_short(error)}", setting="path") from error
        return sorted(path[len(self._root) :].lstrip("/") for path in found)

    def read(self, name: str) -> bytes:
        try:
            content: bytes = self._files.cat_file(f"{self._root}/{name}")
        except OSError:
            raise
        except Exception as error:
            raise OSError(in_short(error)) from error
        return content

    def modified(self, name: str) -> datetime | None:
        try:
            moment: datetime = self._files.modified(f"{self._root}/{name}")
        except NotImplementedError:
            return None
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def url_source(url: str, **options: Any) -> FileSystemSource:
    """The files of a URL, as fsspec opens it.

    Parameters:
        url: the place.
        options: of the file system, such as credentials.

    Raises: ConfigurationError.
    """
    try:
        opened = import_module("fsspec.core").url_to_fs(url, **options)
    except ImportError as error:
        raise ConfigurationError(
            f"{url} cannot be opened: {error}. `pip install fsspec`, and the package for this kind of place, "
            "such as s3fs, gcsfs or adlfs",
            setting="path",
        ) from error
    except ValueError as error:
        raise ConfigurationError(f"{url} cannot be opened: {error}", setting="path") from error
    return FileSystemSource(*opened)


def in_short(error: Exception) -> str:
    """An error in a line."""
    return str(error) if isinstance(error, PgResultsError) else f"{type(error).__name__}: {error}"
