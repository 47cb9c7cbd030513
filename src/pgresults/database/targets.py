"""What names a database, and the URL that it is or has."""

from pathlib import Path
from typing import Final, TypeAlias

from sqlalchemy import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine

from pgresults.errors import ConfigurationError
from pgresults.server.embedded import EmbeddedPostgres

Target: TypeAlias = str | URL | Path | EmbeddedPostgres | Engine | AsyncEngine
"""What names a database: a URL, a directory or server of its own, or an engine of the caller's."""

DRIVER: Final = "postgresql+psycopg"
"""How SQLAlchemy calls psycopg."""


def url_of(target: Target) -> URL:
    """The URL that a target is or has.

    Raises: ConfigurationError when it is none of a Postgres database, or of another driver's.
    """
    if isinstance(target, Engine | AsyncEngine):
        target = target.url
    try:
        url = make_url(target)  # type: ignore[arg-type] # what is no URL is refused here
        if "@" in (url.host or ""):
            raise ValueError("the host begins with the rest of a password")
    except (ArgumentError, ValueError):
        raise ConfigurationError(
            "not a database URL; it looks like postgresql://user@host:5432/database (in a password, write %40 for @, "
            "%2F for / and %3A for :), and a directory is given as a Path",
            setting="database_url",
        ) from None  # the cause quotes what may be a part of the password
    if url.drivername not in ("postgresql", "postgres", DRIVER):
        raise ConfigurationError(
            f"pgresults talks to Postgres through psycopg, not through {url.drivername!r}: "
            "use a URL that starts with postgresql:// (or postgresql+psycopg:// for an engine)",
            setting="database_url",
        )
    return url.set(drivername=DRIVER)
