"""What names a database, and the URL that it is or has."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias, Union

import psycopg
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError

from pgresults.database.lookups import is_async_engine
from pgresults.errors import ConfigurationError
from pgresults.server.embedded import EmbeddedPostgres
from pgresults.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

Target: TypeAlias = Union[str, URL, Path, EmbeddedPostgres, Engine, "AsyncEngine"]
"""What names a database: a URL, a directory or server of its own, or an engine of the caller's."""

DRIVER: Final = "postgresql+psycopg"
"""How SQLAlchemy calls psycopg."""

_PASSWORDS: Final = ("password", "sslpassword")

_OF_LIBPQ: Final = re.compile(r"postgres(?:ql)?(?:\+psycopg)?://(?:[^/?]*@)?[^/?@]*(?:,|%2F)", re.IGNORECASE)
"""Several hosts with ports of their own, or a directory of sockets in the place of the host."""


def url_of(target: Target, setting: str = "database_url") -> URL:
    """The URL that a target is or has.

    Parameters:
        target: what names a database.
        setting: what said so.

    Raises: ConfigurationError when it is none of a Postgres database, or of another driver's.
    """
    if isinstance(target, Engine) or is_async_engine(target):
        target = target.url
    try:
        only_libpq_reads_it = isinstance(target, str) and _OF_LIBPQ.match(target)
        url = _of_libpq(target) if only_libpq_reads_it else make_url(target)  # type: ignore[arg-type] # see below
        if "@" in f"{url.host}{url.query.get('host')}":
            raise ValueError("the host begins with the rest of a password")
    except (ArgumentError, ValueError, psycopg.ProgrammingError):
        raise ConfigurationError(
            "not a database URL; it looks like postgresql://user@host:5432/database (in a password, write %40 for @, "
            "%2F for / and %3A for :), and a directory is given as a Path",
            setting=setting,
        ) from None  # the cause quotes what may be a part of the password
    if url.drivername not in ("postgresql", "postgres", DRIVER):
        raise ConfigurationError(
            f"pgresults talks to Postgres through psycopg, not through {url.drivername!r}: "
            "use a URL that starts with postgresql:// (or postgresql+psycopg:// for an engine)",
            setting=setting,
        )
    return url.set(drivername=DRIVER)


def standby_of(target: Target, settings: Settings) -> str | None:
    """The URL of the settings' standby, if a target is the settings' database.

    Raises: ConfigurationError for a target or a setting that is none.
    """
    if settings.read_url is None or settings.database_url is None or isinstance(target, Path | EmbeddedPostgres):
        return None
    here, there = (url_of(one) for one in (target, settings.database_url.get_secret_value()))
    same = without_passwords(here) == without_passwords(there)
    return settings.read_url.get_secret_value() if same else None


def without_passwords(url: URL) -> URL:
    """The URL as it may be seen by anybody."""
    return url._replace(password=None).difference_update_query(_PASSWORDS)  # set() takes None for: as it is


def _of_libpq(text: Any) -> URL:
    """What a URL says that libpq reads and SQLAlchemy does not; raises psycopg's error where libpq does not, either."""
    scheme, rest = text.split(":", 1)
    said = {name: str(value) for name, value in conninfo_to_dict(f"postgresql:{rest}").items()}
    user, password, database = (said.pop(name, None) for name in ("user", "password", "dbname"))
    return URL.create(scheme, user, password, database=database, query=said)
