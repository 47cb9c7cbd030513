"""The import of results that Prefect kept as files; it needs no Prefect."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, Protocol

from pgresults.effects import perform
from pgresults.errors import ConfigurationError, InvalidArgument, InvalidKey, PayloadTooLarge, PgResultsError
from pgresults.integrations.documents import is_damaged, upload_of
from pgresults.keys import require_key
from pgresults.storage import PostgresStorage


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

    ``outcome`` is imported, present (it is there already), kept (Postgres has or had something newer), or unreadable;
    ``reason`` says why it is unreadable.
    """

    name: str
    outcome: str
    reason: str | None = None


def import_files(storage: PostgresStorage, source: Source, names: list[str]) -> Iterator[Imported]:
    """Store each file as the first version under its name, with its expiration and the time it was written.

    What is under a key already is never replaced, so an import that was interrupted is taken up by running it again.

    Parameters:
        storage: where the results go.
        source: where the files are.
        names: the files.

    Raises: StorageUnavailable; SchemaVersionError.
    """
    for name in names:
        try:
            yield _import_file(storage, source, name)
        except (OSError, InvalidKey, PayloadTooLarge) as error:
            yield Imported(name, "unreadable", _in_short(error))


def source_of(place: str) -> Source:
    """The files of a directory, or of a file system's URL such as ``s3://bucket/folder``.

    Raises: InvalidArgument when there is no such directory; ConfigurationError when the URL needs a missing package.
    """
    return _Remote(place) if "://" in place else _Directory(place)


def _import_file(storage: PostgresStorage, source: Source, name: str) -> Imported:
    key, content = require_key(name), source.read(name)
    if is_damaged(content):
        return Imported(name, "unreadable", "empty" if not content else "a result document that breaks off")
    modified = source.modified(name)
    origin = {"name": name, "modified_at": modified.isoformat() if modified else None}
    upload = upload_of(storage, key, content, {"import": origin}, action="import")
    found = perform(storage.fetch(key))
    if found is None or found.head.version == 0:
        perform(storage.store(upload))
        return Imported(name, "imported")
    return Imported(name, "present" if found.head.sha256 == upload.columns["sha256"] else "kept")


class _Directory:
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


class _Remote:
    """A place on any file system that fsspec knows."""

    def __init__(self, place: str) -> None:
        try:
            from fsspec.core import url_to_fs

            self._files, self._root = url_to_fs(place)
        except (ImportError, ValueError) as error:
            raise ConfigurationError(f"{place} cannot be opened: {_in_short(error)}", setting="path") from error

    def names(self) -> list[str]:
        return sorted(path[len(self._root) :].lstrip("/") for path in self._files.find(self._root))

    def read(self, name: str) -> bytes:
        content: bytes = self._files.cat_file(f"{self._root}/{name}")
        return content

    def modified(self, name: str) -> datetime | None:
        try:
            moment: datetime = self._files.modified(f"{self._root}/{name}")
        except NotImplementedError:
            return None
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _in_short(error: Exception) -> str:
    return str(error) if isinstance(error, PgResultsError) else f"{type(error).__name__}: {error}"
