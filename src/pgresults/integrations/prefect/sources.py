"""Places where Prefect kept results as files: a directory, or a file system of fsspec's."""

import os
from datetime import UTC, datetime
from errno import EINVAL, EPERM
from importlib import import_module
from pathlib import Path
from stat import S_ISREG
from typing import Any, Protocol

from pgresults.errors import ConfigurationError, InvalidArgument, PgResultsError


class Source(Protocol):
    """A place with files."""

    def names(self) -> list[str]:
        """The files' names relative to the place, in order."""

    def read(self, name: str) -> bytes:
        """The content of a file; raises OSError."""

    def modified(self, name: str) -> datetime | None:
        """When a file was last written; raises OSError."""


class DirectorySource:
    """A directory with everything below it; links are followed to where they do not lead out of it."""

    def __init__(self, place: str) -> None:
        self._root = Path(place).expanduser()
        if not place.strip() or not self._root.is_dir():  # nothing would stand for the working directory
            raise InvalidArgument(f"{place!r} is no directory", argument="path", value=place)
        self._root = self._root.resolve()
        self._unlisted: dict[str, OSError] = {}

    def names(self) -> list[str]:
        """The files' names, and those of the directories that cannot be looked into: reading one says why."""
        refused: list[OSError] = []
        walk = os.walk(self._root, onerror=refused.append)
        found = [Path(folder, file) for folder, _, files in walk for file in files]
        self._unlisted = {self._name(Path(error.filename)): error for error in refused}
        return sorted([*(self._name(path) for path in found if _is_file(path)), *self._unlisted])

    def _name(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()

    def read(self, name: str) -> bytes:
        with open(self._opened(name), "rb") as file:  # noqa: PTH123 (a descriptor)
            return file.read()

    def modified(self, name: str) -> datetime | None:
        descriptor = self._opened(name)
        try:
            return datetime.fromtimestamp(os.fstat(descriptor).st_mtime, UTC)
        finally:
            os.close(descriptor)

    def _opened(self, name: str) -> int:
        """A descriptor of a file below the directory; raises OSError for one elsewhere, and for what is no file.

        Whoever may write there may put a link in the place of anything at any moment: so none is followed on the way
        from the directory to where the file was found to be.
        """
        if name in self._unlisted:
            raise self._unlisted[name]
        target = (self._root / name).resolve(strict=True)
        if not target.is_relative_to(self._root):
            raise PermissionError(EPERM, "it is a link that leads out of the directory")
        *folders, last = target.relative_to(self._root).parts
        place = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for folder in folders:
                place, above = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=place), place
                os.close(above)
            descriptor = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=place)
        finally:
            os.close(place)
        if not S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(EINVAL, "it is no file")
        return descriptor


def _is_file(path: Path) -> bool:
    """Whether there is a file to read; what cannot even be looked at is for reading to say."""
    try:
        return S_ISREG(path.stat().st_mode)
    except PermissionError:
        return True
    except OSError:
        return False


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
